"""Whole documents: read back with the vectors that `_source` leaves out, so that they can be
written again.

A mapping's `_source.excludes` keeps vectors out of what is fetched.  A partial update, an update
by query or a `_reindex` of the server works on `_source` and loses them without a word (tried on
8.19.13; elasticsearch #137173 says so of reindex), so whoever changes a document reads it through
here.  `docvalue_fields` give vectors back bit for bit.

Pure functions: bodies in, documents out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from es_imgsearch.errors import IndexConflict, StoreError, StoreRejected
from es_imgsearch.mapping import VECTOR_FIELD
from es_imgsearch.queries import vector_of
from es_imgsearch.region_queries import region_hits, stored_regions_clause
from es_imgsearch.regions import MOST_REGIONS, REGION_VECTOR, REGIONS_FIELD

# A whole document in, the whole document that shall take its place out; None leaves it alone.
DocumentChange: TypeAlias = Callable[[dict[str, Any]], Mapping[str, Any] | None]

# Floats read at once: 1,024 documents of 512 dims and a layout, about 9 MB of JSON.
_MOST_FLOATS = 2**19
_MOST_DOCUMENTS = 1000


class Rewritten(NamedTuple):
    """What `Store.rewrite` did, by image_id.

    `unchanged` were left alone by the change, `missing` have no document, and each of `refused`
    was not written for the reason that stands beside it.
    """

    written: list[str]
    unchanged: list[str]
    missing: list[str]
    refused: dict[str, StoreError]


def left_out_of_source(mappings: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the fields that documents of this mapping have and `_source` does not."""
    return tuple(mappings.get("_source", {}).get("excludes", ()))


def check_readable(
    properties: Mapping[str, Mapping[str, Any]], left_out: Sequence[str], index: str
) -> None:
    """Raise IndexConflict where a field is kept out of `_source` and cannot be read back."""
    lost = sorted(
        name
        for name in left_out
        if name != REGION_VECTOR and properties.get(name, {}).get("type") != "dense_vector"
    )
    if lost:
        raise IndexConflict(
            f"The mapping of {index!r} keeps {', '.join(lost)} out of _source, which cannot be read"
            " back otherwise: nothing is rewritten there. Make another --index."
        )


def documents_at_once(properties: Mapping[str, Mapping[str, Any]], left_out: Sequence[str]) -> int:
    """How many documents of these fields to read with one request, so that it stays small."""
    floats: int = sum(properties[name]["dims"] for name in left_out if name in properties)
    if REGION_VECTOR in left_out:
        floats += MOST_REGIONS * properties[REGIONS_FIELD]["properties"]["embedding"]["dims"]
    return max(1, min(_MOST_DOCUMENTS, _MOST_FLOATS // max(1, floats)))


def whole_documents_body(
    filters: Sequence[Mapping[str, Any]], left_out: Sequence[str]
) -> dict[str, Any]:
    """Search whose hits `whole_document` can put together again; the caller adds the size."""
    clauses: dict[str, Any] = {"filter": list(filters)}
    if REGION_VECTOR in left_out:
        clauses["should"] = [stored_regions_clause()]
    return {
        "query": {"bool": clauses},
        "_source": True,
        "docvalue_fields": [name for name in left_out if name != REGION_VECTOR],
        "seq_no_primary_term": True,
        "track_total_hits": False,
    }


# What of an answer `whole_document` needs; `sort` leads to the next page.
WHOLE_HIT = ",".join(
    f"hits.hits.{each}"
    for each in ("_id", "_source", "fields", "sort", "_seq_no", "_primary_term", "inner_hits")
)


def whole_document(hit: Mapping[str, Any]) -> dict[str, Any]:
    """A document as it was written: vectors are float32 of shape (dims,).

    Raises StoreRejected where its regions did not all come along.
    """
    document: dict[str, Any] = dict(hit["_source"])
    for name, value in hit.get("fields", {}).items():
        document[name] = vector_of(value)
    regions = document.get(REGIONS_FIELD)
    if regions and any("embedding" not in each for each in regions):
        inner = region_hits(hit)
        if len(inner) != len(regions):
            raise StoreRejected(
                f"Of the {len(regions)} regions of {document.get('image_id')!r} only {len(inner)}"
                " can be read back, so it is left as it is."
            )
        document[REGIONS_FIELD] = [
            _region(region, each.get("fields", {}))
            for region, each in zip(regions, inner, strict=True)
        ]
    return document


def _region(source: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    vector = fields.get(REGION_VECTOR)
    return dict(source) if vector is None else {**source, "embedding": vector_of(vector)}


def changed_document(document: dict[str, Any], change: DocumentChange) -> Mapping[str, Any] | None:
    """What the change makes of a whole document.

    Raises ValueError for a change that takes away its id or its vector: that is a mistake in the
    program, and the picture could not be found any more.
    """
    kept = {name: document[name] for name in ("image_id", VECTOR_FIELD) if name in document}
    changed = change(document)
    if changed is not None and (lost := sorted(kept.keys() - changed.keys())):
        raise ValueError(f"A change must not take {', '.join(lost)} away from a document.")
    return changed
