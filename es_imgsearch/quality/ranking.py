"""Compute metrics of rankings, and test whether two runs differ.

For one query, with r the ranks (from 1) of its right pictures among the hits and R the number of
its right pictures in the index (Manning, Raghavan and Schütze 2008, *Introduction to Information
Retrieval*, chapter 8):

    recall@k     |{r <= k}| / R              share of the right pictures that are found
    hit@k        1 if any r <= k, else 0     called R@k in papers on text-to-image retrieval
    precision@k  |{r <= k}| / k              share of the shown pictures that are right
    mrr          1 / min(r), or 0            reciprocal rank, among the fetched hits

The figure of a run is the mean over its queries.  If R > k recall@k cannot reach 1, and if R < k
precision@k cannot.
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
class MetricDifference:
    """Difference of a metric between two runs of the same queries: second - first.

    `low` and `high` bound the mean difference with 95 % confidence (paired bootstrap over
    queries, percentiles; Sakai 2006, SIGIR).  `p_value` is of the two-sided sign test on the
    queries whose results differ (ties left out).
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


def compare_metric(
    metric: str, first: Sequence[float], second: Sequence[float], seed: int = 0
) -> MetricDifference:
    """Compare a metric of two runs; both lists hold the queries in the same order."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    change = b - a
    generator = np.random.default_rng(seed)
    # One resample at a time: 10,000 of 5,000 queries together would take 400 MB.
    means = [
        float(change[generator.integers(0, len(change), len(change))].mean())
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    better, worse = int((change > 0).sum()), int((change < 0).sum())
    return MetricDifference(
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
    """Return the two-sided p-value of the sign test of wins and losses."""
    n, few = better + worse, min(better, worse)
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, i) for i in range(few + 1))
    # Integers until the last step: 2 ** n overflows a float from 1,024 queries on.
    share: float = 2 * tail / 2**n
    return min(1.0, share)
