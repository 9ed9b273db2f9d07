"""A trained head: logistic regression from stored vectors to labels, kept beside the index.

One output a facet: a softmax over its labels where one answer is right, a sigmoid a label where
many are.  Applying it needs NumPy only; `head_training` fits it.
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
class Output:
    """The labels of one facet.

    `weights` of shape (labels, dims), `intercepts` and `thresholds` of shape (labels,); a label is
    given as a tag from its threshold on, in a facet of one answer only the most probable.
    """

    facet: str
    answers: Answers
    labels: tuple[str, ...]
    weights: Floats
    intercepts: Floats
    thresholds: Floats

    def probabilities(self, vectors: Floats) -> Floats:
        """Of n unit vectors, of shape (n, dims), the labels' probabilities (n, labels)."""
        odds = (vectors @ self.weights.T + self.intercepts).clip(-60.0, 60.0)
        if self.answers == ONE:
            powers = np.exp(odds - odds.max(axis=1, keepdims=True))
            found: Floats = powers / powers.sum(axis=1, keepdims=True)
        else:
            found = 1.0 / (1.0 + np.exp(-odds))
        return found.astype(np.float32)

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
class Head:
    """All outputs, and whose vectors they were trained on.

    `reduction` is the hash of the index's reduction, None for whole vectors.  `pictures` is how
    many were trained on, `trained_at` when (ISO 8601), `inverse_penalty` scikit-learn's C.
    """

    seal: Seal
    reduction: str | None
    outputs: tuple[Output, ...]
    pictures: int
    trained_at: str
    inverse_penalty: float

    def scores(self, vectors: Floats) -> list[FacetScores]:
        """Of n unit vectors, of shape (n, dims), the scores of every facet it knows."""
        return [output.scores(vectors) for output in self.outputs]

    def check(self, meta: Meta, index: str) -> None:
        """Raise EncoderMismatch unless it was trained on vectors like those of this index."""
        own = meta.seal
        differs = next(
            (
                part
                for part in ("dims", "revision", "fingerprint")
                if getattr(self.seal, part) != getattr(own, part)
            ),
            None,
        )
        if differs is not None:
            raise EncoderMismatch(
                f"The head of index {index!r} was trained on vectors of encoder"
                f" {self.seal.name!r}, and the index now has those of {own.name!r}, which differs"
                f" in {differs}: train it again on the labels it was given with `es-imgsearch tags"
                f" train --index {index}`, or remove it with `es-imgsearch tags forget`."
            )
        if self.reduction != (meta.reduction.hash if meta.reduction else None):
            raise EncoderMismatch(
                f"The head of index {index!r} was trained on vectors that were reduced in another"
                f" way: train it again with `es-imgsearch tags train --index {index}`."
            )

    # -- kept beside the index -------------------------------------------------------------

    def to_body(self) -> dict[str, Any]:
        """As it is stored; arrays are float32, little-endian, row by row, in base64."""
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
                    "weights": _to_text(each.weights),
                    "intercepts": _to_text(each.intercepts),
                    "thresholds": _to_text(each.thresholds),
                }
                for each in self.outputs
            ],
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any], index: str) -> Head:
        """Raises IndexConflict for a body that is not one of ours."""
        try:
            return cls(
                seal=Seal.from_body(body["encoder"]),
                reduction=body["reduction"],
                outputs=tuple(_output(each) for each in body["outputs"]),
                pictures=int(body["pictures"]),
                trained_at=str(body["trained_at"]),
                inverse_penalty=float(body["inverse_penalty"]),
            )
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise IndexConflict(
                f"The trained head of index {index!r} is damaged ({error}): train it again with"
                f" `es-imgsearch tags train LABELS --index {index}`."
            ) from error


def _output(body: Mapping[str, Any]) -> Output:
    labels: Sequence[str] = body["labels"]
    answers: Answers = ONE if body["answers"] == ONE else MANY
    return Output(
        facet=body["facet"],
        answers=answers,
        labels=tuple(labels),
        weights=_to_array(body["weights"]).reshape(len(labels), -1),
        intercepts=_to_array(body["intercepts"]).reshape(len(labels)),
        thresholds=_to_array(body["thresholds"]).reshape(len(labels)),
    )


def _to_text(array: Floats) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode()


def _to_array(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
