"""How searches of an index are run, as `tune` found it, and what that means for any k."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# For an index that was not tuned: its number is for k = 10, and a larger k needs more.  The
# server's own default is 1.5 k, which found .95 (int8) and .87 (int4) of the true ten of 10,000
# vectors, the profiles' tuning all of them (benchmarks/knn_settings.py).
_CANDIDATES_PER_HIT = 2

# A graph is walked as wide as there are candidates; for a small k that alone decides what is found.
# Half-way between 3 for k = 1 and 15 for k = 10, 9 candidates found .924 of the true five where .95
# was the target (2,000 vectors).
_WIDTH_DECIDES_UP_TO_K = 10


@dataclass(frozen=True, slots=True)
class TunedK:
    """What `tune` found for one k, and the recall@k of queries that had no part in finding it."""

    k: int
    num_candidates: int
    oversample: float | None
    recall: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a kNN search of this index is run.

    `num_candidates` are weighed per shard; `oversample` says how many are compared again with
    the full vectors, None where they were never quantised.  Both are those of k = 10; `per_k`
    holds what was measured for other k.  The rest says how it was measured, and is None on an
    index that was never tuned.

    A top-level kNN search of Elasticsearch 8.19.13 compares num_candidates · oversample vectors
    a shard again, not k · oversample as its documentation has it: 50 · 2 and 100 · 1 found the
    same (recall@100 of 1-bit codes: .785 with 100 · 2 and with 200 · 1, .986 with 500 · 2,
    200 · 5 and 1000 · 1).
    """

    num_candidates: int = 50
    oversample: float | None = None
    per_k: tuple[TunedK, ...] = ()
    target_recall: float | None = None
    pictures: int | None = None
    queries_tuned_on: int | None = None
    queries_held_back: int | None = None
    tuned_at: str | None = None

    def for_k(self, k: int) -> tuple[int, float | None]:
        """num_candidates and oversample of a search for k.

        Up to k = 10 those of the next k that was tuned; from there to the next as many
        candidates as the straight line or the power law through both has, whichever is more,
        and the larger oversample.  Above the last, candidates in proportion to k.
        """
        if not self.per_k:
            return max(self.num_candidates, _CANDIDATES_PER_HIT * k), self.oversample
        tuned = sorted(self.per_k, key=lambda each: each.k)
        low = max((each for each in tuned if each.k <= k), key=lambda each: each.k, default=None)
        high = next((each for each in tuned if each.k >= k), None)
        if high is None:
            last = tuned[-1]
            return max(k, math.ceil(last.num_candidates * k / last.k)), last.oversample
        if low is None or low is high or high.k <= _WIDTH_DECIDES_UP_TO_K:
            return max(k, high.num_candidates), high.oversample
        share = (k - low.k) / (high.k - low.k)
        line = low.num_candidates + share * (high.num_candidates - low.num_candidates)
        growth = math.log(high.num_candidates / low.num_candidates) / math.log(high.k / low.k)
        power = low.num_candidates * (k / low.k) ** growth
        oversamples = [each.oversample for each in (low, high) if each.oversample is not None]
        return max(k, math.ceil(max(line, power))), max(oversamples, default=None)

    def to_body(self) -> dict[str, Any]:
        """As it stands in `_meta`: what is not known is left out."""
        body = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return body | {
            "oversample": self.oversample,
            **({"per_k": [asdict(each) for each in self.per_k]} if self.per_k else {}),
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Tuning:
        """Raises TypeError or AttributeError for what is not one."""
        per_k = tuple(TunedK(**each) for each in body.get("per_k", ()))
        return cls(**{**body, "per_k": per_k})
