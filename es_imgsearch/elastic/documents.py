"""Documents by id: written in bulk, deleted, and what is stored of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from es_imgsearch.elastic.client import Requests
from es_imgsearch.elastic.error_mapping import item_error, missed_error
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.queries import to_json, vector_of
from es_imgsearch.elastic.region_queries import box_of, region_hits, stored_regions_clause
from es_imgsearch.elastic.requests import JSON, NDJSON, document_request
from es_imgsearch.errors import ImageMissing, StoreError
from es_imgsearch.records import REGION_VECTOR, Embedded, FileState, Region

# How long the server itself waits for a shard.  A bulk that outlasts our own request would be
# carried out later, over what was written since.
_BULK_WAIT = "10s"

_DELETED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Write:
    """What shall stand under one id: a picture's document, a failure, or (neither) nothing."""

    image_id: str
    document: Mapping[str, Any] | None = None
    failure: Mapping[str, Any] | None = None


class Documents(Requests):
    """What may be done with documents whose ids are known."""

    def write(self, writes: Sequence[Write]) -> dict[str, StoreError | None]:
        """One bulk; for every id None where it was acknowledged, else what went wrong.

        An id stands in the index or in the failures, never in both: what one gains the other
        loses in the same bulk.
        """
        ids = [write.image_id for write in writes]
        failed_before = dict(self._fetched(self.failures, ids, "attempts,failed_at"))
        body = b"".join(line for write in writes for line in self._lines(write, failed_before))
        outcome: dict[str, StoreError | None] = {}
        for result, error in self._bulk(body, NDJSON["content-type"], "_id,status,error"):
            if outcome.get(result["_id"]) is None:
                outcome[result["_id"]] = error
        return outcome

    def bulk(self, body: bytes, content_type: str) -> list[StoreError | None]:
        """One bulk of ready bytes, as NDJSON or SMILE; one result an action, in its order."""
        return [error for _, error in self._bulk(body, content_type, "status,error")]

    def _bulk(
        self, body: bytes, content_type: str, fields: str
    ) -> Iterator[tuple[Mapping[str, Any], StoreError | None]]:
        """These fields of every action's result, in their order, and what went wrong."""
        answer = self.request(
            "POST",
            "/_bulk",
            body,
            params={
                "require_alias": "true",
                "timeout": _BULK_WAIT,
                "filter_path": ",".join(f"items.*.{each}" for each in fields.split(",")),
            },
            headers={**JSON, "content-type": content_type},
        )
        for item in answer["items"]:
            ((action, result),) = item.items()
            yield result, None if _is_done(action, result) else item_error(result)

    def delete(
        self,
        image_ids: Iterable[str],
        deleted: Callable[[Sequence[str]], None] = lambda _ids: None,
    ) -> None:
        """Remove everything under these ids, as many at once as a bulk takes well.

        `deleted` is told of what was acknowledged, also where the rest raises.
        """
        remaining = iter(image_ids)
        while chunk := list(islice(remaining, _DELETED_AT_ONCE)):
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
            yield action_line("index", self.pictures, image_id)
            yield json_line(write.document)
            if image_id in failed_before:
                yield action_line("delete", self.failures, image_id)
        elif write.failure is not None:
            before = failed_before.get(image_id, {})
            failed_at = write.failure.get("failed_at")
            # The same failure once more: only the other half of its bulk was refused.
            if failed_at is None or failed_at != before.get("failed_at"):
                attempts = before.get("attempts", 1) + 1 if before else 1
                yield action_line("index", self.failures, image_id)
                yield json_line({**write.failure, "attempts": attempts})
            yield action_line("delete", self.pictures, image_id)
        else:
            yield action_line("delete", self.pictures, image_id)
            if image_id in failed_before:
                yield action_line("delete", self.failures, image_id)

    def existing(self, image_ids: Sequence[str]) -> set[str]:
        """Those of these ids that have a document, refreshed or not."""
        return {each for each, _ in self._fetched(self.pictures, image_ids, "image_id")}

    def states(self, image_ids: Sequence[str]) -> dict[str, FileState]:
        """In what state their files were, of those of these ids that have a document."""
        found = self._fetched(self.pictures, image_ids, "size_bytes,mtime_ns")
        return {each: FileState.stored(source) for each, source in found}

    def attempts(self, image_ids: Sequence[str]) -> dict[str, int]:
        """How often reading was tried, of those of these ids that are failures."""
        found = self._fetched(self.failures, image_ids, "attempts")
        return {each: source.get("attempts", 1) for each, source in found}

    def embedded_by_content(
        self,
        content_ids: Sequence[str],
        fields: Sequence[str] = (),
        *,
        with_regions: bool = False,
    ) -> dict[str, Embedded]:
        """Stored vectors of these contents, exactly as they were written (float32).

        With them come those of these fields that the document has, and its regions if asked for.
        """
        if not content_ids:
            return {}
        answer = self.request(
            "POST",
            f"/{self.pictures}/_search",
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
            params={
                "filter_path": "hits.hits.fields,hits.hits._source"
                + (",hits.hits.inner_hits" if with_regions else ""),
                # What is on a shard that does not answer would be embedded again.
                "allow_partial_search_results": "false",
            },
        )
        hits = answer.get("hits", {}).get("hits", ())
        return {
            hit["fields"]["content_id"][0]: Embedded(
                vector_of(hit["fields"][VECTOR_FIELD]),
                hit.get("_source", {}),
                [
                    Region(box_of(each), vector_of(each["fields"][REGION_VECTOR]))
                    for each in region_hits(hit)
                ],
            )
            for hit in hits
        }

    def content_ids(self, image_ids: Sequence[str]) -> dict[str, str]:
        """content_id of those of these ids that have a document."""
        found = self._fetched(self.pictures, image_ids, "content_id")
        return {each: source["content_id"] for each, source in found}

    def stored_fields(
        self, image_ids: Sequence[str], fields: Sequence[str]
    ) -> dict[str, Mapping[str, Any]]:
        """These fields, as far as it has them, of each of these ids that has a document."""
        return dict(self._fetched(self.pictures, image_ids, ",".join(fields)))

    def get(self, image_id: str) -> Mapping[str, Any]:
        """Stored fields of one picture, without its vector."""
        try:
            answer = self.send(document_request(self.pictures, image_id))
        except ImageMissing:
            raise ImageMissing(f"No picture has the image_id {image_id!r}.") from None
        source: Mapping[str, Any] = answer["_source"]
        return source

    def vector(self, image_id: str) -> npt.NDArray[np.float32]:
        """One picture's vector, exactly as it was written.  Raises ImageMissing."""
        answer = self.request(
            "POST",
            f"/{self.pictures}/_search",
            {
                "query": {"ids": {"values": [image_id]}},
                "_source": False,
                "docvalue_fields": [VECTOR_FIELD],
            },
            params={"filter_path": "hits.hits.fields"},
        )
        hits = answer.get("hits", {}).get("hits", ())
        if not hits or VECTOR_FIELD not in hits[0].get("fields", {}):
            raise ImageMissing(f"No picture has the image_id {image_id!r}.")
        return vector_of(hits[0]["fields"][VECTOR_FIELD])

    def _fetched(
        self, name: str, image_ids: Sequence[str], fields: str
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Id and source, with these fields, of those of these ids that have a document."""
        answer = self.request(
            "POST",
            f"/{name}/_mget",
            {"ids": list(image_ids)},
            params={
                "_source_includes": fields,
                "filter_path": "docs._id,docs._source,docs.error",
            },
        )
        for doc in answer.get("docs", ()):
            # What could not be looked for is not absent.
            if "error" in doc and (error := missed_error(doc["error"])) is not None:
                raise error
            if "_source" in doc:
                yield doc["_id"], doc["_source"]


def _is_done(action: str, result: Mapping[str, Any]) -> bool:
    # Deleting a document that is not there is done; an index that is not there is not.
    was_absent = action == "delete" and result["status"] == 404 and "error" not in result
    return was_absent or result["status"] < 300


def action_line(action: str, index: str, image_id: str, **conditions: int) -> bytes:
    """What a bulk shall do with one document, under what conditions."""
    return json_line({action: {"_index": index, "_id": image_id, **conditions}})


def json_line(value: Mapping[str, Any]) -> bytes:
    """One line of a bulk."""
    return to_json(dict(value)) + b"\n"
