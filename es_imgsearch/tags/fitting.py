"""Fit a tag classifier on labelled pictures, with held-out predictions.

The loss is the sum of the facets' losses: cross-entropy of a softmax in a facet with one answer,
of a sigmoid per label in a facet with many.  The facets share only the vectors, which are fixed, so
the sum is minimal if each loss is, and scikit-learn's LogisticRegression fits each alone.  They
also share the penalty: the one with the lowest summed loss on held-out pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from es_imgsearch.errors import FileInvalid, LibraryMissing
from es_imgsearch.search.relevance import Floats
from es_imgsearch.tags.classifier import FacetClassifier
from es_imgsearch.tags.vocabulary import MANY, ONE, Answers, Vocabulary
from es_imgsearch.tags.zero_shot import Bools, best_only

FOLDS: Final = 5
# With fewer pictures, a label would be missing from some fold.
MIN_EXAMPLES: Final = FOLDS
INVERSE_PENALTIES: Final = (1.0, 10.0, 100.0, 1000.0)
DEFAULT_FACET: Final = "object"

_MAX_ITERATIONS = 1000
# Log odds of labels that no picture fitted on has; with the other sign, of those that all have.
_NEVER = -20.0
# A threshold computed from few pictures may have any value.
_MIN_THRESHOLD, _MAX_THRESHOLD = 0.05, 0.95

Floats64: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFacet:
    """The labels of one facet; `targets` of shape (pictures, labels).

    `known`, of shape (pictures,), are the pictures with a label in this facet; for the others the
    answer is unknown.
    """

    facet: str
    answers: Answers
    labels: tuple[str, ...]
    targets: Bools
    known: Bools

    def trainable(self) -> LabelledFacet:
        """Return the facet with only labels of enough examples and counter-examples.

        A label of every labelled picture would be learned as one of every picture.
        """
        counts = self.targets.sum(axis=0)
        has_counter_example = (~self.targets & self.known[:, None]).any(axis=0)
        columns = np.flatnonzero((counts >= MIN_EXAMPLES) & has_counter_example)
        if self.answers == ONE and len(columns) < 2:
            columns = columns[:0]
        targets = self.targets[:, columns]
        labels = tuple(self.labels[n] for n in columns)
        # With one answer, pictures whose label is left out have none of the others.
        known = self.known & targets.any(axis=1) if self.answers == ONE else self.known
        return replace(self, labels=labels, targets=targets, known=known)


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutPredictions:
    """Predictions of one facet for held-out pictures, of shape (pictures, labels).

    `holds` uses thresholds and a penalty that were chosen without the picture's fold.
    """

    probabilities: Floats
    holds: Bools


@dataclass(frozen=True, slots=True, eq=False)
class TrainedFacets:
    """Classifiers fitted on all pictures, and held-out predictions, by facet."""

    classifiers: tuple[FacetClassifier, ...]
    held_out: tuple[HeldOutPredictions, ...]
    inverse_penalty: float


def check_can_train() -> None:
    """Raise LibraryMissing if scikit-learn is not installed."""
    if find_spec("sklearn") is None:
        raise LibraryMissing(
            "Training needs scikit-learn, which is not installed: pip install 'es-imgsearch[tags]'."
        )


def group_by_facet(
    pictures: Sequence[Sequence[str]],
    vocabulary: Vocabulary,
    *,
    facet: str | None = None,
    one_of: Sequence[str] = (),
) -> list[LabelledFacet]:
    """Group the labels of n pictures by facet.

    A label belongs to the facet written before it (``scene:beach``), else to its facet in the
    vocabulary, else to `facet`, by default ``object``.  A facet has one answer if the vocabulary or
    `one_of` says so.

    Raises FileInvalid if a picture has two labels of a facet with one answer, or a label is in two
    facets.
    """
    rows_by_label: dict[str, dict[str, set[int]]] = {}
    facet_of: dict[str, str] = {}
    for row, labels in enumerate(pictures):
        for written in labels:
            name, label = _split_label(written, vocabulary, facet or DEFAULT_FACET)
            if facet_of.setdefault(label, name) != name:
                raise FileInvalid(
                    f"{label!r} is labelled in the facets {facet_of[label]!r} and {name!r}, which"
                    " would be the same tag: rename one of them."
                )
            rows_by_label.setdefault(name, {}).setdefault(label, set()).add(row)
    facets = []
    for name, by_label in sorted(rows_by_label.items()):
        in_vocabulary = vocabulary.facet(name)
        is_one = name in one_of or (in_vocabulary is not None and in_vocabulary.answers == ONE)
        targets = np.zeros((len(pictures), len(by_label)), dtype=bool)
        for column, (_, rows) in enumerate(sorted(by_label.items())):
            targets[sorted(rows), column] = True
        if is_one and (twice := np.flatnonzero(targets.sum(axis=1) > 1)).size:
            several = ", ".join(pictures[twice[0]])
            raise FileInvalid(
                f"A picture has two labels of the facet {name!r}, which has one answer: {several}."
            )
        known = np.asarray(targets.any(axis=1), dtype=np.bool_)
        answers: Answers = ONE if is_one else MANY
        facets.append(LabelledFacet(name, answers, tuple(sorted(by_label)), targets, known))
    if unknown := sorted(set(one_of) - rows_by_label.keys()):
        raise FileInvalid(f"There are no labels of the facet {unknown[0]!r}.")
    return facets


def train_facets(vectors: Floats, facets: Sequence[LabelledFacet], seed: int = 0) -> TrainedFacets:
    """Fit a classifier for every facet on n unit vectors, of shape (n, dims).

    Copies, pictures with equal vectors, are held out together.
    """
    folds = _assign_folds(vectors, seed)
    predictions = {
        c: [_predict_held_out(vectors, each, folds, c) for each in facets]
        for c in INVERSE_PENALTIES
    }
    best = _best_penalty(facets, predictions, np.ones(len(vectors), dtype=bool))
    # Penalty and thresholds for a fold are chosen on the other folds.
    held_out = [np.zeros(each.targets.shape, np.float32) for each in facets]
    holds = [np.zeros(each.targets.shape, dtype=bool) for each in facets]
    for fold in range(FOLDS):
        inside, outside = folds == fold, folds != fold
        penalty = _best_penalty(facets, predictions, outside)
        for n, facet in enumerate(facets):
            probabilities = predictions[penalty][n]
            thresholds = _thresholds(facet, probabilities, outside)
            held_out[n][inside] = probabilities[inside]
            held = probabilities[inside] >= thresholds
            if facet.answers == ONE:
                held &= best_only(probabilities[inside])
            holds[n][inside] = held
    everything = np.ones(len(vectors), dtype=bool)
    classifiers = []
    for n, facet in enumerate(facets):
        weights, intercepts = _fit_facet(vectors, facet, everything, best)
        classifiers.append(
            FacetClassifier(
                facet.facet,
                facet.answers,
                facet.labels,
                weights,
                intercepts,
                _thresholds(facet, predictions[best][n], everything),
            )
        )
    return TrainedFacets(
        tuple(classifiers),
        tuple(HeldOutPredictions(p, h) for p, h in zip(held_out, holds, strict=True)),
        best,
    )


def summed_loss(
    facets: Sequence[LabelledFacet], probabilities: Sequence[Floats], among: Bools
) -> float:
    """Sum the facets' mean cross-entropies over these pictures, in nats per picture."""
    total = 0.0
    for facet, predicted in zip(facets, probabilities, strict=True):
        rows = facet.known & among
        if not rows.any():
            continue
        p = np.clip(predicted[rows].astype(np.float64), 1e-7, 1.0 - 1e-7)
        right = facet.targets[rows]
        loss = -np.log(np.where(right, p, 1.0 if facet.answers == ONE else 1.0 - p))
        total += float(loss.sum(axis=1).mean())
    return total


