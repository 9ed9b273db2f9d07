"""`<index>-codes`: the coder of an index with binary codes, kept beside it.

Losing it costs a training: the vectors that codes are made of are in the index itself.
"""

from __future__ import annotations

from es_imgsearch.codes.coder import Coder
from es_imgsearch.elastic.mapping import codes_alias, codes_body
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.requests import Talk, converse
from es_imgsearch.elastic.store import Store, keep_beside, kept_beside
from es_imgsearch.errors import IndexConflict


def keep_coder(store: Store, coder: Coder) -> None:
    """Store the coder."""
    keep_beside(store, codes_alias(store.index), codes_body(), coder.hash, coder.to_document())


def load_coder(store: Store, meta: Meta) -> Coder | None:
    """The coder that `_meta` names by its hash; None for an index without codes.

    Raises IndexConflict where it is missing, is not the one that the codes were made with, or is
    for vectors of other dims.
    """
    return converse(coder_of(store.index, meta), store.send)


def coder_of(index: str, meta: Meta) -> Talk[Coder | None]:
    """`load_coder` for the client, which does no I/O itself."""
    if meta.codes is None:
        return None
    alias, wanted = codes_alias(index), meta.codes.hash
    document = yield from kept_beside(alias, wanted)
    if document is None:
        raise IndexConflict(
            f"{alias!r} lacks the coder of index {index!r}: train its codes anew with"
            " `es-imgsearch codes train`."
        )
    coder = Coder.from_document(document, wanted, index)
    if coder.dims != meta.stored_dims:
        raise IndexConflict(
            f"The coder in {alias!r} is for vectors of {coder.dims} dims, index {index!r} has"
            f" {meta.stored_dims}: train its codes anew with `es-imgsearch codes train`."
        )
    return coder
