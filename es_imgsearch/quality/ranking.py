"""What a ranking is worth, and whether one way of searching is better than another.

For one query, with r the ranks (from 1) of its right pictures among the hits and R the number of
its right pictures in the index (Manning, Raghavan and Schütze 2008, *Introduction to Information
Retrieval*, chapter 8):

    recall@k     |{r <= k}| / R              how much of what is there is found
    hit@k        1 if any r <= k, else 0     what papers on text and pictures call R@k
    precision@k  |{r <= k}| / k              how much of what is shown is right
    mrr          1 / min(r), or 0            reciprocal rank, of the hits that were fetched

A figure of a whole run is the mean over its queries.  Where R > k recall@k cannot reach 1, and
where R < k precision@k cannot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


def recall_at(k: int, ranks: Sequence[int], right: int) -> float:
    return sum(rank <= k for rank in ranks) / right


def hit_at(k: int, ranks: Sequence[int]) -> float:
    return float(any(rank <= k for rank in ranks))


def precision_at(k: int, ranks: Sequence[int]) -> float:
    return sum(rank <= k for rank in ranks) / k


def reciprocal_rank(ranks: Sequence[int]) -> float:
    return 1.0 / min(ranks) if ranks else 0.0


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of two runs over the same queries: second less first.

    `low` and `high` bound the mean difference with 95 % confidence (paired bootstrap over
    queries, percentiles; Sakai 2006, SIGIR).  `p_value` is that of the two-sided sign test on the
    queries where the runs differ (ties left out).
    """

    metric: str
    first: float
    second: float
    low: float
    high: float
    better: int
    worse: int
    p_value: float

    @property
    def mean(self) -> float:
        return self.second - self.first


def difference(
    metric: str, first: Sequence[float], second: Sequence[float], seed: int = 0
) -> Difference:
    """Compare two runs query by query; both lists in the same order of queries."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    change = b - a
    generator = np.random.default_rng(seed)
    # One resample at a time: at once, 10,000 of 5,000 queries would take 400 MB.
    means = [
        float(change[generator.integers(0, len(change), len(change))].mean())
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    better, worse = int((change > 0).sum()), int((change < 0).sum())
    return Difference(
        metric=metric,
        first=float(a.mean()),
        second=float(b.mean()),
        low=float(low),
        high=float(high),
        better=better,
        worse=worse,
        p_value=sign_test(better, worse),
    )


def sign_test(better: int, worse: int) -> float:
    """Two-sided probability of a split as uneven as this, were either as likely."""
    n, few = better + worse, min(better, worse)
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, i) for i in range(few + 1))
    # Whole numbers to the last step: 2 ** n has no float from 1,024 queries on.
    share: float = 2 * tail / 2**n
    return min(1.0, share)
