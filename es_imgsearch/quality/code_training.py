"""Train a coder of binary codes on stored vectors, or on labels of pictures.

Chooses the method, loads vectors and stores the coder; `codes.fitting` fits it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from es_imgsearch.codes.apply import apply_codes
from es_imgsearch.codes.coder import DEFAULT_BITS, SAMPLE_SIZE, Floats, Method
from es_imgsearch.codes.fitting import check_bits, fit_learned, fit_lsh, fit_sign, label_targets
from es_imgsearch.codes.storage import store_coder
from es_imgsearch.describe.registry import load_describers
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta_entries import CODE_FIELD, CodesEntry
from es_imgsearch.elastic.queries import parse_vector
from es_imgsearch.errors import FileInvalid, IndexConflict, UsageError
from es_imgsearch.manage.upgrade import upgrade
from es_imgsearch.quality.labelled_pictures import LabelledPictures, load_unit_vectors
from es_imgsearch.quality.labels import Labels
from es_imgsearch.records import iso_timestamp

if TYPE_CHECKING:
    from es_imgsearch.elastic.generations import IndexInfo
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.search.client import ImageSearch


@dataclass(frozen=True, slots=True)
class CodeTraining:
    """The entry in `_meta` after a training, and the number of changed codes.

    `sample_size` is the number of vectors trained on; `missing` are labelled pictures that the
    index does not hold.
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
    on_page: Callable[[int, int], None] = lambda _compared, _changed: None,
) -> CodeTraining:
    """Train a coder, store it with the index and code every stored picture.

    `method` defaults to ``learned`` with labels and ``lsh`` without; `bits` to 128, and to the
    dims for ``sign``.  New pictures get codes from then on.  Training again replaces all codes;
    only the number of bits cannot change once there are codes.  For `on_page` see `apply_codes`.

    Raises UsageError if method, bits and labels do not go together, IndexConflict if the index has
    codes of another length, FileInvalid if its pictures have fewer than two of the labels,
    GenerationSwitched if the index becomes another generation meanwhile.
    """
    upgrade(search.store)
    store = search.store.pinned()
    try:
        with store.switching.while_serving("codes train"):
            return _train(store, method, bits, labels, on_page)
    finally:
        # The coder is used from its training on, even if coding the pictures failed half-way.
        search.reload()


def _train(
    store: Store,
    method: Method | None,
    bits: int | None,
    labels: Labels | None,
    on_page: Callable[[int, int], None],
) -> CodeTraining:
    method = method or ("lsh" if labels is None else "learned")
    info = store.info()
    _check_arguments(store.index, info, method, bits, labels)
    mapped_bits = info.properties.get(CODE_FIELD, {}).get("dims")
    missing: tuple[str, ...] = ()
    if labels is not None:
        vectors, targets, missing = _load_labelled(store, labels)
        coder = fit_learned(vectors, targets, bits or mapped_bits or DEFAULT_BITS)
    elif method == "sign":
        coder = fit_sign(_sample_vectors(store))
    else:
        coder = fit_lsh(_sample_vectors(store), bits or mapped_bits or DEFAULT_BITS)
    if mapped_bits not in {None, coder.bits}:
        raise IndexConflict(
            f"Index {store.index!r} has codes of {mapped_bits} bits, which cannot become"
            f" {coder.bits}: use a method that makes {mapped_bits}, or another --index."
        )
    store.switching.check_serving()
    store_coder(store, coder)
    trained_at, until = iso_timestamp(), store.rewrites.checkpoints()
    entry = CodesEntry(coder.hash, coder.method, coder.bits, trained_at, until)
    described = [each.mapping for each in load_describers()]
    store.generations.add_fields(replace(info, meta=replace(info.meta, codes=entry)), described)
    store.generations.update_meta(lambda meta: replace(meta, codes=entry))
    return CodeTraining(entry, coder.sample_size, apply_codes(store, on_page=on_page), missing)


def _check_arguments(
    index: str, info: IndexInfo, method: str, bits: int | None, labels: Labels | None
) -> None:
    if info.meta.reduction is not None:
        raise UsageError(
            f"Index {index!r} has reduced vectors, which cannot rank candidates exactly: use an"
            " index of whole vectors."
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


def _load_labelled(store: Store, labels: Labels) -> tuple[Floats, Floats, tuple[str, ...]]:
    """Load vectors and targets of labelled pictures, and list the missing ones."""
    labelled = LabelledPictures(store, labels.pictures)
    paths = list(labelled.id_of)
    targets, names = label_targets([labels.pictures[path] for path in paths])
    if len(names) < 2:
        raise FileInvalid(
            f"All labelled pictures of index {store.index!r} have the same label,"
            f" {names[0]!r}: codes are learned from pictures of at least two labels."
        )
    vectors = load_unit_vectors(store, [labelled.id_of[path] for path in paths])
    return vectors, targets, labelled.missing


def _sample_vectors(store: Store) -> Floats:
    hits = store.searches.sample(SAMPLE_SIZE, seed=1)
    vectors = [parse_vector(hit["fields"][VECTOR_FIELD]) for hit in hits]
    return np.stack(vectors) if vectors else np.zeros((0, 1), np.float32)
