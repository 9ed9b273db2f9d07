"""`relevance`: the calibrated probability that a hit is right.

A cosine alone says little: 0.3 is much for a text and nothing for a picture, and some queries are
near to everything.  So a hit's cosine is also told in standard deviations above the cosines of
pictures that have nothing to do with the query (the background), and a logistic curve, fitted for
each encoder and kind of query on labelled pictures, makes a probability of both::

    z = (cosine - mean(background)) / deviation(background)
    relevance = 1 / (1 + exp(-(intercept + z_weight * z + cosine_weight * cosine)))

Standardising by a cohort of impostors is z-norm of speaker verification (Auckenthaler, Carey and
Lloyd-Thomas 2000, Digital Signal Processing 10); the curve is Platt's scaling (1999).  That the
cosine stays in besides its z-score is measured (`benchmarks/relevance.py`): with `starter`, z
alone is the worse for texts and the cosine alone for pictures, both together come near the better
of the two each time.

Neither weight is negative, so that of two hits of one query the nearer never has less relevance.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

TEXT: Final = "text"
IMAGE: Final = "image"

# The deviation of n cosines is known to 1 / sqrt(2n): 13 % of 30, 3 % of 500.
MIN_BACKGROUND: Final = 30
BACKGROUND_SIZE: Final = 500

# Cosines of a background of equal pictures would have no deviation to divide by.
_LEAST_DEVIATION = 1e-3

_ITSELF = 0.9999


@dataclass(frozen=True, slots=True)
class Curve:
    """Coefficients of the logistic curve of one encoder and kind of query."""

    intercept: float
    z_weight: float
    cosine_weight: float

    def probability(self, z: npt.ArrayLike, cosine: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Relevance, from 0 to 1, of hits with these z-scores and cosines (any equal shapes)."""
        odds = (
            self.intercept
            + self.z_weight * np.asarray(z, dtype=np.float64)
            + self.cosine_weight * np.asarray(cosine, dtype=np.float64)
        )
        # Beyond 60 the exponential says 0 or 1 anyway, and beyond 709 it overflows.
        probability: npt.NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(odds, -60.0, 60.0)))
        return probability


def curves_from_body(body: Mapping[str, Mapping[str, Any]]) -> dict[str, Curve]:
    """Curves by kind of query, as `_meta` and the shipped file hold them.

    Raises KeyError, TypeError or ValueError for what is none.
    """
    names = Curve.__slots__
    curves = {}
    for kind, values in body.items():
        numbers = [float(values[name]) for name in names]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"{kind} has a coefficient that is no number")
        curves[kind] = Curve(*numbers)
    return curves


@cache
def _shipped() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    text = (resources.files("es_imgsearch") / "relevance_curves.json").read_text("utf-8")
    shipped: Mapping[str, Any] = json.loads(text)
    return shipped


def encoder_key(revision: str, fingerprint: str) -> str:
    """What the shipped curves are found by: weights and preprocessing, not the name."""
    return f"{revision} {fingerprint}"


def shipped_curves(revision: str, fingerprint: str) -> dict[str, Curve]:
    """Curves of an encoder that this package knows; empty for any other."""
    entry = _shipped().get(encoder_key(revision, fingerprint), {})
    return curves_from_body(entry.get("curves", {}))


def foreign_moments(near: Floats) -> tuple[float, float]:
    """Mean and standard deviation of one query's cosines to the background, of shape (m,).

    A picture of the background that is the query itself is not foreign to it and does not count.
    """
    if near.max() >= _ITSELF and near.min() < _ITSELF:
        near = near[near < _ITSELF]
    return float(near.mean()), max(float(near.std()), _LEAST_DEVIATION)


def z_scores(queries: Floats, cosines: Floats, background: Floats) -> Floats:
    """How many deviations above the background each cosine is.

    `queries` has shape (n, dims), `cosines` (n, any), `background` (m, dims); unit vectors.
    """
    moments = [foreign_moments(near) for near in queries @ background.T]
    mean, deviation = np.asarray(moments, dtype=np.float32).T
    z: Floats = (cosines - mean[:, None]) / deviation[:, None]
    return z


@dataclass(frozen=True, slots=True)
class Rating:
    """The relevance of one query's hits: its curve, and where its background lies."""

    curve: Curve
    mean: float
    deviation: float

    def of(self, cosine: float) -> float:
        """Relevance of a hit with this cosine, to four digits."""
        curve = self.curve
        z = (cosine - self.mean) / self.deviation
        odds = curve.intercept + curve.z_weight * z + curve.cosine_weight * cosine
        # One number at a time, `probability` would take 30 times as long.
        return round(1.0 / (1.0 + math.exp(-min(max(odds, -60.0), 60.0))), 4)


@dataclass(frozen=True, slots=True, eq=False)
class Relevance:
    """What turns the cosines of one index into probabilities; `background` of shape (m, dims)."""

    curves: Mapping[str, Curve]
    background: Floats

    def rating(self, query: Floats, kind: str) -> Rating | None:
        """For hits of a query vector of shape (dims,); None for a kind that has no curve.

        `kind` is ``text`` or ``image``.
        """
        if (curve := self.curves.get(kind)) is None:
            return None
        return Rating(curve, *foreign_moments(self.background @ query))
