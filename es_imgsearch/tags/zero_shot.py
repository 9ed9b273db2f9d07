"""Zero-shot labels: how well each word of a vocabulary fits a picture, by their vectors alone.

A cosine of 0.3 is much for one word and nothing for another, and some pictures are near to every
word.  So a cosine is standardised twice, and the mean of both is taken (symmetric normalisation of
speaker verification; Auckenthaler, Carey and Lloyd-Thomas 2000, Digital Signal Processing 10, call
the halves z-norm and t-norm):

- among the words, by mean and deviation of the picture's cosines to all labels;
- among pictures, by the label's cosines to the background, a sample of the index.  Of those the
  median is taken, and the deviation of what lies below it: the pictures that do show the label are
  above (the empirical null of Efron 2004, JASA 99).  Where most pictures show it, the first half
  still finds it.

That is the threshold of each label: so many deviations, whatever its cosines are.  Measured with
`starter` on 212 stamps and 151 words (`benchmarks/tags.py`), the best F1 over all pairs of picture
and word: cosine .37, plain z-norm .30, with the empirical null .34, t-norm .41, both halves .41.
The t-norm alone is what is left where the index is too small for a background.  The second half
keeps words that are near to all pictures of an index from being tags of all of them: by the
vocabulary that ships, .48 of the tags given are right with it and .38 without.

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

# A score is .5 at the cut, which is where about half of the tags given are right; the slope is that
# of the logistic regression of being right on the deviations, fitted once on the 212 stamps (the
# same on which `benchmarks/tags.py` counts).
_BOTH = Curve(intercept=-1.1 * 4.0, z_weight=1.1, cosine_weight=0.0)
_BY_WORDS = Curve(intercept=-1.4 * 3.5, z_weight=1.4, cosine_weight=0.0)

# Fewer words say as little of a picture's cosines as fewer pictures say of a word's.
MIN_LABELS = MIN_BACKGROUND

_LEAST_DEVIATION = 1e-3


class FacetScores(NamedTuple):
    """What is said of n pictures in one facet.

    `scores`, of shape (n, labels), lie between 0 and 1; `holds`, of the same shape, says which
    labels are given as tags, `thresholds`, of shape (labels,), from which score on.  `is_trained`
    tells a head's labels from those of the vocabulary.
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
    """A vocabulary in the space of an encoder.

    `texts` (labels, dims) are the unit vectors of its words; `median` and `deviation` (labels,)
    tell of their cosines to the background, None without one.
    """

    vocabulary: Vocabulary
    texts: Floats
    median: Floats | None
    deviation: Floats | None

    @classmethod
    def of(cls, vocabulary: Vocabulary, texts: Floats, background: Floats) -> ZeroShot | None:
        """`background` of shape (m, dims); None where there is nothing to compare with.

        That is a vocabulary of fewer than 30 words, for an index of fewer than 30 pictures.
        """
        if len(background) < MIN_BACKGROUND:
            return cls(vocabulary, texts, None, None) if len(texts) >= MIN_LABELS else None
        median, deviation = empirical_null(background @ texts.T)
        return cls(vocabulary, texts, median, deviation)

    def deviations(self, vectors: Floats) -> Floats:
        """Of n unit vectors, of shape (n, dims), how far above chance each label is (n, labels)."""
        cosines = vectors @ self.texts.T
        among_pictures: Floats | None = None
        if self.median is not None and self.deviation is not None:
            among_pictures = (cosines - self.median) / self.deviation
            if len(self.texts) < MIN_LABELS:
                return among_pictures
        spread = np.maximum(cosines.std(axis=1, keepdims=True), _LEAST_DEVIATION)
        among_words: Floats = (cosines - cosines.mean(axis=1, keepdims=True)) / spread
        if among_pictures is None:
            return among_words
        return np.asarray((among_words + among_pictures) / 2, np.float32)

    def scores(self, vectors: Floats) -> list[FacetScores]:
        """Of n unit vectors, of shape (n, dims), every facet's scores.

        In a facet of many answers each label stands for itself.  In one with one answer they share
        a softmax with "none of them", which is as likely as a label at its threshold.
        """
        curve = _BY_WORDS if self.median is None else _BOTH
        odds = (curve.intercept + curve.z_weight * self.deviations(vectors)).clip(-60.0, 60.0)
        found, at = [], 0
        for facet in self.vocabulary.facets:
            found.append(_facet_scores(facet, odds[:, at : at + len(facet.labels)]))
            at += len(facet.labels)
        return found


def empirical_null(cosines: Floats) -> tuple[Floats, Floats]:
    """Median of each column, and the deviation from it of what lies below; both of shape (n,)."""
    median = np.median(cosines, axis=0)
    below = np.minimum(cosines - median, 0.0)
    # Half of the values lie below, so their squares count twice.
    deviation = np.sqrt(2.0 * (below**2).mean(axis=0))
    return median.astype(np.float32), np.maximum(deviation, _LEAST_DEVIATION).astype(np.float32)


def _facet_scores(facet: Facet, odds: Floats) -> FacetScores:
    if facet.answers == ONE:
        weights = np.exp(odds)
        scores = weights / (1.0 + weights.sum(axis=1, keepdims=True))
        holds = best_only(odds) & (odds >= 0.0)
    else:
        scores = 1.0 / (1.0 + np.exp(-odds))
        holds = odds >= 0.0
    return FacetScores(
        facet.name,
        facet.answers,
        facet.labels,
        scores.astype(np.float32),
        holds,
        np.full(len(facet.labels), 0.5, np.float32),
        is_trained=False,
    )


def best_only(values: Floats) -> Bools:
    """True at the largest value of each row, the first of equals."""
    best: Bools = np.arange(values.shape[1]) == values.argmax(axis=1)[:, None]
    return best
