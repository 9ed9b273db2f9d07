"""The only module that talks to Elasticsearch.

Foreign errors become ours in `connection.translated`; bodies come from `mapping` and
`queries`, or are a line long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import elasticsearch
import numpy as np
import numpy.typing as npt
import orjson

from es_imgsearch.connection import (
    addresses,
    item_error,
    missed_error,
    search_error,
    translated,
)
from es_imgsearch.errors import (
    ImageMissing,
    IndexConflict,
    StoreBusy,
    StoreError,
    StoreRejected,
    StoreUnreachable,
)
from es_imgsearch.mapping import (
    VECTOR_FIELD,
    Meta,
    failures_alias,
    failures_body,
    first_generation,
    index_body,
    loading_body,
    template_body,
)
from es_imgsearch.queries import stored_vectors_body, to_json, vector_of
from es_imgsearch.records import Embedded, FileState
from es_imgsearch.talk import Request, document_request, info_request, search_request

_JSON = {"accept": "application/json", "content-type": "application/json"}
_NDJSON = {"accept": "application/json", "content-type": "application/x-ndjson"}
_META_TRIES = 5

# How long the server itself waits for a shard.  A bulk that outlasts our own request would be
# carried out later, over what was written since.
_BULK_WAIT = "10s"

_DELETED_AT_ONCE = 500

# 10,000 is the most one page may hold (index.max_result_window).  The index is sorted by root and
# path, so a page ends as soon as it is full; smaller pages only add requests.
_SCAN_PAGE = 10_000

# 3 MB of JSON, with vectors of 512 dims.
_SAMPLE_PAGE = 500


@dataclass(frozen=True, slots=True)
class Write:
    """What shall stand under one id: a picture's document, a failure, or (neither) nothing."""

    image_id: str
    document: Mapping[str, Any] | None = None
    failure: Mapping[str, Any] | None = None


class Stored(NamedTuple):
    """One line of a listing: where a document says its file is, and in what state."""

    stored_path: str
    state: FileState


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """The concrete index behind the alias.

    `is_loading`: it was made for a load that has not ended yet.
    """

    name: str
    meta: Meta
    properties: Mapping[str, Mapping[str, Any]]
    is_loading: bool = False

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any], alias: str) -> IndexInfo:
        """What the server says of an alias.

        Raises IndexConflict where the name is not an alias of ours.
        """
        if alias in answer:
            raise IndexConflict(
                f"{alias!r} is an index, not an alias made by `es-imgsearch init`:"
                " choose another --index, or remove it."
            )
        if len(answer) != 1:
            raise IndexConflict(
                f"Alias {alias!r} points to {len(answer)} indices ({', '.join(answer)});"
                " it must point to one."
            )
        ((name, body),) = answer.items()
        mappings = body["mappings"]
        return cls(
            name=name,
            meta=Meta.from_body(mappings.get("_meta", {}), alias),
            properties=mappings["properties"],
            is_loading=body["settings"]["index"].get("refresh_interval") == "-1",
        )


