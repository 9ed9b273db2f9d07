"""`calibrate`: the curves of `relevance` are fitted for one index, and stored with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from es_imgsearch import background
from es_imgsearch.embed.output import query_vectors
from es_imgsearch.errors import LabelsInvalid, NotCalibrated, UsageError
from es_imgsearch.evaluation.calibration import Quality, cross_validated, fit, judged_hits
from es_imgsearch.evaluation.labels import Labels, questions_of
from es_imgsearch.evaluation.places import Places, vectors_of
from es_imgsearch.relevance import IMAGE, MIN_BACKGROUND, TEXT, Curve, Floats, shipped_curves
from es_imgsearch.talk import converse

if TYPE_CHECKING:
    from es_imgsearch.embed import Encoder
    from es_imgsearch.search import ImageSearch
    from es_imgsearch.store import Store


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

    Raises NotCalibrated where there are neither labels nor shipped curves, LabelsInvalid for a
    file of queries, UsageError where pictures or right hits are too few, GenerationSwitched where
    the index becomes another generation meanwhile.
    """
    store = search._store.pinned()
    with store.while_serving("calibrate"):
        found = _calibrated(search, store, labels)
    search.reload()
    return found


def _calibrated(search: ImageSearch, store: Store, labels: Labels | None) -> Calibrated:
    info = store.info()
    seal = info.meta.seal
    store.refresh()
    sampled = converse(background.sample(store.pictures), store.send)
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
        encoder = search._model.encoder(info) if seal.supports_text else None
        found = _fitted(store, encoder, labels, sampled.vectors)
    # The background belongs to the index, whichever generation serves.
    store.check_serving()
    background.store_background(store, seal, sampled)
    store.update_meta(lambda meta: replace(meta, relevance=found.curves))
    return found


def _fitted(store: Store, encoder: Encoder | None, labels: Labels, foreign: Floats) -> Calibrated:
    """Curves of these labels; those of texts where there is an encoder for them."""
    if not labels.pictures:
        raise LabelsInvalid("Calibrating takes labels of pictures, not queries.")
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
        texts = query_vectors(encoder, encoder.embed_texts, names)
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
