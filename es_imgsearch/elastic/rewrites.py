"""Read and change whole documents, vectors included, unless others changed them.

A mapping's `_source.excludes` keeps vectors out of `_source`.  A partial update, an update by query
or a `_reindex` of the server works on `_source` and silently loses them (tried on 8.19.13;
elasticsearch #137173 reports it for reindex), so every change of a document reads it through here:
`docvalue_fields` return vectors bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from es_imgsearch.elastic.bulk import action_line, bulk_results, json_line
from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.generations import Generations
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.queries import parse_vector
from es_imgsearch.elastic.region_queries import region_hits, stored_regions_clause
from es_imgsearch.errors import IndexConflict, StoreBusy, StoreDenied, StoreError, StoreRejected
from es_imgsearch.records import MAX_REGIONS, REGION_VECTOR, REGIONS_FIELD

# Another writer of the same document may win again and again: a file that changes all the time.
_CONFLICT_TRIES = 5
_CONFLICT = 409

# Takes a whole document and returns the one that replaces it, or None to leave it unchanged.
DocumentChange: TypeAlias = Callable[[dict[str, Any]], Mapping[str, Any] | None]

# Floats per request: 1,024 documents of 512 dims and a layout, about 9 MB of JSON.
_MOST_FLOATS = 2**19
_MOST_DOCUMENTS = 1000


class RewriteResult(NamedTuple):
    """Result of `Rewrites.rewrite`, by image_id.

    `unchanged`: the change returned None or the same; `missing`: there is no document; `refused`:
    not written, with the error.
    """

    written: list[str]
    unchanged: list[str]
    missing: list[str]
    refused: dict[str, StoreError]


class Rewrites:
    """Read whole documents and write changed ones."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rewrite(self, image_ids: Sequence[str], change: DocumentChange) -> RewriteResult:
        """Replace each of these documents by the result of `change` for it.

        `change` gets the stored fields, and vectors as float32 of shape (dims,), bit for bit,
        those of `regions` too; perceptual_hash as hexadecimal digits.  It returns the whole
        document, or None to leave it unchanged, and is called again for a document that others
        wrote meanwhile.

        Everything happens in the generation that the alias points to at the start.  Documents that
        were refused with a `transient` error may be retried.  Raises IndexConflict where a field
        cannot be read back, ValueError for a change that loses the vector, and errors of requests.
        """
        pinned = self._connection
        if pinned.generation is None:
            pinned = pinned.at(*Generations(pinned).pin())
        at = Rewrites(pinned)
        info = Generations(pinned).sealed()
        check_readable(info.properties, info.source_excludes, pinned.index)
        size = documents_at_once(info.properties, info.source_excludes)
        result = RewriteResult([], [], [], {})
        ids = list(dict.fromkeys(image_ids))
        for start in range(0, len(ids), size):
            open_ids: Sequence[str] = ids[start : start + size]
            for _ in range(_CONFLICT_TRIES):
                open_ids = at._rewrite_once(open_ids, change, info.source_excludes, result)
                if not open_ids:
                    break
            for image_id in open_ids:
                result.refused[image_id] = StoreBusy(
                    f"The document {image_id!r} is being rewritten by others."
                )
        return result

    def _rewrite_once(
        self,
        image_ids: Sequence[str],
        change: DocumentChange,
        source_excludes: Sequence[str],
        result: RewriteResult,
    ) -> Sequence[str]:
        """Rewrite once; return the ids that others wrote meanwhile.

        The rest is noted in `result`.
        """
        # A search does not see writes of the last second, and a change that leaves such a document
        # unchanged would miss them.
        self._connection.refresh()
        hits = {hit["_id"]: hit for hit in self.whole(image_ids, source_excludes)}
        result.missing.extend(each for each in image_ids if each not in hits)
        changed: dict[str, Mapping[str, Any]] = {}
        for image_id, hit in hits.items():
            try:
                document = changed_document(whole_document(hit), change)
            except StoreRejected as unreadable:
                result.refused[image_id] = unreadable
                continue
            if document is None:
                result.unchanged.append(image_id)
            else:
                changed[image_id] = document
        again: list[str] = []
        for item, error in self._write_if_same(hits, changed):
            if error is None:
                result.written.append(item["_id"])
            elif item["status"] == _CONFLICT:
                again.append(item["_id"])
            elif isinstance(error, StoreDenied):
                # No other document would be permitted either.
                raise error
            else:
                result.refused[item["_id"]] = error
        return again

    def whole(
        self, image_ids: Sequence[str], source_excludes: Sequence[str]
    ) -> Sequence[Mapping[str, Any]]:
        """Read whole searchable documents by id, as hits in no order."""
        body = whole_documents_body([{"ids": {"values": list(image_ids)}}], source_excludes)
        body["size"] = len(image_ids)
        return self._connection.hits(self._connection.pictures, body, WHOLE_HIT)

    def checkpoints(self) -> dict[str, int]:
        """Sequence number by shard up to which everything is searchable now."""
        answer = self._connection.request(
            "GET",
            f"/{self._connection.pictures}/_stats",
            params={
                "level": "shards",
                "filter_path": "indices.*.shards.*.routing.primary,indices.*.shards.*.seq_no",
            },
        )
        # Everything acknowledged before these were read becomes searchable.
        self._connection.refresh()
        ((_, index),) = answer["indices"].items()
        return {
            shard: int(copy["seq_no"]["global_checkpoint"])
            for shard, copies in index["shards"].items()
            for copy in copies
            if copy["routing"]["primary"]
        }

    def changed_since(
        self, until: Mapping[str, int], source_excludes: Sequence[str], size: int
    ) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Page through whole documents written after these checkpoints, as hits.

        A shard without a checkpoint is read as a whole.
        """
        for shard in self.checkpoints():
            newer = {"range": {"_seq_no": {"gt": until.get(shard, -1)}}}
            yield from self._connection.pages(
                self._connection.pictures,
                whole_documents_body([newer], source_excludes),
                WHOLE_HIT,
                size=size,
                preference=f"_shards:{shard}",
            )

    def _write_if_same(
        self, hits: Mapping[str, Mapping[str, Any]], changed: Mapping[str, Mapping[str, Any]]
    ) -> Sequence[tuple[Mapping[str, Any], StoreError | None]]:
        """Write changed documents, each only if it is still the version of its hit."""
        if not changed:
            return ()
        lines = []
        for image_id, document in changed.items():
            hit = hits[image_id]
            only_if = {"if_seq_no": hit["_seq_no"], "if_primary_term": hit["_primary_term"]}
            lines += [
                action_line("index", self._connection.pictures, image_id, **only_if),
                json_line(document),
            ]
        return bulk_results(self._connection, b"".join(lines))


def check_readable(
    properties: Mapping[str, Mapping[str, Any]], source_excludes: Sequence[str], index: str
) -> None:
    """Raise IndexConflict if a field is not in `_source` and cannot be read back."""
    lost = sorted(
        name
        for name in source_excludes
        if name != REGION_VECTOR and properties.get(name, {}).get("type") != "dense_vector"
    )
    if lost:
        raise IndexConflict(
            f"The mapping of {index!r} keeps {', '.join(lost)} out of _source, which cannot be read"
            " back otherwise: nothing is rewritten there. Make another --index."
        )


def documents_at_once(
    properties: Mapping[str, Mapping[str, Any]], source_excludes: Sequence[str]
) -> int:
    """Number of documents of these fields to read with one request."""
    floats: int = sum(properties[name]["dims"] for name in source_excludes if name in properties)
    if REGION_VECTOR in source_excludes:
        floats += MAX_REGIONS * properties[REGIONS_FIELD]["properties"]["embedding"]["dims"]
    return max(1, min(_MOST_DOCUMENTS, _MOST_FLOATS // max(1, floats)))


def whole_documents_body(
    filters: Sequence[Mapping[str, Any]], source_excludes: Sequence[str]
) -> dict[str, Any]:
    """Search whose hits `whole_document` accepts; the caller adds the size."""
    clauses: dict[str, Any] = {"filter": list(filters)}
    if REGION_VECTOR in source_excludes:
        clauses["should"] = [stored_regions_clause()]
    return {
        "query": {"bool": clauses},
        "_source": True,
        "docvalue_fields": [name for name in source_excludes if name != REGION_VECTOR],
        "seq_no_primary_term": True,
        "track_total_hits": False,
    }


# The parts of a hit that `whole_document` and a conditional write need.
WHOLE_HIT = "_id,_source,fields,_seq_no,_primary_term,inner_hits"


def whole_document(hit: Mapping[str, Any]) -> dict[str, Any]:
    """Assemble a document as it was written; vectors are float32 of shape (dims,).

    Raises StoreRejected if the hit lacks some of its regions.
    """
    document: dict[str, Any] = dict(hit["_source"])
    for name, value in hit.get("fields", {}).items():
        document[name] = parse_vector(value)
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
    return dict(source) if vector is None else {**source, "embedding": parse_vector(vector)}


def changed_document(document: dict[str, Any], change: DocumentChange) -> Mapping[str, Any] | None:
    """Apply a change to a whole document.

    Raises ValueError for a change that removes its id or its vector, which is a bug: no search
    would find the picture.
    """
    required = {name for name in ("image_id", VECTOR_FIELD) if name in document}
    changed = change(document)
    if changed is not None and (lost := sorted(required - changed.keys())):
        raise ValueError(f"A change must not take {', '.join(lost)} away from a document.")
    return changed