class Store:
    """One alias of pictures, the failures beside it, and what may be done with them.

    Every method raises errors of our tree only; `transient` ones may be tried again.
    """

    def __init__(self, client: elasticsearch.Elasticsearch, index: str) -> None:
        self.client = client
        self.index = index
        self.failures = failures_alias(index)

    @cached_property
    def address(self) -> str:
        """Where Elasticsearch is, without credentials."""
        return addresses(self.client)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The parsed answer to one request."""
        with translated(self.address, self.index):
            answer = self.client.perform_request(
                method, path, params=params, headers=headers or _JSON, body=body
            )
            return answer.body

    def send(self, request: Request) -> Any:
        """The parsed answer to a request whose path and body are ready."""
        return self.request(request.method, request.path, request.body, headers=request.headers)

    # -- the index itself ------------------------------------------------------------------

    def version(self) -> str:
        return str(self.request("GET", "/")["version"]["number"])

    def info(self) -> IndexInfo:
        """The index behind the alias.

        Raises IndexMissing, or IndexConflict where the name is not an alias of ours.
        """
        return IndexInfo.from_answer(self.send(info_request(self.index)), self.index)

    def create(
        self,
        meta: Meta,
        described: Iterable[Mapping[str, Any]] = (),
        *,
        for_loading: bool = False,
    ) -> None:
        """Templates, the first generation of both indices, and their aliases.

        What an interrupted `create` left behind is completed, never replaced.  `for_loading`:
        with vectors that are only stored, not searchable until `end_loading`.
        """
        bodies = {self.index: index_body(meta, described), self.failures: failures_body()}
        for alias, body in bodies.items():
            self.request("PUT", f"/_index_template/{alias}", template_body(alias, body))
        if for_loading:
            bodies[self.index] = loading_body(bodies[self.index])
        # The pictures' alias comes last: where it exists, everything does.
        for alias in (self.failures, self.index):
            self.make_generation(alias, bodies[alias])

    def make_generation(self, alias: str, body: Mapping[str, Any]) -> None:
        """The first index behind an alias; one that is there already stays as it is."""
        try:
            self.request(
                "PUT",
                f"/{first_generation(alias)}",
                {**body, "aliases": {alias: {"is_write_index": True}}},
            )
        except StoreRejected as error:
            if "resource_already_exists" not in str(error):
                raise

    def add_fields(self, info: IndexInfo, described: Iterable[Mapping[str, Any]] = ()) -> list[str]:
        """Map the fields that `create` would map today and the index lacks; their names.

        What is mapped already stays as it is.
        """
        body = index_body(info.meta, described)
        wanted = body["mappings"]["properties"]
        missing = sorted(
            name
            for name, mapping in wanted.items()
            if mapping.get("fields", {}).keys() - info.properties.get(name, {}).get("fields", {})
            or name not in info.properties
        )
        if missing:
            self.request("PUT", f"/_index_template/{self.index}", template_body(self.index, body))
            added = {"properties": {name: wanted[name] for name in missing}}
            self.request("PUT", f"/{info.name}/_mapping", added)
        return missing

    def end_loading(
        self, properties: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
    ) -> None:
        """Give vectors their graphs from now on, make everything searchable, and say so."""
        if properties:
            self.request("PUT", f"/{self.index}/_mapping", {"properties": properties})
        self.request("PUT", f"/{self.index}/_settings", {"index": settings})
        self.refresh()

    def merge(self, *, wait_seconds: float) -> bool:
        """Rewrite the pictures into one segment; False if it goes on after `wait_seconds`."""
        patient = Store(self.client.options(request_timeout=wait_seconds), self.index)
        try:
            patient.request("POST", f"/{self.index}/_forcemerge", params={"max_num_segments": "1"})
        except StoreUnreachable:
            return False
        return True

    def update_meta(self, change: Callable[[Meta], Meta]) -> Meta:
        """Read, change, write `_meta`, since the server replaces it whole.

        There is no compare-and-set for mappings, so the result is read back and the change
        applied again if another writer came between.
        """
        for _ in range(_META_TRIES):
            info = self.info()
            wanted = change(info.meta)
            if wanted == info.meta:
                return wanted
            self.request("PUT", f"/{info.name}/_mapping", {"_meta": wanted.to_body()})
            if change(read_back := self.info().meta) == read_back:
                return read_back
        raise StoreBusy(f"The _meta of {self.index!r} is being rewritten by others.")

    def refresh(self) -> None:
        self.request("POST", f"/{self.index},{self.failures}/_refresh")

    # -- documents -------------------------------------------------------------------------

    def write(self, writes: Sequence[Write]) -> dict[str, StoreError | None]:
        """One bulk; for every id None where it was acknowledged, else what went wrong.

        An id stands in the index or in the failures, never in both: what one gains the other
        loses in the same bulk.
        """
        ids = [write.image_id for write in writes]
        failed_before = dict(self._fetched(self.failures, ids, "attempts,failed_at"))
        body = b"".join(line for write in writes for line in self._lines(write, failed_before))
        answer = self.request(
            "POST",
            "/_bulk",
            body,
            params={
                "require_alias": "true",
                "timeout": _BULK_WAIT,
                "filter_path": "items.*._id,items.*.status,items.*.error",
            },
            headers=_NDJSON,
        )
        outcome: dict[str, StoreError | None] = {}
        for item in answer["items"]:
            ((action, result),) = item.items()
            error = None if _is_done(action, result) else item_error(result)
            if outcome.get(result["_id"]) is None:
                outcome[result["_id"]] = error
        return outcome

    def bulk(self, body: bytes, content_type: str) -> list[StoreError | None]:
        """One bulk of ready bytes, as NDJSON or SMILE; one result an action, in its order."""
        answer = self.request(
            "POST",
            "/_bulk",
            body,
            params={
                "require_alias": "true",
                "timeout": _BULK_WAIT,
                "filter_path": "items.*.status,items.*.error",
            },
            headers={"accept": "application/json", "content-type": content_type},
        )
        return [
            None if _is_done(action, result) else item_error(result)
            for item in answer["items"]
            for action, result in item.items()
        ]

    def existing(self, image_ids: Sequence[str]) -> set[str]:
        """Those of these ids that have a document, refreshed or not."""
        return {each for each, _ in self._fetched(self.index, image_ids, "image_id")}

    def page(
        self,
        filters: Sequence[Mapping[str, Any]],
        *,
        fields: Sequence[str],
        vectors: Sequence[str],
        size: int,
        after: Sequence[Any] | None,
    ) -> list[Mapping[str, Any]]:
        """The next hits in the order of root and path: these fields and, bit-exact, these vectors.

        `after` is the `sort` of the last hit before, None for the first page.
        """
        body: dict[str, Any] = {
            "query": {"bool": {"filter": list(filters)}},
            "_source": list(fields) or False,
            "docvalue_fields": list(vectors),
            "size": size,
            "track_total_hits": False,
            "sort": [{"root": "asc"}, {"relative_path": "asc"}],
        }
        if after is not None:
            body["search_after"] = list(after)
        answer = self.request(
            "POST",
            f"/{self.index}/_search",
            body,
            params={
                "filter_path": "hits.hits._source,hits.hits.fields,hits.hits.sort",
                "allow_partial_search_results": "false",
            },
        )
        hits: list[Mapping[str, Any]] = answer.get("hits", {}).get("hits", [])
        return hits

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
            yield _action("index", self.index, image_id)
            yield _line(write.document)
            if image_id in failed_before:
                yield _action("delete", self.failures, image_id)
        elif write.failure is not None:
            before = failed_before.get(image_id, {})
            failed_at = write.failure.get("failed_at")
            # The same failure once more: only the other half of its bulk was refused.
            if failed_at is None or failed_at != before.get("failed_at"):
                attempts = before.get("attempts", 1) + 1 if before else 1
                yield _action("index", self.failures, image_id)
                yield _line({**write.failure, "attempts": attempts})
            yield _action("delete", self.index, image_id)
        else:
            yield _action("delete", self.index, image_id)
            if image_id in failed_before:
                yield _action("delete", self.failures, image_id)

    def attempts(self, image_ids: Sequence[str]) -> dict[str, int]:
        """How often reading was tried, of those of these ids that are failures."""
        found = self._fetched(self.failures, image_ids, "attempts")
        return {each: source.get("attempts", 1) for each, source in found}

    def embedded_by_content(
        self, content_ids: Sequence[str], fields: Sequence[str] = ()
    ) -> dict[str, Embedded]:
        """Stored vectors of these contents, exactly as they were written (float32).

        With them come those of these fields that the document has.
        """
        if not content_ids:
            return {}
        answer = self.request(
            "POST",
            f"/{self.index}/_search",
            {
                "size": len(content_ids),
                "_source": list(fields) or False,
                "track_total_hits": False,
                "query": {
                    "bool": {
                        "filter": [
                            {"terms": {"content_id": list(content_ids)}},
                            {"exists": {"field": VECTOR_FIELD}},
                        ]
                    }
                },
                "collapse": {"field": "content_id"},
                "docvalue_fields": ["content_id", VECTOR_FIELD],
            },
            params={
                "filter_path": "hits.hits.fields,hits.hits._source",
                # What is on a shard that does not answer would be embedded again.
                "allow_partial_search_results": "false",
            },
        )
        hits = answer.get("hits", {}).get("hits", ())
        return {
            hit["fields"]["content_id"][0]: Embedded(
                vector_of(hit["fields"][VECTOR_FIELD]), hit.get("_source", {})
            )
            for hit in hits
        }

    def content_ids(self, image_ids: Sequence[str]) -> dict[str, str]:
        """content_id of those of these ids that have a document."""
        found = self._fetched(self.index, image_ids, "content_id")
        return {each: source["content_id"] for each, source in found}

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

    def ids_by_content(self, content_ids: Sequence[str]) -> Iterator[tuple[str, str]]:
        """(content_id, image_id) of every document with one of these contents."""
        body = {
            "query": {"terms": {"content_id": list(content_ids)}},
            "docvalue_fields": ["content_id"],
        }
        for hit in self._pages(self.index, body):
            yield hit["fields"]["content_id"][0], hit["_id"]

    def count(self, root_name: str | None = None, *, failures: bool = False) -> int:
        """Documents (or failures), of one root or of all, as far as they are searchable."""
        query = {"match_all": {}} if root_name is None else {"term": {"root": root_name}}
        name = self.failures if failures else self.index
        return int(self.request("POST", f"/{name}/_count", {"query": query})["count"])

    def counts_by_root(self, *, failures: bool = False) -> dict[str, int]:
        name = self.failures if failures else self.index
        answer = self.request(
            "POST",
            f"/{name}/_search",
            {"size": 0, "aggs": {"roots": {"terms": {"field": "root", "size": 10_000}}}},
        )
        return {b["key"]: b["doc_count"] for b in answer["aggregations"]["roots"]["buckets"]}

    def recent_by_root(self) -> dict[str, dict[str, Any]]:
        """When each root's last picture came, and the lag of the last 24 hours (ms)."""
        # Imported documents have none.
        has_lag = {"exists": {"field": "ingest_lag_ms"}}
        lag = {
            "filter": {
                "bool": {"filter": [{"range": {"indexed_at": {"gte": "now-24h"}}}, has_lag]}
            },
            "aggs": {
                "lag": {"percentiles": {"field": "ingest_lag_ms", "percents": [50, 95]}},
            },
        }
        aggregations = {"last": {"max": {"field": "indexed_at"}}, "recent": lag}
        by_root = {"terms": {"field": "root", "size": 10_000}, "aggs": aggregations}
        body = {"size": 0, "aggs": {"roots": by_root}}
        answer = self.request("POST", f"/{self.index}/_search", body)
        found = {}
        for bucket in answer["aggregations"]["roots"]["buckets"]:
            values = bucket["recent"]["lag"]["values"]
            pictures = bucket["recent"]["doc_count"]
            found[bucket["key"]] = {
                "last_indexed_at": bucket["last"].get("value_as_string"),
                "lag_ms": {"pictures": pictures, "p50": values["50.0"], "p95": values["95.0"]}
                if pictures
                else None,
            }
        return found

    def listing(
        self, root_name: str, folder: str = "", *, failures: bool = False
    ) -> Iterator[Stored]:
        """Every document of a root, or of one of its folders, in the order of its path's bytes.

        Sees what was refreshed before each page was asked for.  Memory is one page of 10,000.
        """
        filters: list[dict[str, Any]] = [{"term": {"root": root_name}}]
        if folder:
            filters.append({"prefix": {"relative_path": f"{folder}/"}})
        body = {
            "query": {"bool": {"filter": filters}},
            "docvalue_fields": ["size_bytes", "mtime_ns"],
        }
        name = self.failures if failures else self.index
        for hit in self._pages(name, body):
            fields = hit.get("fields", {})
            # An imported document need not say; then no file is like it.
            size_bytes, mtime_ns = (
                fields.get(each, [-1])[0] for each in ("size_bytes", "mtime_ns")
            )
            state = FileState(size_bytes, mtime_ns)
            yield Stored(hit["sort"][1], state)

    def without_vector(self, root_name: str) -> Iterator[str]:
        """Stored paths of documents that have lost their vector, which nobody can find."""
        missing = {"bool": {"must_not": [{"exists": {"field": VECTOR_FIELD}}]}}
        body = {"query": {"bool": {"filter": [{"term": {"root": root_name}}, missing]}}}
        for hit in self._pages(self.index, body):
            yield hit["sort"][1]

    def failed(self) -> Iterator[Mapping[str, Any]]:
        """Every failure's document, by root and path."""
        for hit in self._pages(self.failures, {"query": {"match_all": {}}, "_source": True}):
            yield hit["_source"]

    def _pages(self, name: str, body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Every hit, in the order in which the index itself is sorted.

        No point-in-time is held: root and path never change under one id, so a page that
        follows the last path of the page before misses nothing, and a listing that waits for
        hours on a full queue does not expire.
        """
        page = {
            "_source": False,
            **body,
            "size": _SCAN_PAGE,
            "track_total_hits": False,
            "sort": [{"root": "asc"}, {"relative_path": "asc"}],
        }
        while True:
            answer = self.request(
                "POST",
                f"/{name}/_search",
                page,
                params={
                    "filter_path": "hits.hits._id,hits.hits._source,hits.hits.fields,"
                    "hits.hits.sort",
                    "allow_partial_search_results": "false",
                },
            )
            hits = answer.get("hits", {}).get("hits", [])
            yield from hits
            if len(hits) < _SCAN_PAGE:
                return
            page["search_after"] = hits[-1]["sort"]

    def sample(
        self, count: int, seed: int, fields: Sequence[str] = ()
    ) -> Iterator[Mapping[str, Any]]:
        """Hits of at most `count` documents that have a vector, chosen at random.

        Each holds `_id`, `_source` with these fields, and in `fields` the vector exactly as it
        was written.  The same seed chooses the same of an unchanged index.
        """
        # The seed is mixed with the id, which unlike a sequence number survives another write.
        random = {
            "query": {"exists": {"field": VECTOR_FIELD}},
            "random_score": {"seed": seed, "field": "image_id"},
        }
        chosen = {"query": {"function_score": random}, "size": count, "_source": False}
        ids = [hit["_id"] for hit in self.search(chosen).get("hits", {}).get("hits", ())]
        for start in range(0, len(ids), _SAMPLE_PAGE):
            body = {
                **stored_vectors_body(ids[start : start + _SAMPLE_PAGE], [VECTOR_FIELD]),
                "_source": list(fields) or False,
            }
            yield from self.search(body).get("hits", {}).get("hits", ())

    # -- searching -------------------------------------------------------------------------

    def search(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer, reduced to what hits are made of; never a partial one."""
        answer: Mapping[str, Any] = self.send(search_request(self.index, to_json(body)))
        return answer

    def msearch(self, bodies: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
        """The hits of several searches in one round trip, in the order of `bodies`."""
        if not bodies:
            return []
        head = b'{"allow_partial_search_results":false}\n'
        answer = self.request(
            "POST",
            f"/{self.index}/_msearch",
            b"".join(head + _line(body) for body in bodies),
            # The status keeps the place of an answer without hits.
            params={
                "filter_path": "responses.status,responses.error,responses.hits.hits._id,"
                "responses.hits.hits._score,responses.hits.hits.fields"
            },
            headers=_NDJSON,
        )
        for each in answer["responses"]:
            if "error" in each:
                raise search_error(each)
        return [each.get("hits", {}).get("hits", []) for each in answer["responses"]]

    def get(self, image_id: str) -> Mapping[str, Any]:
        """Stored fields of one picture, without its vector."""
        try:
            answer = self.send(document_request(self.index, image_id))
        except ImageMissing:
            raise ImageMissing(f"No picture has the image_id {image_id!r}.") from None
        source: Mapping[str, Any] = answer["_source"]
        return source

    def vector(self, image_id: str) -> npt.NDArray[np.float32]:
        """One picture's vector, exactly as it was written.  Raises ImageMissing."""
        answer = self.request(
            "POST",
            f"/{self.index}/_search",
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


def _is_done(action: str, result: Mapping[str, Any]) -> bool:
    # Deleting a document that is not there is done; an index that is not there is not.
    was_absent = action == "delete" and result["status"] == 404 and "error" not in result
    return was_absent or result["status"] < 300


def _action(action: str, index: str, image_id: str) -> bytes:
    return orjson.dumps({action: {"_index": index, "_id": image_id}}) + b"\n"


def _line(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(dict(document), option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"
