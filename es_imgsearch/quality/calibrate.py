"""Fitting the curves of `relevance` on labelled pictures, and telling how good they are.

Pure: vectors and labels in, curves and figures out.

What a curve is fitted on are hits, since those are what it is asked about: the first ten of each
label's search, once among all pictures and once with the label's own pictures taken out.  The
second search is for something that is not there, so one search in two finds nothing right; who
searches for what is there gets probabilities that are too low, not too high.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from es_imgsearch.elastic.meta_entries import Curve
from es_imgsearch.embed.protocol import embed_queries
from es_imgsearch.errors import FileInvalid, NotCalibrated, UsageError
from es_imgsearch.quality.labels import Labels, Places, questions_of, vectors_of
from es_imgsearch.search import relevance as background
from es_imgsearch.search.relevance import (
    IMAGE,
    MIN_BACKGROUND,
    TEXT,
    Floats,
    shipped_curves,
    z_scores,
)

if TYPE_CHECKING:
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.embed.protocol import Encoder
    from es_imgsearch.search.client import ImageSearch


Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]

HITS_A_QUERY: Final = 10
CUT_OFFS: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
FOLDS: Final = 5
# Coefficients of fewer right hits are guesses: their standard error is about 1 / sqrt(20).
MIN_RIGHT_HITS: Final = 20

_RIDGE = 1e-6
_STEPS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Hits and whether they are right; every array of shape (hits,).

    `query` numbers the search a hit belongs to, `absent` marks searches for what is not there.
    """

    z: Numbers
    cosine: Numbers
    right: Bools
    absent: Bools
    query: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CutOff:
    """What is left of the hits from a relevance of `at_least` on.

    `precision` is the share of right ones among them (None where nothing is left), `recall` the
    share of all right hits that are left, `false_acceptances` the share of searches for absent
    things that still show a hit.
    """

    at_least: float
    hits: int
    precision: float | None
    recall: float
    false_acceptances: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Hits whose relevance is in one tenth: what was said, and what was so."""

    low: float
    hits: int
    mean_relevance: float
    share_right: float


@dataclass(frozen=True, slots=True)
class Quality:
    """How good probabilities are that were given to hits they were not fitted on.

    `brier` is the mean squared error of the probability (Brier 1950), `brier_of_share` that of
    giving every hit the share of right ones; `calibration_error` is the mean distance of
    `share_right` and `mean_relevance` over the bins, weighted by hits (ECE, Naeini et al. 2015).
    """

    searches: int
    hits: int
    share_right: float
    brier: float
    brier_of_share: float
    calibration_error: float
    cut_offs: tuple[CutOff, ...]
    bins: tuple[Bin, ...]


def judged_hits(
    queries: Floats,
    pictures: Floats,
    right: Bools,
    background: Floats,
    *,
    itself: npt.NDArray[np.int64] | None = None,
) -> Judged:
    """The first ten hits of each query, with its right pictures and without.

    `queries` (q, dims) and `pictures` (p, dims) are unit vectors, `right` of shape (q, p);
    `itself` names the picture that a query is, which is never a hit of it.
    """
    cosines = queries @ pictures.T
    z = z_scores(queries, cosines, background)
    parts: list[tuple[npt.NDArray[np.int64], int, bool]] = []
    for at, row in enumerate(cosines):
        order = np.argsort(-row, kind="stable")
        if itself is not None:
            order = order[order != itself[at]]
        parts.append((order[:HITS_A_QUERY], at, False))
        parts.append((order[~right[at, order]][:HITS_A_QUERY], at, True))
    rows = np.concatenate([np.full(len(found), at) for found, at, _ in parts])
    columns = np.concatenate([found for found, _, _ in parts])
    return Judged(
        z=z[rows, columns].astype(np.float64),
        cosine=cosines[rows, columns].astype(np.float64),
        right=right[rows, columns],
        absent=np.concatenate([np.full(len(found), absent) for found, _, absent in parts]),
        query=rows.astype(np.int64),
    )


def fit(judged: Judged, *, use_z: bool = True, use_cosine: bool = True) -> Curve:
    """The curve of greatest likelihood, by Newton's method.

    The targets are Platt's (1999): a little less than 1 and more than 0, so that hits that can
    be told apart without error do not give a step.  A weight that comes out negative is left
    out and the rest fitted again.

    Raises UsageError where too few hits are right, or none are wrong.
    """
    hits_right = int(judged.right.sum())
    hits_wrong = len(judged.right) - hits_right
    if hits_right < MIN_RIGHT_HITS or not hits_wrong:
        raise UsageError(
            f"{hits_right} right and {hits_wrong} wrong hits among the first {HITS_A_QUERY} of"
            f" each label are too few to calibrate: {MIN_RIGHT_HITS} right ones are needed. Label"
            " more pictures, with more than one label."
        )
    targets = np.where(
        judged.right, (hits_right + 1) / (hits_right + 2), 1.0 / (hits_wrong + 2)
    ).astype(np.float64)
    used = [use_z, use_cosine]
    while True:
        weights = np.zeros(3)
        at = [0, *(n + 1 for n in (0, 1) if used[n])]
        columns = np.stack([np.ones_like(judged.z), judged.z, judged.cosine], axis=1)[:, at]
        weights[at] = _newton(columns, targets)
        negative = [n for n in (0, 1) if weights[n + 1] < 0]
        if not negative:
            return Curve(*(round(float(weight), 4) for weight in weights))
        used[min(negative, key=lambda n: weights[n + 1])] = False


def _newton(columns: Numbers, targets: Numbers) -> Numbers:
    # A ridge this small only keeps the matrix invertible where two columns are the same.
    ridge = _RIDGE * np.eye(columns.shape[1])
    weights = np.zeros(columns.shape[1])
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(columns @ weights, -60.0, 60.0)))
        slope = columns.T @ (p - targets) + ridge @ weights
        bend = (columns * (p * (1.0 - p))[:, None]).T @ columns + ridge
        step = np.linalg.solve(bend, slope)
        # A full step from flat ground may overshoot to where everything is 0 or 1.
        weights -= step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return weights


def cross_validated(
    queries: Floats,
    pictures: Floats,
    right: Bools,
    background: Floats,
    *,
    are_pictures: bool = False,
    use_z: bool = True,
    use_cosine: bool = True,
    seed: int = 0,
) -> Quality:
    """The quality of curves on the queries of each fifth, fitted on the other four.

    No picture that is right for a query tested on is fitted on; where the queries are the
    pictures themselves (`are_pictures`), no picture asked with is.  Raises UsageError where too
    few are left to fit on.
    """
    group = np.random.default_rng(seed).permutation(len(queries)) % FOLDS
    itself = np.arange(len(queries)) if are_pictures else None
    tested, said = [], []
    for fold in range(FOLDS):
        test, train = group == fold, group != fold
        if not test.any():
            continue
        kept = train if are_pictures else ~right[test].any(axis=0)
        curve = fit(
            judged_hits(
                queries[train],
                pictures[kept],
                right[np.ix_(train, kept)],
                background,
                itself=np.arange(int(train.sum())) if are_pictures else None,
            ),
            use_z=use_z,
            use_cosine=use_cosine,
        )
        hits = judged_hits(
            queries[test],
            pictures,
            right[test],
            background,
            itself=None if itself is None else itself[test],
        )
        tested.append((hits, np.flatnonzero(test)))
        said.append(curve.probability(hits.z, hits.cosine))
    together = Judged(
        z=np.concatenate([hits.z for hits, _ in tested]),
        cosine=np.concatenate([hits.cosine for hits, _ in tested]),
        right=np.concatenate([hits.right for hits, _ in tested]),
        absent=np.concatenate([hits.absent for hits, _ in tested]),
        query=np.concatenate([numbers[hits.query] for hits, numbers in tested]),
    )
    return quality(together, np.concatenate(said))


def quality(judged: Judged, said: Numbers) -> Quality:
    """How well probabilities `said`, of shape (hits,), fit what was judged."""
    right = judged.right
    share = float(right.mean())
    bins = _bins(said, right)
    error = sum(each.hits * abs(each.share_right - each.mean_relevance) for each in bins)
    return Quality(
        searches=2 * len(np.unique(judged.query)),
        hits=len(right),
        share_right=share,
        brier=float(((said - right) ** 2).mean()),
        brier_of_share=share * (1.0 - share),
        calibration_error=error / len(right),
        cut_offs=tuple(_cut_off(judged, said, each) for each in CUT_OFFS),
        bins=bins,
    )


def _cut_off(judged: Judged, said: Numbers, at_least: float) -> CutOff:
    kept = said >= at_least
    right = int((kept & judged.right).sum())
    # Of a query whose every picture is right nothing is left to search in without them.
    asked = len(np.unique(judged.query[judged.absent]))
    fooled = len(np.unique(judged.query[judged.absent & kept]))
    return CutOff(
        at_least=at_least,
        hits=int(kept.sum()),
        precision=right / int(kept.sum()) if kept.any() else None,
        recall=right / max(int(judged.right.sum()), 1),
        false_acceptances=fooled / max(asked, 1),
    )


def _bins(said: Numbers, right: Bools) -> tuple[Bin, ...]:
    tenth = np.minimum((said * 10).astype(int), 9)
    return tuple(
        Bin(
            low=number / 10,
            hits=int((tenth == number).sum()),
            mean_relevance=float(said[tenth == number].mean()),
            share_right=float(right[tenth == number].mean()),
        )
        for number in range(10)
        if (tenth == number).any()
    )


# `calibrate`: the curves of `relevance` are fitted for one index, and stored with it.


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What `calibrate` stored, and how good it was in cross-validation, by kind of query."""

    curves: Mapping[str, Curve]
    quality: Mapping[str, Quality] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    background: int = 0


