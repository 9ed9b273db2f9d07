"""Score labels of a vocabulary zero-shot, by vectors of texts and pictures alone.

A cosine of 0.3 is high for one label and low for another, and some pictures are near every label.
So a cosine is standardised in two ways, whose mean is taken (symmetric normalisation of speaker
verification; Auckenthaler, Carey and Lloyd-Thomas 2000, Digital Signal Processing 10, call the
halves t-norm and z-norm):

- among labels, by mean and deviation of the picture's cosines to all labels (t-norm);
- among pictures, by the label's cosines to the background, a sample of the index (z-norm): by their
  median, and the deviation of cosines below it, since the pictures that show the label are above
  (the empirical null of Efron 2004, JASA 99).  If most pictures show the label, the t-norm still
  finds it.

So the threshold of every label is the same number of deviations.  Best F1 over all pairs of picture
and label, measured with `starter` on 212 stamps and 151 labels (`benchmarks/tags.py`): cosine .37,
plain z-norm .30, with the empirical null .34, t-norm .41, both halves .41.  An index too small for
a background has the t-norm alone.  The z-norm prevents labels that are near all pictures of an
index from being tags of all of them: with the built-in vocabulary .48 of the tags are right with
it, .38 without.

A picture of a bird is near the names of all birds, so a facet with many answers gives only the few
labels that stand out from the rest: the best one, and at most two more within 0.7 deviations of it.
That makes .62 of the tags right instead of .48 (.50 instead of .38 without a background), for a
recall of .32 instead of .41.  Of 20 birds in an index of their own, `swan` is a tag of 1 instead of
8, and .90 of the tags are right instead of .47.

Pure NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from es_imgsearch.elastic.meta_entries import Curve
from es_imgsearch.search.relevance import MIN_BACKGROUND, Floats
from es_imgsearch.tags.vocabulary import ONE, Facet, Vocabulary

Bools = npt.NDArray[np.bool_]

# A score of .5 is where about half of the tags are right; the slope is of a logistic regression on
# the deviations, fitted once on the 212 stamps of `benchmarks/tags.py`.
_BOTH_NORMS = Curve(intercept=-1.1 * 4.0, z_weight=1.1, cosine_weight=0.0)
_T_NORM = Curve(intercept=-1.4 * 3.5, z_weight=1.4, cosine_weight=0.0)

# Labels of a facet with many answers that are tags of one picture: at most so many, and none that
# is so many deviations below the best.  `benchmarks/tags.py` prints the table.
MAX_TAGS = 3
MAX_DEVIATIONS_BELOW_BEST = 0.7

# Mean and deviation need as many labels of a picture as pictures of a label.
MIN_LABELS = MIN_BACKGROUND

_MIN_DEVIATION = 1e-3


class FacetScores(NamedTuple):
    """Scores and tags of n pictures in one facet.

    `scores`, of shape (n, labels), are between 0 and 1; `holds`, of the same shape, is true for
    labels that are tags: from the `thresholds`, of shape (labels,), on, and of the vocabulary only
    those that stand out.  `is_trained` is true for labels of a classifier, false for those of the
    vocabulary.
    """

    facet: str
    answers: str
    labels: Sequence[str]
    scores: Floats
    holds: Bools
    thresholds: Floats
    is_trained: bool


@dataclass(frozen=True, slots=True, eq=False)
class ZeroShot:
    """A vocabulary with vectors of its labels.

    `texts` (labels, dims) are unit vectors of the labels; `median` and `deviation` (labels,) are
    of their cosines to the background, None without one.
    """

    vocabulary: Vocabulary
    texts: Floats
    median: Floats | None
    deviation: Floats | None

    @classmethod
    def of(cls, vocabulary: Vocabulary, texts: Floats, background: Floats) -> ZeroShot | None:
        """Compare labels with a background of shape (m, dims); None if both are small.

        That is: fewer than 30 labels, and fewer than 30 pictures.
        """
        if len(background) < MIN_BACKGROUND:
            return cls(vocabulary, texts, None, None) if len(texts) >= MIN_LABELS else None
        median, deviation = empirical_null(background @ texts.T)
        return cls(vocabulary, texts, median, deviation)

    def deviations(self, vectors: Floats) -> Floats:
        """Compute standardised cosines (n, labels) of n unit vectors, of shape (n, dims)."""
        cosines = vectors @ self.texts.T
        among_pictures: Floats | None = None
        if self.median is not None and self.deviation is not None:
            among_pictures = (cosines - self.median) / self.deviation
            if len(self.texts) < MIN_LABELS:
                return among_pictures
        spread = np.maximum(cosines.std(axis=1, keepdims=True), _MIN_DEVIATION)
        among_labels: Floats = (cosines - cosines.mean(axis=1, keepdims=True)) / spread
        if among_pictures is None:
            return among_labels
        return np.asarray((among_labels + among_pictures) / 2, np.float32)

    def scores(self, vectors: Floats) -> list[FacetScores]:
        """Compute every facet's scores for n unit vectors, of shape (n, dims).

        Scores of a facet with many answers are independent, and of the labels above their
        threshold those that stand out are tags.  Those of a facet with one answer share a softmax
        with "none of them", which is as likely as a label at its threshold.
        """
        curve = _T_NORM if self.median is None else _BOTH_NORMS
        log_odds = (curve.intercept + curve.z_weight * self.deviations(vectors)).clip(-60.0, 60.0)
        scores, start = [], 0
        for facet in self.vocabulary.facets:
            end = start + len(facet.labels)
            margin = MAX_DEVIATIONS_BELOW_BEST * curve.z_weight
            scores.append(_facet_scores(facet, log_odds[:, start:end], margin))
            start = end
        return scores


def empirical_null(cosines: Floats) -> tuple[Floats, Floats]:
    """Compute each column's median and the deviation below it; both of shape (n,)."""
    median = np.median(cosines, axis=0)
    below = np.minimum(cosines - median, 0.0)
    # Half of the values are below, so their squares count twice.
    deviation = np.sqrt(2.0 * (below**2).mean(axis=0))
    return median.astype(np.float32), np.maximum(deviation, _MIN_DEVIATION).astype(np.float32)


def _facet_scores(facet: Facet, log_odds: Floats, margin: float) -> FacetScores:
    if facet.answers == ONE:
        weights = np.exp(log_odds)
        scores = weights / (1.0 + weights.sum(axis=1, keepdims=True))
        holds = best_only(log_odds) & (log_odds >= 0.0)
    else:
        scores = 1.0 / (1.0 + np.exp(-log_odds))
        holds = (log_odds >= 0.0) & standing_out(log_odds, margin)
    return FacetScores(
        facet.name,
        facet.answers,
        facet.labels,
        scores.astype(np.float32),
        holds,
        np.full(len(facet.labels), 0.5, np.float32),
        is_trained=False,
    )


def standing_out(values: Floats, margin: float) -> Bools:
    """Return a mask of up to three values of each row within a margin of the largest."""
    if not values.size:
        return np.ones(values.shape, np.bool_)
    places = np.argsort(np.argsort(-values, axis=1, kind="stable"), axis=1)
    near: Bools = values >= values.max(axis=1, keepdims=True) - margin
    return near & (places < MAX_TAGS)


def best_only(values: Floats) -> Bools:
    """Return a mask of the largest value of each row, the first of equal ones."""
    best: Bools = np.arange(values.shape[1]) == values.argmax(axis=1)[:, None]
    return best
