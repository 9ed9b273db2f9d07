"""`<index>-reduction`: the matrix of an index of the profile `reduced`, kept beside it.

Losing it is losing the index: no new picture and no query can be compared any more.
"""

from __future__ import annotations

from es_imgsearch.beside import keep_beside, kept_beside
from es_imgsearch.errors import IndexConflict
from es_imgsearch.mapping import Meta, reduction_alias, reduction_body
from es_imgsearch.reduction import Reduction
from es_imgsearch.store import Store
from es_imgsearch.talk import Talk, converse


def keep_reduction(store: Store, reduction: Reduction) -> None:
    """Store the matrix."""
    alias, document = reduction_alias(store.index), reduction.to_document()
    keep_beside(store, alias, reduction_body(), reduction.hash, document)


def load_reduction(store: Store, meta: Meta) -> Reduction | None:
    """The matrix that `_meta` names by its hash; None for an index that stores whole vectors.

    Raises IndexConflict where it is missing or is not the one that the index was made with.
    """
    return converse(reduction_of(store.index, meta), store.send)


def reduction_of(index: str, meta: Meta) -> Talk[Reduction | None]:
    """`load_reduction` for the client, which does no I/O itself."""
    if meta.reduction is None:
        return None
    alias, wanted = reduction_alias(index), meta.reduction.hash
    document = yield from kept_beside(alias, wanted)
    if document is None:
        raise IndexConflict(
            f"{alias!r} lacks the matrix of index {index!r}, without which its vectors cannot be"
            " compared: restore it from a snapshot, or make another --index."
        )
    return Reduction.from_document(document, wanted, index)
