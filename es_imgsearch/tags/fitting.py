"""Fitting a head on labelled pictures, and predictions for pictures it was not fitted on.

The loss of several outputs is the sum of theirs: cross-entropy of a softmax in a facet of one
answer, of a sigmoid a label in a facet of many.  The outputs share nothing but the vectors, which
stay as they are, so the minimum of the sum is where each output's own loss is least, and each is
fitted by scikit-learn's LogisticRegression.  What they do share is the penalty, which is the one
with the least summed loss on pictures held out.
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
from es_imgsearch.tags.classifier import Output
from es_imgsearch.tags.vocabulary import MANY, ONE, Answers, Vocabulary
from es_imgsearch.tags.zero_shot import Bools, best_only

FOLDS: Final = 5
# Less often, a label would be missing from the part that is fitted on or from the one tested on.
LEAST_EXAMPLES: Final = FOLDS
INVERSE_PENALTIES: Final = (1.0, 10.0, 100.0, 1000.0)
DEFAULT_FACET: Final = "object"

_STEPS = 1000
# Odds of what no picture fitted on has, and of what all have.
_NEVER = -20.0
# A threshold from a handful of pictures may come out anywhere.
_LEAST_THRESHOLD, _LARGEST_THRESHOLD = 0.05, 0.95

Floats64: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFacet:
    """The labels of one facet; `targets` of shape (pictures, labels).

    `known`, of shape (pictures,), are the pictures of which anything was said in this facet; of
    the others nobody knows.
    """

    facet: str
    answers: Answers
    labels: tuple[str, ...]
    targets: Bools
    known: Bools

    def enough(self) -> LabelledFacet:
        """Only the labels that are there often enough to train, and lack somewhere.

        What every labelled picture has would be learned as what every picture has.
        """
        counts = self.targets.sum(axis=0)
        is_lacking = (~self.targets & self.known[:, None]).any(axis=0)
        kept = np.flatnonzero((counts >= LEAST_EXAMPLES) & is_lacking)
        if self.answers == ONE and len(kept) < 2:
            kept = kept[:0]
        targets = self.targets[:, kept]
        labels = tuple(self.labels[n] for n in kept)
        # Where one answer is right, who has another than these has none of them.
        known = self.known & targets.any(axis=1) if self.answers == ONE else self.known
        return replace(self, labels=labels, targets=targets, known=known)


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Predictions of one facet for pictures that were not fitted on, of shape (pictures, labels).

    `holds` goes by thresholds and by a penalty that were chosen without the picture's fold.
    """

    probabilities: Floats
    holds: Bools


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """Outputs fitted on everything, and what they predict held out, in the order of the facets."""

    outputs: tuple[Output, ...]
    held_out: tuple[HeldOut, ...]
    inverse_penalty: float


def check_can_train() -> None:
    """Raises LibraryMissing where scikit-learn is not installed."""
    if find_spec("sklearn") is None:
        raise LibraryMissing(
            "Training needs scikit-learn, which is not installed: pip install 'es-imgsearch[tags]'."
        )


def labelled_facets(
    pictures: Sequence[Sequence[str]],
    vocabulary: Vocabulary,
    *,
    facet: str | None = None,
    one_of: Sequence[str] = (),
) -> list[LabelledFacet]:
    """The labels of n pictures, by facet.

    A label is of the facet written before it (``scene:beach``), else of the one the vocabulary has
    it in, else of `facet`, by default ``object``.  A facet has one answer if the vocabulary or
    `one_of` says so.

    Raises FileInvalid where a picture has two labels in a facet of one answer, or where a label
    is given in two facets.
    """
    placed: dict[str, dict[str, set[int]]] = {}
    facet_of: dict[str, str] = {}
    for number, labels in enumerate(pictures):
        for written in labels:
            name, label = _placed(written, vocabulary, facet or DEFAULT_FACET)
            if facet_of.setdefault(label, name) != name:
                raise FileInvalid(
                    f"{label!r} is labelled in the facets {facet_of[label]!r} and {name!r}; as a"
                    " tag they could not be told apart, so write one of them differently."
                )
            placed.setdefault(name, {}).setdefault(label, set()).add(number)
    found = []
    for name, by_label in sorted(placed.items()):
        known_facet = vocabulary.facet(name)
        is_one = name in one_of or (known_facet is not None and known_facet.answers == ONE)
        targets = np.zeros((len(pictures), len(by_label)), dtype=bool)
        for column, (_, rows) in enumerate(sorted(by_label.items())):
            targets[sorted(rows), column] = True
        if is_one and (twice := np.flatnonzero(targets.sum(axis=1) > 1)).size:
            several = ", ".join(pictures[twice[0]])
            raise FileInvalid(
                f"A picture has two labels of the facet {name!r}, of which one is right: {several}."
            )
        known = np.asarray(targets.any(axis=1), dtype=np.bool_)
        answers: Answers = ONE if is_one else MANY
        found.append(LabelledFacet(name, answers, tuple(sorted(by_label)), targets, known))
    if unknown := sorted(set(one_of) - placed.keys()):
        raise FileInvalid(f"There are no labels of the facet {unknown[0]!r}.")
    return found


