"""How much of the exact answer an approximate search finds, and with what certainty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Scores are sums of float32 products in another order than the exact search adds them: of 512 dims
# they differ by about 1e-7.
_EQUAL_SCORES = 1e-6

# One-sided 95 % of the normal distribution.
_CONFIDENCE_Z = 1.645


class ScoredId(NamedTuple):
    image_id: str
    score: float


@dataclass(frozen=True, slots=True)
class Point:
    """One measured setting of a curve of recall against latency.

    `recall_by_kind` is the mean recall@k of picture and text queries; `took_ms` the mean of what
    the server says it took, in whole milliseconds each; `wall_ms` the median of the whole round
    trip.
    """

    k: int
    num_candidates: int
    oversample: float | None
    recall_by_kind: Mapping[str, float]
    lower_bound: float
    took_ms: float
    wall_ms: float
    held_back: bool = False

    @property
    def recall(self) -> float:
        """Of the kind of query that fares worst."""
        return min(self.recall_by_kind.values())


def recall_at(
    k: int, found: Sequence[ScoredId], exact: Sequence[ScoredId], *, scores_are_exact: bool = True
) -> float:
    """Share of the `k` nearest that were found, both lists best first.

    Pictures as near as the k-th are worth the same, whichever of them was found.  Where fewer
    than k exist, the share of those.  Scores that quantised vectors gave are not compared:
    `scores_are_exact=False`.
    """
    wanted = min(k, len(exact))
    if not wanted:
        return 1.0
    least = exact[wanted - 1].score - _EQUAL_SCORES
    right = {each.image_id for each in exact if each.score >= least}
    hits = sum(
        each.image_id in right or (scores_are_exact and each.score >= least) for each in found[:k]
    )
    return min(hits, wanted) / wanted


def lower_bound(recalls: npt.NDArray[np.float64]) -> float:
    """What the mean recall of all queries surpasses with 95 % probability, by this sample.

    Of 200 queries with a recall@10 of .95 it is about .94.  One query says nothing: 0, unless it
    found everything.
    """
    mean = float(recalls.mean())
    if len(recalls) < 2:
        return mean if mean == 1.0 else 0.0
    return mean - _CONFIDENCE_Z * float(recalls.std(ddof=1)) / math.sqrt(len(recalls))
