"""Derive the curves of `relevance` from an index without labels.

Encoders differ in where their cosines lie: those of CLIP between words and pictures are .2 to .3,
those of `starter` -.2 to .8.  So a cosine is put on the scale of unrelated pairs of this encoder
and these pictures (its null distribution)::

    standard = (cosine - mean(null)) / deviation(null)
    odds = INTERCEPT - SIZE_WEIGHT * ln(pictures) + z_weight * z + standard_weight * standard

For queries by words the null are the cosines of 100 everyday texts with the background, most of
which have nothing to do with most pictures; for queries by pictures, those of the background's
pictures with each other.  `standard` and `z` do not change if all cosines are moved or stretched,
so the weights are the same for every encoder.  They were fitted with `starter` on two collections
(`benchmarks/belief.py`): weights of one are right on the other too (words, Brier score .0369 with
weights of the other collection, .0367 with its own).  In a small index the best of the wrong
pictures is less near, hence the number of pictures, up to the size of the background.

The fit for words, (-2.9, 0.58, 1.01), was moved in two ways that cost a Brier score of .001: less
of `z`, which is small for every picture of birds among birds, and a higher intercept, since hiding
a right hit costs more than showing a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

from es_imgsearch.elastic.meta_entries import Curve
from es_imgsearch.search.relevance.background import BACKGROUND_SIZE
from es_imgsearch.search.relevance.model import (
    IMAGE,
    MIN_DEVIATION,
    SAME_PICTURE,
    TEXT,
    Floats,
    QueryRelevance,
    background_moments,
)


class _Weights(NamedTuple):
    intercept: float
    z: float
    standard: float


_WEIGHTS: Final[Mapping[str, _Weights]] = {
    TEXT: _Weights(-2.8, 0.35, 1.3),
    IMAGE: _Weights(-1.5, 1.34, 0.95),
}
SIZE_WEIGHT: Final = 0.8


@cache
def unrelated_texts() -> Sequence[str]:
    """Return the everyday texts whose cosines are the null distribution of words."""
    file = resources.files("es_imgsearch.search.relevance") / "everyday_words.txt"
    return tuple(file.read_text("utf-8").splitlines())


def null_moments(unrelated: Floats, background: Floats) -> tuple[float, float]:
    """Return mean and deviation of the cosines of unrelated pairs.

    `unrelated` (n, dims) are vectors of texts, or the background (m, dims) itself; a picture is not
    compared with itself.
    """
    cosines = (unrelated @ background.T).ravel()
    others = cosines[cosines < SAME_PICTURE]
    if len(others):
        cosines = others
    return float(cosines.mean()), max(float(cosines.std()), MIN_DEVIATION)


def derived_curve(kind: str, moments: tuple[float, float], pictures: int) -> Curve:
    """Return the curve of a kind of query for the moments of the null distribution.

    `pictures` is the size of the background.
    """
    weights, (mean, deviation) = _WEIGHTS[kind], moments
    size = SIZE_WEIGHT * math.log(min(max(pictures, 1), BACKGROUND_SIZE))
    return Curve(
        intercept=round(weights.intercept - size - weights.standard * mean / deviation, 4),
        z_weight=weights.z,
        cosine_weight=round(weights.standard / deviation, 4),
    )


@dataclass(frozen=True, slots=True, eq=False)
class RelevanceModel:
    """Curves of one index by kind of query; its background, shape (m, dims)."""

    curves: Mapping[str, Curve]
    background: Floats

    def for_query(self, query: Floats, kind: str) -> QueryRelevance | None:
        """Return the relevance of a query's hits; None if its kind has no curve.

        `query` has shape (dims,); `kind` is ``text`` or ``image``.
        """
        if (curve := self.curves.get(kind)) is None:
            return None
        return QueryRelevance(curve, *background_moments(self.background @ query))

    def with_derived(self, kind: str, unrelated: Floats) -> RelevanceModel:
        """Add a curve for this kind, derived from `unrelated`, see `null_moments`."""
        moments = null_moments(unrelated, self.background)
        curve = derived_curve(kind, moments, len(self.background))
        return RelevanceModel({**self.curves, kind: curve}, self.background)
