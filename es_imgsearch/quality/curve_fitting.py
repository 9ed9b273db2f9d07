"""Fit the curves of `relevance` on labelled pictures, and measure their quality.

Pure functions: vectors and labels in, curves and figures out.

A curve is fitted on hits, since it rates hits later: the first ten of each label's search, once
among all pictures and once without the label's own pictures.  The second search is for something
absent.  People mostly search for what is there, so a hit of a second search counts a quarter: as if
one search of five were for something absent.  Counted in full, right hits at rank 1 were hidden: of
36 the curve kept 26 at 0.3, now 29 (starter, words, `benchmarks/belief.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from es_imgsearch.elastic.meta_entries import Curve
from es_imgsearch.errors import UsageError
from es_imgsearch.search.relevance import Floats, z_scores

Bools = npt.NDArray[np.bool_]
Floats64 = npt.NDArray[np.float64]

HITS_PER_QUERY: Final = 10
CUT_OFFS: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
FOLDS: Final = 5
# With fewer right hits coefficients are guesses: their standard error is about 1 / sqrt(20).
MIN_RIGHT_HITS: Final = 20

# Weight of a hit of a search for something absent.
ABSENT_WEIGHT: Final = 0.25

_RIDGE = 1e-6
_MAX_ITERATIONS = 100


@dataclass(frozen=True, slots=True, eq=False)
class JudgedHits:
    """Hits and whether they are right; every array of shape (hits,).

    `query` numbers the search that a hit belongs to, `absent` marks hits of searches without
    right pictures.
    """

    z: Floats64
    cosine: Floats64
    right: Bools
    absent: Bools
    query: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CutOff:
    """Quality of the hits whose relevance is `at_least` or more.

    `precision` is the share of right hits among them (None if there are none), `recall` their
    share of all right hits, `false_acceptances` the share of searches for absent things that
    still return a hit.
    """

    at_least: float
    hits: int
    precision: float | None
    recall: float
    false_acceptances: float


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Predicted and observed share of right hits, for one tenth of relevance."""

    low: float
    hits: int
    mean_relevance: float
    share_right: float


@dataclass(frozen=True, slots=True)
class CalibrationQuality:
    """Quality of predicted probabilities on hits that were not fitted on.

    `brier` is the mean squared error of the probability (Brier 1950), `brier_of_share` the same
    for a constant prediction, the share of right hits.  `calibration_error` is the mean distance
    of `share_right` and `mean_relevance` over the bins, weighted by hits (ECE, Naeini et al.
    2015).
    """

    searches: int
    hits: int
    share_right: float
    brier: float
    brier_of_share: float
    calibration_error: float
    cut_offs: tuple[CutOff, ...]
    bins: tuple[CalibrationBin, ...]


def judge_hits(
    queries: Floats,
    pictures: Floats,
    right: Bools,
    background: Floats,
    *,
    own_picture: npt.NDArray[np.int64] | None = None,
) -> JudgedHits:
    """Search twice per query, with and without right pictures; take ten hits each.

    `queries` (q, dims) and `pictures` (p, dims) are unit vectors, `right` has shape (q, p).
    `own_picture` (q,) is the row of the picture that a query itself is; it is never its hit.
    """
    cosines = queries @ pictures.T
    z = z_scores(queries, cosines, background)
    parts: list[tuple[npt.NDArray[np.int64], int, bool]] = []
    for query, row in enumerate(cosines):
        order = np.argsort(-row, kind="stable")
        if own_picture is not None:
            order = order[order != own_picture[query]]
        parts.append((order[:HITS_PER_QUERY], query, False))
        parts.append((order[~right[query, order]][:HITS_PER_QUERY], query, True))
    rows = np.concatenate([np.full(len(hits), query) for hits, query, _ in parts])
    columns = np.concatenate([hits for hits, _, _ in parts])
    return JudgedHits(
        z=z[rows, columns].astype(np.float64),
        cosine=cosines[rows, columns].astype(np.float64),
        right=right[rows, columns],
        absent=np.concatenate([np.full(len(hits), absent) for hits, _, absent in parts]),
        query=rows.astype(np.int64),
    )


def fit_curve(judged: JudgedHits, *, use_z: bool = True, use_cosine: bool = True) -> Curve:
    """Fit the curve of maximum likelihood by Newton's method.

    The targets are Platt's (1999): a little less than 1 and more than 0, so that hits that are
    separable without error do not give a step.  A weight that comes out negative is left out
    and the rest fitted again.

    Raises UsageError if too few hits are right, or none are wrong.
    """
    hits_right = int(judged.right.sum())
    hits_wrong = len(judged.right) - hits_right
    if hits_right < MIN_RIGHT_HITS or not hits_wrong:
        raise UsageError(
            f"{hits_right} right and {hits_wrong} wrong hits among the first {HITS_PER_QUERY} of"
            f" each label are too few to calibrate; {MIN_RIGHT_HITS} right ones and a wrong one are"
            " needed. Label more pictures, with more than one label."
        )
    targets = np.where(
        judged.right, (hits_right + 1) / (hits_right + 2), 1.0 / (hits_wrong + 2)
    ).astype(np.float64)
    used = [use_z, use_cosine]
    while True:
        weights = np.zeros(3)
        fitted = [0, *(n + 1 for n in (0, 1) if used[n])]
        columns = np.stack([np.ones_like(judged.z), judged.z, judged.cosine], axis=1)[:, fitted]
        weights[fitted] = _newton(columns, targets, np.where(judged.absent, ABSENT_WEIGHT, 1.0))
        negative = [n for n in (0, 1) if weights[n + 1] < 0]
        if not negative:
            return Curve(*(round(float(weight), 4) for weight in weights))
        used[min(negative, key=lambda n: weights[n + 1])] = False


