"""Whole documents, vectors included: read, and changed only if no other process did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from es_imgsearch.elastic.bulk import action_line, bulk_results, json_line
from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.generations import Generations
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.queries import vector_of
from es_imgsearch.elastic.region_queries import region_hits, stored_regions_clause
from es_imgsearch.errors import IndexConflict, StoreBusy, StoreError, StoreRejected
from es_imgsearch.records import MAX_REGIONS, REGION_VECTOR, REGIONS_FIELD

# Another writer of the same document wins again and again: a file that changes all the time.
_CONFLICT_TRIES = 5
_CONFLICT = 409


class Rewrites:
    """Reads whole documents, and writes them again."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rewrite(self, image_ids: Sequence[str], change: DocumentChange) -> Rewritten:
        """Give each of these documents to `change` and write what it returns in its place.

        `change` gets everything that is stored: the fields, and vectors as float32 of shape
        (dims,), bit for bit, those of `regions` too; perceptual_hash as hexadecimal digits.  It
        returns the whole document, or None to leave it alone, and may be called again for the
        same one: a document that others wrote meanwhile is read and changed anew.

        All of it happens in the generation that the alias points to when this begins.  What was
        refused for a `transient` reason may be tried again.  Raises IndexConflict where a field
        could not be carried over, ValueError for a change that loses the vector, and what a
        request raises.
        """
        pinned = self._connection
        if pinned.generation is None:
            pinned = pinned.at(Generations(pinned).pin())
        at = Rewrites(pinned)
        info = Generations(pinned).info()
        check_readable(info.properties, info.left_out, pinned.index)
        size = documents_at_once(info.properties, info.left_out)
        done = Rewritten([], [], [], {})
        ids = list(dict.fromkeys(image_ids))
        for start in range(0, len(ids), size):
            open_ids: Sequence[str] = ids[start : start + size]
            for _ in range(_CONFLICT_TRIES):
                open_ids = at._rewrite_once(open_ids, change, info.left_out, done)
                if not open_ids:
                    break
            for image_id in open_ids:
                done.refused[image_id] = StoreBusy(
                    f"The document {image_id!r} is being rewritten by others."
                )
        return done

    def _rewrite_once(
        self,
        image_ids: Sequence[str],
        change: DocumentChange,
        left_out: Sequence[str],
        done: Rewritten,
    ) -> Sequence[str]:
        """Ids that others wrote between reading and writing; `done` has all the rest."""
        # A search does not see what was written in the last second, and a change that leaves
        # such a document alone would never hear of it.
        self._connection.refresh()
        hits = {hit["_id"]: hit for hit in self.whole(image_ids, left_out)}
        done.missing.extend(each for each in image_ids if each not in hits)
        changed: dict[str, Mapping[str, Any]] = {}
        for image_id, hit in hits.items():
            try:
                document = changed_document(whole_document(hit), change)
            except StoreRejected as unreadable:
                done.refused[image_id] = unreadable
                continue
            if document is None:
                done.unchanged.append(image_id)
            else:
                changed[image_id] = document
        again: list[str] = []
        for result, error in self._write_if_same(hits, changed):
            if error is None:
                done.written.append(result["_id"])
            elif result["status"] == _CONFLICT:
                again.append(result["_id"])
            else:
                done.refused[result["_id"]] = error
        return again

    def whole(
        self, image_ids: Sequence[str], left_out: Sequence[str]
    ) -> Sequence[Mapping[str, Any]]:
        """Whole documents of these ids, as hits; all that are searchable, in no order."""
        body = whole_documents_body([{"ids": {"values": list(image_ids)}}], left_out)
        body["size"] = len(image_ids)
        return self._connection.hits(self._connection.pictures, body, WHOLE_HIT)

    def checkpoints(self) -> dict[str, int]:
        """By shard the sequence number up to which everything can be searched from now on."""
        answer = self._connection.request(
            "GET",
            f"/{self._connection.pictures}/_stats",
            params={
                "level": "shards",
                "filter_path": "indices.*.shards.*.routing.primary,indices.*.shards.*.seq_no",
            },
        )
        # What was acknowledged before these were read is made searchable after.
        self._connection.refresh()
        ((_, index),) = answer["indices"].items()
        return {
            shard: int(copy["seq_no"]["global_checkpoint"])
            for shard, copies in index["shards"].items()
            for copy in copies
            if copy["routing"]["primary"]
        }

    def changed_since(
        self, until: Mapping[str, int], left_out: Sequence[str], size: int
    ) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Pages of the whole documents written after these checkpoints, as hits.

        A shard that is not among them is read as a whole.
        """
        for shard in self.checkpoints():
            newer = {"range": {"_seq_no": {"gt": until.get(shard, -1)}}}
            yield from self._connection.pages(
                self._connection.pictures,
                whole_documents_body([newer], left_out),
                WHOLE_HIT,
                size=size,
                preference=f"_shards:{shard}",
            )

    def _write_if_same(
        self, hits: Mapping[str, Mapping[str, Any]], changed: Mapping[str, Mapping[str, Any]]
    ) -> Sequence[tuple[Mapping[str, Any], StoreError | None]]:
        """Write changed documents, each only where it is still the one in its hit."""
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


# Put whole documents together, with the vectors that `_source` leaves out, to write them again.
#
# A mapping's `_source.excludes` keeps vectors out of what is fetched.  A partial update, an update
# by query or a `_reindex` of the server works on `_source` and loses them without a word (tried on
# 8.19.13; elasticsearch #137173 reports it of reindex), so every change of a document reads it
# through here.  `docvalue_fields` give vectors back bit for bit.
#
# Pure functions: bodies in, documents out.

# A whole document in, the whole document that shall take its place out; None leaves it alone.
DocumentChange: TypeAlias = Callable[[dict[str, Any]], Mapping[str, Any] | None]

# Floats read at once: 1,024 documents of 512 dims and a layout, about 9 MB of JSON.
_MOST_FLOATS = 2**19
_MOST_DOCUMENTS = 1000


class Rewritten(NamedTuple):
    """The result of `Rewrites.rewrite`, by image_id.

    `unchanged` were left alone by the change, `missing` have no document, and each of `refused`
    was not written, for the reason given.
    """

    written: list[str]
    unchanged: list[str]
    missing: list[str]
    refused: dict[str, StoreError]


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
        floats += MAX_REGIONS * properties[REGIONS_FIELD]["properties"]["embedding"]["dims"]
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


# The parts of a hit that `whole_document` and a conditional write need.
WHOLE_HIT = "_id,_source,fields,_seq_no,_primary_term,inner_hits"


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
