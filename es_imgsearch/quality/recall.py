"""Recall of approximate against exact search, with its confidence bound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Approximate and exact search add float32 products in different orders: with 512 dims their scores
# differ by about 1e-7.
_SCORE_TOLERANCE = 1e-6

# One-sided 95 % quantile of the normal distribution.
_CONFIDENCE_Z = 1.645


class ScoredId(NamedTuple):
    image_id: str
    score: float


@dataclass(frozen=True, slots=True)
class TuningPoint:
    """One measured setting on the curve of recall against latency.

    `recall_by_kind` is the mean recall@k of picture and text queries; `took_ms` the mean of the
    server's own times, each in whole milliseconds; `wall_ms` the median of the round trips.
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
        """Recall of the kind of query with the lowest one."""
        return min(self.recall_by_kind.values())


def knn_recall(
    k: int, hits: Sequence[ScoredId], exact: Sequence[ScoredId], *, scores_are_exact: bool = True
) -> float:
    """Return the share of the `k` nearest among the hits; both lists are best first.

    Pictures as near as the k-th are interchangeable.  If fewer than k exist, returns the share of
    those.  Scores of quantised vectors cannot be compared: pass `scores_are_exact=False`.
    """
    count = min(k, len(exact))
    if not count:
        return 1.0
    least = exact[count - 1].score - _SCORE_TOLERANCE
    right = {each.image_id for each in exact if each.score >= least}
    correct = sum(
        each.image_id in right or (scores_are_exact and each.score >= least) for each in hits[:k]
    )
    return min(correct, count) / count


def recall_lower_bound(recalls: npt.NDArray[np.float64]) -> float:
    """Return the lower bound of the mean recall, one-sided with 95 % confidence.

    About .94 for 200 queries with a recall@10 of .95.  A single query is no evidence: 0 unless
    its recall is 1.
    """
    mean = float(recalls.mean())
    if len(recalls) < 2:
        return mean if mean == 1.0 else 0.0
    return mean - _CONFIDENCE_Z * float(recalls.std(ddof=1)) / math.sqrt(len(recalls))
