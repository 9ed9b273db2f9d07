"""Store and load the coder of an index with binary codes, in `<index>-codes`.

If it is lost it can be trained again: the vectors are in the index itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from es_imgsearch.codes.coder import Coder
from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import IndexConflict


def store_coder(store: Store, coder: Coder) -> None:
    """Store the coder in `<index>-codes`."""
    store.companions.put(Companion.CODES, coder.hash, coder.to_document())


def load_coder(store: Store, meta: Meta) -> Coder | None:
    """Load the coder that `_meta` names by its hash; None for an index without codes.

    Raises IndexConflict as `read_coder`.
    """
    if meta.codes is None:
        return None
    document = store.companions.get(Companion.CODES, meta.codes.hash)
    return read_coder(document, store.index, meta)


def read_coder(document: Mapping[str, Any] | None, index: str, meta: Meta) -> Coder:
    """Read the coder from a document that was looked up by the hash in `_meta`.

    Raises IndexConflict if it is missing, not the one that the codes were made with, or for vectors
    of other dims.
    """
    alias = Companion.CODES.alias(index)
    if document is None or meta.codes is None:
        raise IndexConflict(
            f"{alias!r} lacks the coder of index {index!r}: train its codes anew with"
            f" `es-imgsearch codes train --index {index}`."
        )
    coder = Coder.from_document(document, meta.codes.hash, index)
    if coder.dims != meta.stored_dims:
        raise IndexConflict(
            f"The coder in {alias!r} is for vectors of {coder.dims} dims, index {index!r} has"
            f" {meta.stored_dims}: train its codes anew with `es-imgsearch codes train"
            f" --index {index}`."
        )
    return coder