def calibrate(search: ImageSearch, labels: Labels | None = None) -> Calibrated:
    """Fit the curves of `relevance` on labels of pictures, and store them and the background.

    Without labels the curves that are shipped for the index's encoder are stored.  Text queries
    get a curve where the encoder knows texts, picture queries always.

    Raises NotCalibrated where there are neither labels nor shipped curves, FileInvalid for a
    file of queries, UsageError where pictures or right hits are too few, GenerationSwitched where
    the index becomes another generation meanwhile.
    """
    store = search.store.pinned()
    with store.switching.while_serving("calibrate"):
        found = _calibrated(search, store, labels)
    search.reload()
    return found


def _calibrated(search: ImageSearch, store: Store, labels: Labels | None) -> Calibrated:
    info = store.info()
    seal = info.meta.seal
    store.refresh()
    sampled = background.draw_sample(store.connection.pictures, store.send)
    if len(sampled.vectors) < MIN_BACKGROUND:
        raise UsageError(
            f"Index {store.index!r} holds {len(sampled.vectors)} different pictures, too few to"
            f" compare with: relevance needs {MIN_BACKGROUND}."
        )
    if sampled.vectors.shape[1] != seal.dims:
        raise UsageError(
            f"Profile {info.meta.profile!r} of index {store.index!r} stores shortened vectors,"
            " which relevance cannot be told from: use an index of another profile."
        )
    if labels is None:
        curves = shipped_curves(seal.revision, seal.fingerprint)
        if not curves:
            raise NotCalibrated(
                f"No curves are shipped for encoder {seal.name!r}: give a file of labels,"
                f" es-imgsearch calibrate LABELS --index {store.index}."
            )
        found = Calibrated(curves, background=len(sampled.vectors))
    else:
        encoder = search.model.encoder(info) if seal.supports_text else None
        found = _fitted(store, encoder, labels, sampled.vectors)
    # The background belongs to the index, whichever generation serves.
    store.switching.check_serving()
    background.store_background(store, seal, sampled)
    store.generations.update_meta(lambda meta: replace(meta, relevance=found.curves))
    return found


