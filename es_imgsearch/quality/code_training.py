"""Coders made of what an index holds: its vectors, and the labels of some of its pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from es_imgsearch.codes.apply import apply_codes
from es_imgsearch.codes.coder import (
    DEFAULT_BITS,
    SAMPLE_SIZE,
    Floats,
    Method,
    check_bits,
    fit_learned,
    fit_lsh,
    fit_sign,
    targets_of,
)
from es_imgsearch.codes.storage import keep_coder
from es_imgsearch.describe.registry import load_describers
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta_entries import CODE_FIELD, CodesEntry
from es_imgsearch.elastic.queries import parse_vector
from es_imgsearch.errors import FileInvalid, IndexConflict, UsageError
from es_imgsearch.quality.labels import Labels, Places, vectors_of
from es_imgsearch.records import iso_timestamp

if TYPE_CHECKING:
    from es_imgsearch.elastic.generations import IndexInfo
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.search.client import ImageSearch


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training did: the entry in `_meta`, and how many pictures got another code.

    `sample_size` vectors were learnt from; `missing` are labelled pictures that the index does
    not hold.
    """

    entry: CodesEntry
    sample_size: int
    changed: int
    missing: tuple[str, ...] = ()


def train_codes(
    search: ImageSearch,
    method: Method | None = None,
    *,
    bits: int | None = None,
    labels: Labels | None = None,
    on_page: Callable[[int, int], None] = lambda _seen, _changed: None,
) -> Trained:
    """Make a coder, keep it beside the index and give every stored picture its code.

    `method` is by default ``learned`` with labels and ``lsh`` without; `bits` 128, and the dims
    for ``sign``.  New pictures get codes from then on.  Training again replaces all codes by those
    of the new coder; only the number of bits is fixed once there are any.  `on_page` is that of
    `coding.apply_codes`.

    Raises UsageError where method, bits and labels do not go together, IndexConflict where the
    index has codes of another length, FileInvalid where no two labels are known of its pictures,
    GenerationSwitched where the index becomes another generation meanwhile.
    """
    store = search.store.pinned()
    try:
        with store.switching.while_serving("codes train"):
            return _trained(store, method, bits, labels, on_page)
    finally:
        # The coder is in use from its training on, whether all pictures have their codes or not.
        search.reload()


def _trained(
    store: Store,
    method: Method | None,
    bits: int | None,
    labels: Labels | None,
    on_page: Callable[[int, int], None],
) -> Trained:
    method = method or ("lsh" if labels is None else "learned")
    info = store.info()
    _check(store.index, info, method, bits, labels)
    mapped = info.properties.get(CODE_FIELD, {}).get("dims")
    missing: tuple[str, ...] = ()
    if labels is not None:
        vectors, targets, missing = _labelled(store, labels)
        coder = fit_learned(vectors, targets, bits or mapped or DEFAULT_BITS)
    elif method == "sign":
        coder = fit_sign(_sample(store))
    else:
        coder = fit_lsh(_sample(store), bits or mapped or DEFAULT_BITS)
    if mapped not in {None, coder.bits}:
        raise IndexConflict(
            f"Index {store.index!r} has codes of {mapped} bits, which cannot become {coder.bits}:"
            f" use a method that makes {mapped}, or another --index."
        )
    store.switching.check_serving()
    keep_coder(store, coder)
    trained_at = iso_timestamp()
    entry = CodesEntry(coder.hash, coder.method, coder.bits, trained_at)
    described = [each.mapping for each in load_describers()]
    store.generations.add_fields(replace(info, meta=replace(info.meta, codes=entry)), described)
    store.generations.update_meta(lambda meta: replace(meta, codes=entry))
    return Trained(entry, coder.sample_size, apply_codes(store, on_page=on_page), missing)


def _check(
    index: str, info: IndexInfo, method: str, bits: int | None, labels: Labels | None
) -> None:
    if info.meta.reduction is not None:
        raise UsageError(
            f"Index {index!r} has reduced vectors, by which nothing can be put in order exactly:"
            " use an index of whole vectors."
        )
    if (method == "learned") != (labels is not None):
        raise UsageError(
            "Learned codes need LABELS (path,label)."
            if labels is None
            else f"Method {method!r} learns nothing from labels: leave LABELS out, or the method."
        )
    if labels is not None and not labels.pictures:
        raise UsageError("Codes are learned from labels of pictures (path,label), not queries.")
    if bits is None:
        return
    check_bits(bits)
    if method == "sign" and bits != info.meta.seal.dims:
        raise UsageError(
            f"Codes by sign have a bit for each of the {info.meta.seal.dims} dims: leave --bits"
            " out, or use --method lsh."
        )


def _labelled(store: Store, labels: Labels) -> tuple[Floats, Floats, tuple[str, ...]]:
    """Vectors and targets of the labelled pictures that the index holds, and which it lacks."""
    places = Places(store, labels.pictures)
    paths = list(places.id_of)
    targets, names = targets_of([labels.pictures[path] for path in paths])
    if len(names) < 2:
        raise FileInvalid(
            f"The pictures of index {store.index!r} that have labels have one only,"
            f" {names[0]!r}: codes are learned from what tells two apart."
        )
    return vectors_of(store, [places.id_of[path] for path in paths]), targets, places.missing


def _sample(store: Store) -> Floats:
    hits = store.searches.sample(SAMPLE_SIZE, seed=1)
    vectors = [parse_vector(hit["fields"][VECTOR_FIELD]) for hit in hits]
    return np.stack(vectors) if vectors else np.zeros((0, 1), np.float32)
