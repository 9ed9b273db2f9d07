"""Write, delete and read documents by id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from es_imgsearch.elastic.bulk import action_line, bulk_results, bulk_slices, json_line
from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.error_mapping import multi_get_error
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.queries import parse_vector
from es_imgsearch.elastic.region_queries import parse_box, region_hits, stored_regions_clause
from es_imgsearch.elastic.requests import document_request
from es_imgsearch.errors import ImageMissing, ImgSearchError, StoreError
from es_imgsearch.records import REGION_VECTOR, Embedded, FileState, Region

_BATCH = 500
_IDS_PER_REQUEST = 1_000
# Of no document: others are hashes.
_ABSENT_ID = "absent"

_FETCHED = "docs._id,docs._source,docs._seq_no,docs._primary_term,docs.error"


class DocumentVersion(NamedTuple):
    """The version of a document; the names are those of a bulk's conditions."""

    if_seq_no: int
    if_primary_term: int


class VersionedSource(NamedTuple):
    """The stored fields of a document, and their version."""

    source: Mapping[str, Any]
    version: DocumentVersion | None


@dataclass(frozen=True, slots=True)
class Write:
    """New content of one id: a picture's document, a failure, or (neither) nothing.

    With a `version` the document replaces that one only; another is a conflict, see
    `error_mapping.is_conflict`.
    """

    image_id: str
    document: Mapping[str, Any] | None = None
    failure: Mapping[str, Any] | None = None
    version: DocumentVersion | None = None