def _newton(columns: Floats64, targets: Floats64, counts: Floats64) -> Floats64:
    # So small a ridge only keeps the matrix invertible if two columns are equal.
    ridge = _RIDGE * np.eye(columns.shape[1])
    weights = np.zeros(columns.shape[1])
    for _ in range(_MAX_ITERATIONS):
        p = 1.0 / (1.0 + np.exp(-np.clip(columns @ weights, -60.0, 60.0)))
        gradient = columns.T @ (counts * (p - targets)) + ridge @ weights
        hessian = (columns * (counts * p * (1.0 - p))[:, None]).T @ columns + ridge
        step = np.linalg.solve(hessian, gradient)
        # A full step from a flat place may overshoot to where every probability is 0 or 1.
        weights -= step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return weights


def cross_validate(
    queries: Floats,
    pictures: Floats,
    right: Bools,
    background: Floats,
    *,
    are_pictures: bool = False,
    use_z: bool = True,
    use_cosine: bool = True,
    seed: int = 0,
) -> CalibrationQuality:
    """Measure curves on the queries of each fifth, fitted on the other four fifths.

    Pictures that are right for a tested query are not fitted on; if the queries are the
    pictures themselves (`are_pictures`), tested queries are not fitted on.  Raises UsageError
    if too few are left to fit on.
    """
    folds = np.random.default_rng(seed).permutation(len(queries)) % FOLDS
    own_picture = np.arange(len(queries)) if are_pictures else None
    tested, predicted = [], []
    for fold in range(FOLDS):
        test, train = folds == fold, folds != fold
        if not test.any():
            continue
        fitted = train if are_pictures else ~right[test].any(axis=0)
        curve = fit_curve(
            judge_hits(
                queries[train],
                pictures[fitted],
                right[np.ix_(train, fitted)],
                background,
                own_picture=np.arange(int(train.sum())) if are_pictures else None,
            ),
            use_z=use_z,
            use_cosine=use_cosine,
        )
        hits = judge_hits(
            queries[test],
            pictures,
            right[test],
            background,
            own_picture=None if own_picture is None else own_picture[test],
        )
        tested.append((hits, np.flatnonzero(test)))
        predicted.append(curve.probability(hits.z, hits.cosine))
    all_hits = JudgedHits(
        z=np.concatenate([hits.z for hits, _ in tested]),
        cosine=np.concatenate([hits.cosine for hits, _ in tested]),
        right=np.concatenate([hits.right for hits, _ in tested]),
        absent=np.concatenate([hits.absent for hits, _ in tested]),
        query=np.concatenate([numbers[hits.query] for hits, numbers in tested]),
    )
    return measure_quality(all_hits, np.concatenate(predicted))


def measure_quality(judged: JudgedHits, predicted: Floats64) -> CalibrationQuality:
    """Compare predicted probabilities, of shape (hits,), with the judgements."""
    right = judged.right
    share = float(right.mean())
    bins = _bins(predicted, right)
    error = sum(each.hits * abs(each.share_right - each.mean_relevance) for each in bins)
    return CalibrationQuality(
        searches=2 * len(np.unique(judged.query)),
        hits=len(right),
        share_right=share,
        brier=float(((predicted - right) ** 2).mean()),
        brier_of_share=share * (1.0 - share),
        calibration_error=error / len(right),
        cut_offs=tuple(_cut_off(judged, predicted, each) for each in CUT_OFFS),
        bins=bins,
    )


def _cut_off(judged: JudgedHits, predicted: Floats64, at_least: float) -> CutOff:
    accepted = predicted >= at_least
    right = int((accepted & judged.right).sum())
    # A query for which every picture is right has no second search: no pictures are left for it.
    absent_searches = len(np.unique(judged.query[judged.absent]))
    false_acceptances = len(np.unique(judged.query[judged.absent & accepted]))
    return CutOff(
        at_least=at_least,
        hits=int(accepted.sum()),
        precision=right / int(accepted.sum()) if accepted.any() else None,
        recall=right / max(int(judged.right.sum()), 1),
        false_acceptances=false_acceptances / max(absent_searches, 1),
    )


def _bins(predicted: Floats64, right: Bools) -> tuple[CalibrationBin, ...]:
    tenth = np.minimum((predicted * 10).astype(int), 9)
    return tuple(
        CalibrationBin(
            low=number / 10,
            hits=int((tenth == number).sum()),
            mean_relevance=float(predicted[tenth == number].mean()),
            share_right=float(right[tenth == number].mean()),
        )
        for number in range(10)
        if (tenth == number).any()
    )