def _fitted(store: Store, encoder: Encoder | None, labels: Labels, foreign: Floats) -> Calibrated:
    """Curves of these labels; those of texts where there is an encoder for them."""
    if not labels.pictures:
        raise FileInvalid("Calibrating takes labels of pictures, not queries.")
    places = Places(store, labels.pictures)
    paths = [path for path in labels.pictures if path in places.id_of]
    pictures = vectors_of(store, [places.id_of[path] for path in paths])
    questions = questions_of({path: labels.pictures[path] for path in paths})
    row_of = {path: row for row, path in enumerate(paths)}
    has = np.zeros((len(questions), len(paths)), dtype=bool)
    for row, question in zip(has, questions, strict=True):
        row[[row_of[path] for path in question.relevant]] = True
    shares = has.T.astype(np.int64) @ has.astype(np.int64) > 0
    asked = {IMAGE: (pictures, shares)}
    if encoder is not None:
        names = [question.name for question in questions]
        texts = embed_queries(encoder, encoder.embed_texts, names)
        asked = {TEXT: (texts, has), **asked}
    curves, quality = {}, {}
    for kind, (queries, right) in asked.items():
        itself = np.arange(len(paths)) if kind == IMAGE else None
        judged = judged_hits(queries, pictures, right, foreign, itself=itself)
        curves[kind] = fit(judged)
        quality[kind] = cross_validated(
            queries, pictures, right, foreign, are_pictures=kind == IMAGE
        )
    return Calibrated(curves, quality, places.missing, len(foreign))
