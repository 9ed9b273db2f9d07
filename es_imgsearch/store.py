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
from urllib.parse import quote

import elasticsearch
import numpy as np
import numpy.typing as npt
import orjson

from es_imgsearch.connection import item_error, missed_error, translated
from es_imgsearch.errors import (
    ImageMissing,
    IndexConflict,
    StoreBusy,
    StoreError,
    StoreRejected,
)
from es_imgsearch.mapping import (
    VECTOR_FIELD,
    Meta,
    failures_alias,
    failures_body,
    first_generation,
    index_body,
    template_body,
)
from es_imgsearch.records import FileState

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

_SEARCH_ANSWER = "took,hits.total,hits.hits._id,hits.hits._score,hits.hits._source,aggregations"


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
    """The concrete index behind the alias."""

    name: str
    meta: Meta
    properties: Mapping[str, Mapping[str, Any]]


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
        return ", ".join(str(node.base_url) for node in self.client.transport.node_pool.all())

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

    # -- the index itself ------------------------------------------------------------------

    def version(self) -> str:
        return str(self.request("GET", "/")["version"]["number"])

    def info(self) -> IndexInfo:
        """The index behind the alias.

        Raises IndexMissing, or IndexConflict where the name is not an alias of ours.
        """
        answer = self.request("GET", f"/{self.index}")
        if self.index in answer:
            raise IndexConflict(
                f"{self.index!r} is an index, not an alias made by `es-imgsearch init`:"
                " choose another --index, or remove it."
            )
        if len(answer) != 1:
            raise IndexConflict(
                f"Alias {self.index!r} points to {len(answer)} indices ({', '.join(answer)});"
                " it must point to one."
            )
        ((name, body),) = answer.items()
        mappings = body["mappings"]
        return IndexInfo(
            name=name,
            meta=Meta.from_body(mappings.get("_meta", {}), self.index),
            properties=mappings["properties"],
        )

    def create(self, meta: Meta, described: Iterable[Mapping[str, Any]] = ()) -> None:
        """Templates, the first generation of both indices, and their aliases.

        What an interrupted `create` left behind is completed, never replaced.
        """
        bodies = {self.index: index_body(meta, described), self.failures: failures_body()}
        for alias, body in bodies.items():
            self.request("PUT", f"/_index_template/{alias}", template_body(alias, body))
        # The pictures' alias comes last: where it exists, everything does.
        for alias in (self.failures, self.index):
            try:
                self.request(
                    "PUT",
                    f"/{first_generation(alias)}",
                    {**bodies[alias], "aliases": {alias: {"is_write_index": True}}},
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
        missing = sorted(wanted.keys() - info.properties.keys())
        if missing:
            self.request("PUT", f"/_index_template/{self.index}", template_body(self.index, body))
            added = {"properties": {name: wanted[name] for name in missing}}
            self.request("PUT", f"/{info.name}/_mapping", added)
        return missing

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
        failed_before = self.attempts([write.image_id for write in writes])
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
            error = None
            # Deleting a document that is not there is done; an index that is not there is not.
            was_absent = action == "delete" and result["status"] == 404 and "error" not in result
            if result["status"] >= 300 and not was_absent:
                error = item_error(result)
            if outcome.get(result["_id"]) is None:
                outcome[result["_id"]] = error
        return outcome

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

    def _lines(self, write: Write, failed_before: Mapping[str, int]) -> Iterator[bytes]:
        image_id = write.image_id
        if write.document is not None:
            yield _action("index", self.index, image_id)
            yield _line(write.document)
            if image_id in failed_before:
                yield _action("delete", self.failures, image_id)
        elif write.failure is not None:
            attempts = failed_before.get(image_id, 0) + 1
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

    def vectors_by_content(self, content_ids: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        """Stored vectors of these contents, exactly as they were written (float32)."""
        if not content_ids:
            return {}
        answer = self.request(
            "POST",
            f"/{self.index}/_search",
            {
                "size": len(content_ids),
                "_source": False,
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
                "filter_path": "hits.hits.fields",
                # What is on a shard that does not answer would be embedded again.
                "allow_partial_search_results": "false",
            },
        )
        hits = answer.get("hits", {}).get("hits", ())
        return {
            hit["fields"]["content_id"][0]: _vector(hit["fields"][VECTOR_FIELD]) for hit in hits
        }

    def content_ids(self, image_ids: Sequence[str]) -> dict[str, str]:
        """content_id of those of these ids that have a document."""
        found = self._fetched(self.index, image_ids, "content_id")
        return {each: source["content_id"] for each, source in found}

    def _fetched(
        self, name: str, image_ids: Sequence[str], field: str
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Id and source, with one field, of those of these ids that have a document."""
        answer = self.request(
            "POST",
            f"/{name}/_mget",
            {"ids": list(image_ids)},
            params={
                "_source_includes": field,
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
        lag = {
            "filter": {"range": {"indexed_at": {"gte": "now-24h"}}},
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
            fields = hit["fields"]
            state = FileState(fields["size_bytes"][0], fields["mtime_ns"][0])
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

    # -- searching -------------------------------------------------------------------------

    def search(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer, reduced to what hits are made of; never a partial one."""
        answer: Mapping[str, Any] = self.request(
            "POST",
            f"/{self.index}/_search",
            body,
            params={"filter_path": _SEARCH_ANSWER, "allow_partial_search_results": "false"},
        )
        return answer

    def get(self, image_id: str) -> Mapping[str, Any]:
        """Stored fields of one picture, without its vector."""
        try:
            path = f"/{self.index}/_doc/{quote(image_id, safe='')}"
            answer = self.request("GET", path)
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
        return _vector(hits[0]["fields"][VECTOR_FIELD])


def _action(action: str, index: str, image_id: str) -> bytes:
    return orjson.dumps({action: {"_index": index, "_id": image_id}}) + b"\n"


def _line(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(dict(document), option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"


def _vector(value: Any) -> npt.NDArray[np.float32]:
    # docvalue_fields wraps the vector in a list of one.
    if len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    return np.asarray(value, dtype=np.float32)