class Documents:
    """Read and write documents whose ids are known."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pictures, self._failures = connection.pictures, connection.failures
        # Called right before each bulk: raises where another process may write what is in it.
        self.before_write: Callable[[], None] = lambda: None

    def write(
        self, writes: Sequence[Write], *, refresh: bool = False
    ) -> dict[str, StoreError | None]:
        """Write in bulks of at most 10 MB; return the error of each id, None if stored.

        With `refresh` they are searchable at once instead of within the index's interval.

        The error of a whole bulk is raised; bulks before it may be written again.  An id is in the
        index or in the failures, never in both: writing to one deletes from the other in the same
        bulk.
        """
        ids = [write.image_id for write in writes]
        failed_before = dict(self._fetched(self._failures, ids, "attempts,failed_at"))
        encoded = [b"".join(self._lines(write, failed_before)) for write in writes]
        outcome: dict[str, StoreError | None] = {}
        for part in bulk_slices([len(each) for each in encoded]):
            body = b"".join(encoded[part])
            self.before_write()
            for result, error in bulk_results(self._connection, body, refresh=refresh):
                if outcome.get(result["_id"]) is None:
                    outcome[result["_id"]] = error
        return outcome

    def write_each(self, writes: Sequence[Write]) -> list[StoreError | None]:
        """Write; return one result per write, in order, as `BulkWriter` expects."""
        outcome = self.write(writes)
        return [outcome[each.image_id] for each in writes]

    def is_writable(self, image_id: str) -> bool:
        """Return True if something small can be written where this document goes.

        It deletes what does not exist from the same shards.
        """
        places = (self._pictures, self._failures)
        lines = [
            json_line({"delete": {"_index": each, "_id": _ABSENT_ID, "routing": image_id}})
            for each in places
        ]
        try:
            results = bulk_results(self._connection, b"".join(lines))
        except ImgSearchError:
            return False
        return all(error is None for _, error in results)

    def bulk(self, body: bytes, content_type: str) -> list[StoreError | None]:
        """Send an encoded bulk, NDJSON or SMILE; return one result per action, in order."""
        return [error for _, error in bulk_results(self._connection, body, content_type)]

    def write_failures(self, failures: Sequence[Mapping[str, Any]]) -> None:
        """Store failures unchanged, attempts included, and delete their pictures."""
        for start in range(0, len(failures), _BATCH):
            lines = []
            for each in failures[start : start + _BATCH]:
                image_id = each["image_id"]
                lines += [
                    action_line("index", self._failures, image_id),
                    json_line(each),
                    action_line("delete", self._pictures, image_id),
                ]
            for _, error in bulk_results(self._connection, b"".join(lines)):
                if error is not None:
                    raise error

    def delete(
        self,
        image_ids: Iterable[str],
        deleted: Callable[[Sequence[str]], None] = lambda _ids: None,
    ) -> None:
        """Delete pictures and failures with these ids, 500 per bulk.

        `deleted` gets the acknowledged ids, also if the rest raises.
        """
        remaining = iter(image_ids)
        while chunk := list(islice(remaining, _BATCH)):
            results = self.write([Write(each) for each in chunk])
            deleted([each for each in chunk if results[each] is None])
            for error in results.values():
                if error is not None:
                    raise error

    def _lines(
        self, write: Write, failed_before: Mapping[str, Mapping[str, Any]]
    ) -> Iterator[bytes]:
        image_id = write.image_id
        if write.document is not None:
            only_if = write.version._asdict() if write.version is not None else {}
            yield action_line("index", self._pictures, image_id, **only_if)
            yield json_line(write.document)
            if image_id in failed_before:
                yield action_line("delete", self._failures, image_id)
        elif write.failure is not None:
            before = failed_before.get(image_id, {})
            failed_at = write.failure.get("failed_at")
            # The same failure repeated: only the other half of its bulk was refused.
            if failed_at is None or failed_at != before.get("failed_at"):
                attempts = before.get("attempts", 1) + 1 if before else 1
                yield action_line("index", self._failures, image_id)
                yield json_line({**write.failure, "attempts": attempts})
            yield action_line("delete", self._pictures, image_id)
        else:
            yield action_line("delete", self._pictures, image_id)
            if image_id in failed_before:
                yield action_line("delete", self._failures, image_id)

    def existing(self, image_ids: Sequence[str]) -> set[str]:
        """Return the ids that have a document, refreshed or not."""
        return {each for each, _ in self._fetched(self._pictures, image_ids, "image_id")}

    def states(self, image_ids: Sequence[str]) -> dict[str, FileState]:
        """Return the stored file states of the ids that have a document."""
        sources = self._fetched(self._pictures, image_ids, "size_bytes,mtime_ns")
        return {each: FileState.stored(source) for each, source in sources}

    def attempts(self, image_ids: Sequence[str]) -> dict[str, int]:
        """Return the number of attempts of the ids that are failures."""
        sources = self._fetched(self._failures, image_ids, "attempts")
        return {each: source.get("attempts", 1) for each, source in sources}

    def failure(self, image_id: str) -> Mapping[str, Any] | None:
        """Read a failure; None if there is none of this id."""
        found = dict(self._fetched(self._failures, [image_id], "*"))
        return found.get(image_id)

    def embedded_by_content(
        self,
        content_ids: Sequence[str],
        fields: Sequence[str] = (),
        *,
        with_regions: bool = False,
    ) -> dict[str, Embedded]:
        """Read stored vectors by content_id, bit for bit (float32).

        Each comes with those of `fields` that the document has, and on request with its regions.
        """
        if not content_ids:
            return {}
        hits = self._connection.hits(
            self._pictures,
            {
                "size": len(content_ids),
                "_source": list(fields) or False,
                "track_total_hits": False,
                "query": {
                    "bool": {
                        "filter": [
                            {"terms": {"content_id": list(content_ids)}},
                            {"exists": {"field": VECTOR_FIELD}},
                        ],
                        **({"should": [stored_regions_clause()]} if with_regions else {}),
                    }
                },
                "collapse": {"field": "content_id"},
                "docvalue_fields": ["content_id", VECTOR_FIELD],
            },
            "fields,_source" + (",inner_hits" if with_regions else ""),
        )
        return {
            hit["fields"]["content_id"][0]: Embedded(
                parse_vector(hit["fields"][VECTOR_FIELD]),
                hit.get("_source", {}),
                [
                    Region(parse_box(each), parse_vector(each["fields"][REGION_VECTOR]))
                    for each in region_hits(hit)
                ],
            )
            for hit in hits
        }

    def highlighted(
        self, image_id: str, query: Mapping[str, Any], fields: Sequence[str]
    ) -> dict[str, list[str]]:
        """Return the values of a picture in which a query's words stand, by field."""
        whole = {
            "pre_tags": [""],
            "post_tags": [""],
            "number_of_fragments": 0,
            # Less than the server's own limit, beyond which it refuses the text.
            "max_analyzed_offset": 500_000,
            "fields": {each: {} for each in fields},
        }
        one = {"ids": {"values": [image_id]}}
        body = {
            "_source": False,
            "query": {"bool": {"filter": [one], "must": [query]}},
            "highlight": whole,
        }
        hits = self._connection.hits(self._pictures, body, "highlight")
        return {name: values for hit in hits for name, values in hit.get("highlight", {}).items()}

    def content_ids(self, image_ids: Sequence[str]) -> dict[str, str]:
        """Return the content_id of the ids that have a document."""
        sources = self._fetched(self._pictures, image_ids, "content_id")
        return {each: source["content_id"] for each, source in sources}

    def stored_fields(
        self, image_ids: Sequence[str], fields: Sequence[str]
    ) -> dict[str, Mapping[str, Any]]:
        """Read those of these fields that documents have, by id."""
        return dict(self._fetched(self._pictures, image_ids, ",".join(fields)))

    def sources(self, image_ids: Sequence[str]) -> dict[str, VersionedSource]:
        """Read the stored fields of documents, without vectors, by id; refreshed or not."""
        return {
            doc["_id"]: VersionedSource(
                doc["_source"], DocumentVersion(doc["_seq_no"], doc["_primary_term"])
            )
            for doc in self._fetched_whole(self._pictures, image_ids, None)
        }

    def sources_by_content(self, content_ids: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        """Read the stored fields of up to 1,000 searchable documents with these contents.

        As they are now; one that was deleted or got another content meanwhile as it was searchable.
        """
        if not content_ids:
            return ()
        query = {"bool": {"filter": [{"terms": {"content_id": list(content_ids)}}]}}
        body = {"query": query, "size": 2 * _BATCH, "track_total_hits": False}
        hits = self._connection.hits(self._pictures, body, "_id,_source")
        now = self.sources([hit["_id"] for hit in hits])
        found = []
        for hit in hits:
            current, searched = now.get(hit["_id"]), hit["_source"]
            is_same = current is not None and (
                current.source.get("content_id") == searched["content_id"]
            )
            found.append(current.source if current is not None and is_same else searched)
        return found

    def get(self, image_id: str) -> Mapping[str, Any]:
        """Read the stored fields of one picture, without its vector.  Raises ImageMissing."""
        try:
            answer = self._connection.send(document_request(self._pictures, image_id))
        except ImageMissing:
            raise ImageMissing(f"No picture has the image_id {image_id!r}.") from None
        source: Mapping[str, Any] = answer["_source"]
        return source

    def vector(self, image_id: str) -> npt.NDArray[np.float32]:
        """Read the vector of one picture, bit for bit.  Raises ImageMissing."""
        hits = self._connection.hits(
            self._pictures,
            {
                "query": {"ids": {"values": [image_id]}},
                "_source": False,
                "docvalue_fields": [VECTOR_FIELD],
            },
            "fields",
        )
        if not hits or VECTOR_FIELD not in hits[0].get("fields", {}):
            raise ImageMissing(f"No picture has the image_id {image_id!r}.")
        return parse_vector(hits[0]["fields"][VECTOR_FIELD])

    def _fetched(
        self, name: str, image_ids: Sequence[str], fields: str
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield id and source, with these fields, of the ids that have a document."""
        for doc in self._fetched_whole(name, image_ids, fields):
            yield doc["_id"], doc["_source"]

    def _fetched_whole(
        self, name: str, image_ids: Sequence[str], fields: str | None
    ) -> Iterator[Mapping[str, Any]]:
        """Yield the existing documents, with these or all fields.

        One request for each 1,000 ids.
        """
        for start in range(0, len(image_ids), _IDS_PER_REQUEST):
            answer = self._connection.request(
                "POST",
                f"/{name}/_mget",
                {"ids": list(image_ids[start : start + _IDS_PER_REQUEST])},
                params={
                    **({} if fields is None else {"_source_includes": fields}),
                    "filter_path": _FETCHED,
                },
            )
            for doc in answer.get("docs", ()):
                # A document that could not be looked up is not absent.
                if "error" in doc and (error := multi_get_error(doc["error"])) is not None:
                    raise error
                if "_source" in doc:
                    yield doc