def best_threshold(probabilities: Floats, right: Bools) -> float:
    """Return the threshold of the best F1 for a label; both arrays of shape (n,).

    It lies halfway between the lowest probability above it and the highest one below.
    """
    order = np.argsort(-probabilities, kind="stable")
    descending, hits = probabilities[order], right[order].cumsum()
    positives = np.arange(1, len(order) + 1)
    f1 = 2.0 * hits / (positives + right.sum())
    # No threshold separates equal probabilities.
    ends = np.append(descending[:-1] > descending[1:], True)
    last = int(np.where(ends, f1, -1.0).argmax())
    following = descending[last + 1] if last + 1 < len(order) else 0.0
    middle = (float(descending[last]) + float(following)) / 2.0
    return float(np.clip(middle, _MIN_THRESHOLD, _MAX_THRESHOLD))


def _split_label(written: str, vocabulary: Vocabulary, default: str) -> tuple[str, str]:
    name, colon, label = written.partition(":")
    if colon and name.strip() and label.strip():
        return name.strip(), label.strip()
    facet = vocabulary.facet_of.get(written)
    return (default if facet is None else facet.name), written


def _assign_folds(vectors: Floats, seed: int) -> npt.NDArray[np.int64]:
    """Assign each vector to a fold, equal vectors to the same one."""
    _, group = np.unique(vectors.round(5), axis=0, return_inverse=True)
    group = group.ravel()
    shuffled = np.random.default_rng(seed).permutation(int(group.max()) + 1) % FOLDS
    folds: npt.NDArray[np.int64] = shuffled[group]
    return folds


