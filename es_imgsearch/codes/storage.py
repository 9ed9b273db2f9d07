"""`<index>-codes`: the coder of an index with binary codes.

Losing it costs a training: the vectors that codes are made of are in the index itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from es_imgsearch.codes.coder import Coder
from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import IndexConflict


def keep_coder(store: Store, coder: Coder) -> None:
    """Store the coder."""
    store.companions.put(Companion.CODES, coder.hash, coder.to_document())


def load_coder(store: Store, meta: Meta) -> Coder | None:
    """The coder that `_meta` names by its hash; None for an index without codes.

    Raises IndexConflict, see `coder_from`.
    """
    if meta.codes is None:
        return None
    document = store.companions.get(Companion.CODES, meta.codes.hash)
    return coder_from(document, store.index, meta)


def coder_from(document: Mapping[str, Any] | None, index: str, meta: Meta) -> Coder:
    """The coder in a document that was looked up by the hash in `_meta`.

    Raises IndexConflict where it is missing, is not the one that the codes were made with, or is
    for vectors of other dims.
    """
    alias = Companion.CODES.alias(index)
    if document is None or meta.codes is None:
        raise IndexConflict(
            f"{alias!r} lacks the coder of index {index!r}: train its codes anew with"
            " `es-imgsearch codes train`."
        )
    coder = Coder.from_document(document, meta.codes.hash, index)
    if coder.dims != meta.stored_dims:
        raise IndexConflict(
            f"The coder in {alias!r} is for vectors of {coder.dims} dims, index {index!r} has"
            f" {meta.stored_dims}: train its codes anew with `es-imgsearch codes train`."
        )
    return coder
