"""`calibrate`: fit the curves of `relevance` for one index, and store them in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from es_imgsearch.elastic.meta_entries import Curve
from es_imgsearch.embed.protocol import embed_queries
from es_imgsearch.errors import FileInvalid, UsageError
from es_imgsearch.manage.upgrade import upgrade
from es_imgsearch.quality.curve_fitting import (
    CalibrationQuality,
    cross_validate,
    fit_curve,
    judge_hits,
)
from es_imgsearch.quality.labelled_pictures import LabelledPictures, load_unit_vectors
from es_imgsearch.quality.labels import Labels, queries_by_label
from es_imgsearch.search import relevance as background
from es_imgsearch.search.relevance import (
    IMAGE,
    MIN_BACKGROUND,
    TEXT,
    Floats,
    derived_curve,
    null_moments,
    unrelated_texts,
)

if TYPE_CHECKING:
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.embed.protocol import Encoder
    from es_imgsearch.search.client import ImageSearch


@dataclass(frozen=True, slots=True)
class Calibration:
    """Stored curves and their quality in cross-validation, by kind of query.

    `missing` are labelled pictures that the index does not hold, `background` is the number of
    pictures that scores are compared with.
    """

    curves: Mapping[str, Curve]
    quality: Mapping[str, CalibrationQuality] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    background: int = 0


def calibrate(search: ImageSearch, labels: Labels | None = None) -> Calibration:
    """Fit the curves of `relevance` on labels; store them and the background.

    Without labels, store the curves that are derived from the index itself.  Text queries get a
    curve if the encoder embeds text, picture queries always.

    Raises FileInvalid for a file of queries,
    UsageError for too few pictures or right hits, GenerationSwitched if the index becomes another
    generation meanwhile.
    """
    upgrade(search.store)
    store = search.store.pinned()
    with store.switching.while_serving("calibrate"):
        calibration = _calibrate(search, store, labels)
    search.reload()
    return calibration


def _calibrate(search: ImageSearch, store: Store, labels: Labels | None) -> Calibration:
    info = store.info()
    seal = info.meta.seal
    store.refresh()
    sampled = background.draw_sample(store.connection.pictures, store.send)
    if len(sampled.vectors) < MIN_BACKGROUND:
        raise UsageError(
            f"Index {store.index!r} holds {len(sampled.vectors)} different pictures, too few to"
            f" compare with: relevance needs {MIN_BACKGROUND}. Add pictures with `es-imgsearch sync"
            f" DIR --index {store.index}`."
        )
    if sampled.vectors.shape[1] != seal.dims:
        raise UsageError(
            f"Profile {info.meta.profile!r} of index {store.index!r} stores shortened vectors,"
            " from which relevance cannot be computed: use an index of another profile."
        )
    encoder = search.model.encoder(info) if seal.supports_text else None
    if labels is None:
        curves = _derive_curves(encoder, sampled.vectors)
        calibration = Calibration(curves, background=len(sampled.vectors))
    else:
        calibration = _fit_curves(store, encoder, labels, sampled.vectors)
    # The background belongs to the index, whichever generation serves.
    store.switching.check_serving()
    background.store_background(store, seal, sampled)
    store.generations.update_meta(lambda meta: replace(meta, relevance=calibration.curves))
    return calibration


def _derive_curves(encoder: Encoder | None, sampled: Floats) -> dict[str, Curve]:
    """Derive a curve for picture queries and, with an encoder, one for text queries."""
    unrelated = {IMAGE: sampled}
    if encoder is not None:
        unrelated[TEXT] = embed_queries(encoder, encoder.embed_texts, unrelated_texts())
    size = len(sampled)
    return {
        kind: derived_curve(kind, null_moments(vectors, sampled), size)
        for kind, vectors in unrelated.items()
    }


def _fit_curves(
    store: Store, encoder: Encoder | None, labels: Labels, sampled: Floats
) -> Calibration:
    """Fit a curve for picture queries and, with an encoder, one for text queries."""
    if not labels.pictures:
        raise FileInvalid("Calibrating takes labels of pictures, not queries.")
    labelled = LabelledPictures(store, labels.pictures)
    paths = [path for path in labels.pictures if path in labelled.id_of]
    pictures = load_unit_vectors(store, [labelled.id_of[path] for path in paths])
    label_queries = queries_by_label({path: labels.pictures[path] for path in paths})
    row_of = {path: row for row, path in enumerate(paths)}
    has_label = np.zeros((len(label_queries), len(paths)), dtype=bool)
    for row, query in zip(has_label, label_queries, strict=True):
        row[[row_of[path] for path in query.relevant]] = True
    share_label = has_label.T.astype(np.int64) @ has_label.astype(np.int64) > 0
    queries_by_kind = {IMAGE: (pictures, share_label)}
    if encoder is not None:
        names = [query.text or query.name for query in label_queries]
        texts = embed_queries(encoder, encoder.embed_texts, names)
        queries_by_kind = {TEXT: (texts, has_label), **queries_by_kind}
    curves, quality = {}, {}
    for kind, (queries, right) in queries_by_kind.items():
        own_picture = np.arange(len(paths)) if kind == IMAGE else None
        judged = judge_hits(queries, pictures, right, sampled, own_picture=own_picture)
        curves[kind] = fit_curve(judged)
        quality[kind] = cross_validate(
            queries, pictures, right, sampled, are_pictures=kind == IMAGE
        )
    return Calibration(curves, quality, labelled.missing, len(sampled))
