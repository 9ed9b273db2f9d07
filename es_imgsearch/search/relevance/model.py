"""Compute `relevance`, the probability that a hit is right.

A cosine alone says little: 0.3 is high for a text and low for a picture, and some queries are
near to everything.  So the cosine is also expressed in standard deviations above the cosines of
unrelated pictures (the background), and a logistic curve for each kind of query turns both into a
probability::

    z = (cosine - mean(background)) / deviation(background)
    relevance = 1 / (1 + exp(-(intercept + z_weight * z + cosine_weight * cosine)))

The curve is derived from the index itself (`unlabelled`), or fitted on labels by `calibrate`.

Standardising by a cohort of impostors is the z-norm of speaker verification (Auckenthaler, Carey
and Lloyd-Thomas 2000, Digital Signal Processing 10); the curve is Platt scaling (1999).  Cosine
and z-score are both needed (`benchmarks/relevance.py`): with `starter`, z alone is worse for
texts and the cosine alone for pictures; together they come near the better one each time.

Neither weight is negative, so of two hits of one query the nearer never has less relevance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from es_imgsearch.elastic.meta_entries import Curve

Floats = npt.NDArray[np.float32]

TEXT: Final = "text"
IMAGE: Final = "image"

# The deviation is a divisor, and 0 for a background of equal pictures.
MIN_DEVIATION = 1e-3

# From this cosine on, a background picture is the query itself.
SAME_PICTURE = 0.9999


def background_moments(cosines: Floats) -> tuple[float, float]:
    """Return mean and standard deviation of a query's cosines to the background.

    `cosines` has shape (m,).  A background picture that is the query itself does not count.
    """
    if cosines.max() >= SAME_PICTURE and cosines.min() < SAME_PICTURE:
        cosines = cosines[cosines < SAME_PICTURE]
    return float(cosines.mean()), max(float(cosines.std()), MIN_DEVIATION)


def z_scores(queries: Floats, cosines: Floats, background: Floats) -> Floats:
    """Express cosines in standard deviations above the background's mean.

    `queries` has shape (n, dims), `cosines` (n, any), `background` (m, dims); unit vectors.
    """
    moments = [background_moments(each) for each in queries @ background.T]
    mean, deviation = np.asarray(moments, dtype=np.float32).T
    z: Floats = (cosines - mean[:, None]) / deviation[:, None]
    return z


@dataclass(frozen=True, slots=True)
class QueryRelevance:
    """Relevance of one query's hits: curve and moments of background cosines."""

    curve: Curve
    mean: float
    deviation: float

    def probability(self, cosine: float) -> float:
        """Compute the relevance of a hit with this cosine, to four digits."""
        curve = self.curve
        z = (cosine - self.mean) / self.deviation
        odds = curve.intercept + curve.z_weight * z + curve.cosine_weight * cosine
        # `Curve.probability` takes 30 times as long for a single number.
        return round(1.0 / (1.0 + math.exp(-min(max(odds, -60.0), 60.0))), 4)

    def cosine_of(self, probability: float) -> float:
        """Compute the cosine from which on hits have this relevance; within -1 and 1."""
        curve = self.curve
        slope = curve.z_weight / self.deviation + curve.cosine_weight
        if not 0.0 < probability < 1.0 or slope <= 0.0:
            return 1.0 if probability >= 1.0 else -1.0
        odds = math.log(probability / (1.0 - probability))
        cosine = (odds - curve.intercept + curve.z_weight * self.mean / self.deviation) / slope
        return min(max(cosine, -1.0), 1.0)