def _predict_held_out(
    vectors: Floats, facet: LabelledFacet, folds: npt.NDArray[np.int64], inverse_penalty: float
) -> Floats:
    """Predict every picture's probabilities with a classifier fitted without its fold."""
    probabilities = np.zeros(facet.targets.shape, np.float32)
    for fold in range(FOLDS):
        inside = folds == fold
        if not inside.any():
            continue
        weights, intercepts = _fit_facet(vectors, facet, ~inside, inverse_penalty)
        classifier = FacetClassifier(
            facet.facet, facet.answers, facet.labels, weights, intercepts, np.zeros(0, np.float32)
        )
        probabilities[inside] = classifier.probabilities(vectors[inside])
    return probabilities


def _best_penalty(
    facets: Sequence[LabelledFacet], predictions: Mapping[float, Sequence[Floats]], among: Bools
) -> float:
    return min(predictions, key=lambda penalty: summed_loss(facets, predictions[penalty], among))


def _thresholds(facet: LabelledFacet, probabilities: Floats, among: Bools) -> Floats:
    if facet.answers == ONE:
        return np.full(len(facet.labels), 0.5, np.float32)
    rows = facet.known & among
    thresholds = [
        best_threshold(predicted, right) if right.any() else _MAX_THRESHOLD
        for predicted, right in zip(probabilities[rows].T, facet.targets[rows].T, strict=True)
    ]
    return np.asarray(thresholds, np.float32)


def _fit_facet(
    vectors: Floats, facet: LabelledFacet, among: Bools, inverse_penalty: float
) -> tuple[Floats, Floats]:
    """Fit weights of shape (labels, dims) and intercepts of shape (labels,)."""
    rows = facet.known & among
    x, targets = vectors[rows].astype(np.float64), facet.targets[rows]
    weights = np.zeros((len(facet.labels), vectors.shape[1]), np.float64)
    intercepts = np.full(len(facet.labels), _NEVER, np.float64)
    if facet.answers == ONE:
        present = np.flatnonzero(targets.any(axis=0))
        if len(present) == 1:
            intercepts[present] = 0.0
        elif len(present) > 1:
            model = _regression(inverse_penalty).fit(x, targets.argmax(axis=1))
            coefficients, offsets = model.coef_, model.intercept_
            if len(present) == 2:
                # For two classes scikit-learn fits their difference; a softmax needs both.
                coefficients = np.concatenate([-coefficients, coefficients]) / 2
                offsets = np.concatenate([-offsets, offsets]) / 2
            weights[present], intercepts[present] = coefficients, offsets
    else:
        for column, right in enumerate(targets.T):
            if right.all() and len(right):
                intercepts[column] = -_NEVER
            elif right.any():
                model = _regression(inverse_penalty).fit(x, right)
                weights[column], intercepts[column] = model.coef_[0], model.intercept_[0]
    return weights.astype(np.float32), intercepts.astype(np.float32)


def _regression(inverse_penalty: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=inverse_penalty, max_iter=_MAX_ITERATIONS)
