"""Classify vectors into tags by logistic regression.

One softmax over the labels of a facet with one answer, one sigmoid per label of a facet with many.
Needs NumPy only; `fitting` trains it with scikit-learn.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from es_imgsearch.elastic.meta import Meta, Seal
from es_imgsearch.errors import EncoderMismatch, IndexConflict
from es_imgsearch.search.relevance import Floats
from es_imgsearch.tags.vocabulary import MANY, ONE, Answers
from es_imgsearch.tags.zero_shot import FacetScores, best_only


@dataclass(frozen=True, slots=True, eq=False)
class FacetClassifier:
    """Weights for the labels of one facet.

    `weights` of shape (labels, dims), `intercepts` and `thresholds` of shape (labels,); a label
    becomes a tag from its threshold on, in a facet with one answer only the most probable label.
    """

    facet: str
    answers: Answers
    labels: tuple[str, ...]
    weights: Floats
    intercepts: Floats
    thresholds: Floats

    def probabilities(self, vectors: Floats) -> Floats:
        """Compute probabilities (n, labels) of n unit vectors, of shape (n, dims)."""
        log_odds = (vectors @ self.weights.T + self.intercepts).clip(-60.0, 60.0)
        if self.answers == ONE:
            powers = np.exp(log_odds - log_odds.max(axis=1, keepdims=True))
            probabilities: Floats = powers / powers.sum(axis=1, keepdims=True)
        else:
            probabilities = 1.0 / (1.0 + np.exp(-log_odds))
        return probabilities.astype(np.float32)

    def scores(self, vectors: Floats) -> FacetScores:
        probabilities = self.probabilities(vectors)
        holds = probabilities >= self.thresholds
        if self.answers == ONE:
            holds &= best_only(probabilities)
        return FacetScores(
            self.facet,
            self.answers,
            self.labels,
            probabilities,
            holds,
            self.thresholds,
            is_trained=True,
        )


@dataclass(frozen=True, slots=True, eq=False)
class TagClassifier:
    """Classifiers of all trained facets, and the encoder they were trained for.

    `reduction` is the hash of the index's reduction, None for whole vectors.  `pictures` is the
    number of pictures trained on, `trained_at` a time in ISO 8601, `inverse_penalty`
    scikit-learn's C.
    """

    seal: Seal
    reduction: str | None
    facets: tuple[FacetClassifier, ...]
    pictures: int
    trained_at: str
    inverse_penalty: float

    def scores(self, vectors: Floats) -> list[FacetScores]:
        """Compute the scores of every trained facet for n unit vectors (n, dims)."""
        return [facet.scores(vectors) for facet in self.facets]

    def check(self, meta: Meta, index: str) -> None:
        """Raise EncoderMismatch unless the index has vectors of the encoder trained on."""
        own = meta.seal
        for part in ("dims", "revision", "fingerprint"):
            if getattr(self.seal, part) != getattr(own, part):
                raise EncoderMismatch(
                    f"The tag classifier of index {index!r} was trained on vectors of encoder"
                    f" {self.seal.name!r}; the index now has vectors of {own.name!r}, which differs"
                    f" in {part}: train it again on the same labels with `es-imgsearch tags train"
                    f" --index {index}`, or remove it with `es-imgsearch tags forget --index"
                    f" {index}`."
                )
        if self.reduction != (meta.reduction.hash if meta.reduction else None):
            raise EncoderMismatch(
                f"The tag classifier of index {index!r} was trained on vectors with another"
                f" reduction: train it again with `es-imgsearch tags train --index {index}`."
            )

    def to_body(self) -> dict[str, Any]:
        """Convert to the stored form; arrays are little-endian float32 in base64, by rows."""
        return {
            "encoder": self.seal.to_body(),
            "reduction": self.reduction,
            "pictures": self.pictures,
            "trained_at": self.trained_at,
            "inverse_penalty": self.inverse_penalty,
            "outputs": [
                {
                    "facet": each.facet,
                    "answers": each.answers,
                    "labels": list(each.labels),
                    "weights": _to_base64(each.weights),
                    "intercepts": _to_base64(each.intercepts),
                    "thresholds": _to_base64(each.thresholds),
                }
                for each in self.facets
            ],
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any], index: str) -> TagClassifier:
        """Convert from the stored form; raise IndexConflict if it is damaged."""
        try:
            return cls(
                seal=Seal.from_body(body["encoder"]),
                reduction=body["reduction"],
                facets=tuple(_parse_facet(each) for each in body["outputs"]),
                pictures=int(body["pictures"]),
                trained_at=str(body["trained_at"]),
                inverse_penalty=float(body["inverse_penalty"]),
            )
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise IndexConflict(
                f"The tag classifier of index {index!r} is damaged ({error}): train it again with"
                f" `es-imgsearch tags train LABELS --index {index}`."
            ) from error


def _parse_facet(body: Mapping[str, Any]) -> FacetClassifier:
    labels: Sequence[str] = body["labels"]
    answers: Answers = ONE if body["answers"] == ONE else MANY
    return FacetClassifier(
        facet=body["facet"],
        answers=answers,
        labels=tuple(labels),
        weights=_from_base64(body["weights"]).reshape(len(labels), -1),
        intercepts=_from_base64(body["intercepts"]).reshape(len(labels)),
        thresholds=_from_base64(body["thresholds"]).reshape(len(labels)),
    )


def _to_base64(array: Floats) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode()


def _from_base64(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