def train(vectors: Floats, facets: Sequence[LabelledFacet], seed: int = 0) -> Trained:
    """Fit every facet's output on n unit vectors, of shape (n, dims).

    Pictures with equal vectors, which are copies, are held out together.
    """
    folds = _folds(vectors, seed)
    tried = {c: [_predicted(vectors, each, folds, c) for each in facets] for c in INVERSE_PENALTIES}
    best = _best_penalty(facets, tried, np.ones(len(vectors), dtype=bool))
    # What is said of a fold goes by a penalty and thresholds that the other folds chose.
    held_out = [np.zeros(each.targets.shape, np.float32) for each in facets]
    holds = [np.zeros(each.targets.shape, dtype=bool) for each in facets]
    for fold in range(FOLDS):
        inside, outside = folds == fold, folds != fold
        penalty = _best_penalty(facets, tried, outside)
        for n, facet in enumerate(facets):
            probabilities = tried[penalty][n]
            thresholds = _thresholds(facet, probabilities, outside)
            held_out[n][inside] = probabilities[inside]
            held = probabilities[inside] >= thresholds
            if facet.answers == ONE:
                held &= best_only(probabilities[inside])
            holds[n][inside] = held
    everything = np.ones(len(vectors), dtype=bool)
    outputs = []
    for n, facet in enumerate(facets):
        weights, intercepts = _fitted(vectors, facet, everything, best)
        outputs.append(
            Output(
                facet.facet,
                facet.answers,
                facet.labels,
                weights,
                intercepts,
                _thresholds(facet, tried[best][n], everything),
            )
        )
    return Trained(
        tuple(outputs),
        tuple(HeldOut(p, h) for p, h in zip(held_out, holds, strict=True)),
        best,
    )


def summed_loss(
    facets: Sequence[LabelledFacet], probabilities: Sequence[Floats], among: Bools
) -> float:
    """The sum of the facets' mean cross-entropies over these pictures, in nats a picture."""
    total = 0.0
    for facet, said in zip(facets, probabilities, strict=True):
        rows = facet.known & among
        if not rows.any():
            continue
        p = np.clip(said[rows].astype(np.float64), 1e-7, 1.0 - 1e-7)
        right = facet.targets[rows]
        loss = -np.log(np.where(right, p, 1.0 if facet.answers == ONE else 1.0 - p))
        total += float(loss.sum(axis=1).mean())
    return total


def best_threshold(probabilities: Floats, right: Bools) -> float:
    """From which probability on a label is given, for the largest F1; both of shape (n,).

    Halfway between the last that is given and the first that is not.
    """
    order = np.argsort(-probabilities, kind="stable")
    said, hits = probabilities[order], right[order].cumsum()
    given = np.arange(1, len(order) + 1)
    f1 = 2.0 * hits / (given + right.sum())
    # Equal probabilities are given together.
    ends = np.append(said[:-1] > said[1:], True)
    last = int(np.where(ends, f1, -1.0).argmax())
    following = said[last + 1] if last + 1 < len(said) else 0.0
    middle = (float(said[last]) + float(following)) / 2.0
    return float(np.clip(middle, _LEAST_THRESHOLD, _LARGEST_THRESHOLD))


def _placed(written: str, vocabulary: Vocabulary, otherwise: str) -> tuple[str, str]:
    name, colon, label = written.partition(":")
    if colon and name.strip() and label.strip():
        return name.strip(), label.strip()
    facet = vocabulary.facet_of.get(written)
    return (otherwise if facet is None else facet.name), written


def _folds(vectors: Floats, seed: int) -> npt.NDArray[np.int64]:
    """A fold for each vector, the same for equal ones."""
    _, group = np.unique(vectors.round(5), axis=0, return_inverse=True)
    group = group.ravel()
    shuffled = np.random.default_rng(seed).permutation(int(group.max()) + 1) % FOLDS
    folds: npt.NDArray[np.int64] = shuffled[group]
    return folds


def _predicted(
    vectors: Floats, facet: LabelledFacet, folds: npt.NDArray[np.int64], inverse_penalty: float
) -> Floats:
    """Probabilities of every picture by what was fitted without its fold."""
    found = np.zeros(facet.targets.shape, np.float32)
    for fold in range(FOLDS):
        inside = folds == fold
        if not inside.any():
            continue
        weights, intercepts = _fitted(vectors, facet, ~inside, inverse_penalty)
        output = Output(
            facet.facet, facet.answers, facet.labels, weights, intercepts, np.zeros(0, np.float32)
        )
        found[inside] = output.probabilities(vectors[inside])
    return found


def _best_penalty(
    facets: Sequence[LabelledFacet], tried: Mapping[float, Sequence[Floats]], among: Bools
) -> float:
    return min(tried, key=lambda penalty: summed_loss(facets, tried[penalty], among))


def _thresholds(facet: LabelledFacet, probabilities: Floats, among: Bools) -> Floats:
    if facet.answers == ONE:
        return np.full(len(facet.labels), 0.5, np.float32)
    rows = facet.known & among
    found = [
        best_threshold(said, right) if right.any() else _LARGEST_THRESHOLD
        for said, right in zip(probabilities[rows].T, facet.targets[rows].T, strict=True)
    ]
    return np.asarray(found, np.float32)


def _fitted(
    vectors: Floats, facet: LabelledFacet, among: Bools, inverse_penalty: float
) -> tuple[Floats, Floats]:
    """Weights of shape (labels, dims) and intercepts of shape (labels,)."""
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
                # Of two classes scikit-learn gives the difference; a softmax has both.
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

    return LogisticRegression(C=inverse_penalty, max_iter=_STEPS)
