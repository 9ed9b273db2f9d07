"""`<index>-reduction`: the matrix of an index of the profile `reduced`, kept beside it.

One document a matrix, its hash the id, so that a later generation of the index may have another
one.  Losing it is losing the index: no new picture and no query can be compared any more.
"""

from __future__ import annotations

from es_imgsearch.errors import ImageMissing, IndexConflict, IndexMissing
from es_imgsearch.mapping import Meta, reduction_alias, reduction_body, template_body
from es_imgsearch.reduction import Reduction
from es_imgsearch.store import Store
from es_imgsearch.talk import Talk, document_request


def keep_reduction(store: Store, reduction: Reduction) -> None:
    """Store the matrix; the index for it is made where there is none."""
    alias, body = reduction_alias(store.index), reduction_body()
    store.request("PUT", f"/_index_template/{alias}", template_body(alias, body))
    store.make_generation(alias, body)
    document = reduction.to_document()
    params = {"refresh": "true", "require_alias": "true"}
    store.request("PUT", f"/{alias}/_doc/{document['hash']}", document, params=params)


def load_reduction(store: Store, meta: Meta) -> Reduction | None:
    """The matrix that `_meta` names by its hash; None for an index that stores whole vectors.

    Raises IndexConflict where it is missing or is not the one that the index was made with.
    """
    if meta.reduction is None:
        return None
    alias, wanted = reduction_alias(store.index), meta.reduction.hash
    try:
        answer = store.request("GET", f"/{alias}/_doc/{wanted}")
    except (IndexMissing, ImageMissing):
        raise _missing(store.index) from None
    return Reduction.from_document(answer["_source"], wanted, store.index)


def reduction_of(index: str, meta: Meta) -> Talk[Reduction | None]:
    """`load_reduction` for the client, which does no I/O itself."""
    if meta.reduction is None:
        return None
    wanted = meta.reduction.hash
    try:
        answer = yield document_request(reduction_alias(index), wanted)
    except (IndexMissing, ImageMissing):
        raise _missing(index) from None
    return Reduction.from_document(answer["_source"], wanted, index)


def _missing(index: str) -> IndexConflict:
    return IndexConflict(
        f"{reduction_alias(index)!r} lacks the matrix of index {index!r}, without which its vectors"
        " cannot be compared: restore it from a snapshot, or make another --index."
    )
