"""List, count and search stored documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from es_imgsearch.elastic.client import Connection, Hits, Retry, without_retry
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.queries import stored_vectors_body, to_json, to_msearch
from es_imgsearch.elastic.region_queries import stored_regions_clause
from es_imgsearch.elastic.requests import msearch_answers, msearch_request, search_request
from es_imgsearch.records import FileState, Partition


class IndexedFile(NamedTuple):
    """Path and state of a file, as its document stores them.

    `ctime_ns` is None in documents of earlier versions.  `failed_at_ns` is the time of a failure
    that is tried again if its file's ctime is later.
    """

    stored_path: str
    state: FileState
    ctime_ns: int | None = None
    failed_at_ns: int | None = None


class StoredContent(NamedTuple):
    """Path, file state and content id of a document."""

    stored_path: str
    state: FileState
    content_id: str


# A date of the camera's own clock, else a moment, else that of the file; see `search.filtering`.
_YEAR_SCRIPT = """
for (name in ['taken_local', 'taken_at', 'modified_at']) {
  if (doc.containsKey(name) && doc[name].size() > 0) { emit(doc[name].value.getYear()); return; }
}
"""


class Listings:
    """Lists and counts documents."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pictures, self._failures = connection.pictures, connection.failures

    def pages(
        self,
        filters: Sequence[Mapping[str, Any]],
        *,
        fields: Sequence[str],
        vectors: Sequence[str],
        size: int,
        with_regions: bool = False,
        retry: Retry = without_retry,
    ) -> Iterator[Hits]:
        """Page through hits by root and path, with these fields and vectors.

        Vectors are bit-exact.  `region_hits` reads the regions.  See `Connection.pages`.
        """
        # Without a filter the `should` clause, which only adds regions, would have to match.
        query = {
            "filter": [*filters, {"match_all": {}}],
            **({"should": [stored_regions_clause()]} if with_regions else {}),
        }
        body = {
            "query": {"bool": query},
            "_source": list(fields) or False,
            "docvalue_fields": list(vectors),
        }
        parts = "_source,fields" + (",inner_hits" if with_regions else "")
        return self._connection.pages(self._pictures, body, parts, size=size, retry=retry)

    def ids_by_content(self, content_ids: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield (content_id, image_id) of every document with one of these contents."""
        body = {
            "query": {"terms": {"content_id": list(content_ids)}},
            "docvalue_fields": ["content_id"],
        }
        for hit in self._hits(self._pictures, body):
            yield hit["fields"]["content_id"][0], hit["_id"]

    def count(
        self,
        root_name: str | None = None,
        within: Partition | None = None,
        *,
        failures: bool = False,
    ) -> int:
        """Count searchable documents (or failures) of a root, or its partition, or of all."""
        query = {"match_all": {}} if root_name is None else _of_root(root_name, within)
        return self._count(self._failures if failures else self._pictures, query)

    def count_matching(self, query: Mapping[str, Any]) -> int:
        """Count the documents that match a query."""
        return self._count(self._pictures, query)

    def _count(self, name: str, query: Mapping[str, Any]) -> int:
        return int(self._connection.request("POST", f"/{name}/_count", {"query": query})["count"])

    def counts_by_root(self, *, failures: bool = False) -> dict[str, int]:
        """Count documents (or failures) by root."""
        name = self._failures if failures else self._pictures
        answer = self._connection.request(
            "POST",
            f"/{name}/_search",
            {"size": 0, "aggs": {"roots": {"terms": {"field": "root", "size": 10_000}}}},
        )
        return {b["key"]: b["doc_count"] for b in answer["aggregations"]["roots"]["buckets"]}

    def counts_by_value(
        self, fields: Sequence[str], clauses: Sequence[Mapping[str, Any]], most_values: int
    ) -> dict[str, dict[str, int]]:
        """Count the pictures of each value of fields, the most frequent first.

        Only pictures that meet the clauses; `year` is the year in which a picture was taken, or
        last modified.
        """
        body = {
            "size": 0,
            "query": {"bool": {"filter": list(clauses)}},
            "runtime_mappings": {"year": {"type": "long", "script": _YEAR_SCRIPT}},
            "aggs": {each: {"terms": {"field": each, "size": most_values}} for each in fields},
        }
        answer = self._connection.request("POST", f"/{self._pictures}/_search", body)
        return {
            name: {
                str(each.get("key_as_string", each["key"])): each["doc_count"]
                for each in found["buckets"]
            }
            for name, found in answer.get("aggregations", {}).items()
        }

    def recent_by_root(self) -> dict[str, dict[str, Any]]:
        """Time of the last picture, and lag of the last 24 hours (ms), by root."""
        # Imported documents have no lag.
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
        answer = self._connection.request("POST", f"/{self._pictures}/_search", body)
        recent = {}
        for bucket in answer["aggregations"]["roots"]["buckets"]:
            values = bucket["recent"]["lag"]["values"]
            pictures = bucket["recent"]["doc_count"]
            recent[bucket["key"]] = {
                "last_indexed_at": bucket["last"].get("value_as_string"),
                "lag_ms": {"pictures": pictures, "p50": values["50.0"], "p95": values["95.0"]}
                if pictures
                else None,
            }
        return recent

    def stored(
        self,
        root_name: str,
        folder: str = "",
        within: Partition | None = None,
        *,
        failures: bool = False,
    ) -> Iterator[IndexedFile]:
        """List the documents of a root, of one of its folders, or of a partition.

        They are in byte order of their paths.  Sees what was refreshed before each page.  Memory:
        one page of 10,000.
        """
        body = {
            "query": _of_root(root_name, within, folder),
            "docvalue_fields": ["size_bytes", "mtime_ns", "ctime_ns"],
        }
        name = self._failures if failures else self._pictures
        for hit in self._hits(name, body):
            fields = hit.get("fields", {})
            # An imported document may lack them: -1 differs from every file.
            size_bytes, mtime_ns = (
                fields.get(each, [-1])[0] for each in ("size_bytes", "mtime_ns")
            )
            state = FileState(size_bytes, mtime_ns)
            yield IndexedFile(hit["sort"][1], state, fields.get("ctime_ns", [None])[0])

    def contents(self, root_name: str) -> Iterator[StoredContent]:
        """List the content ids of a root's documents; imported ones may have none."""
        filters = [{"term": {"root": root_name}}, {"exists": {"field": "content_id"}}]
        body = {
            "query": {"bool": {"filter": filters}},
            "docvalue_fields": ["size_bytes", "mtime_ns", "content_id"],
        }
        for hit in self._hits(self._pictures, body):
            fields = {name: values[0] for name, values in hit["fields"].items()}
            yield StoredContent(hit["sort"][1], FileState.stored(fields), fields["content_id"])

    def matching(self, root_name: str, query: Mapping[str, Any]) -> Iterator[str]:
        """List stored paths of a root's documents that match a query."""
        body = {"query": {"bool": {"filter": [{"term": {"root": root_name}}, query]}}}
        for hit in self._hits(self._pictures, body):
            yield hit["sort"][1]

    def having(
        self, root_name: str, field: str, *, prefix: str = "", folder: str = ""
    ) -> Iterator[str]:
        """List stored paths of a root's documents that have this field, with this prefix.

        With `folder` only those below this folder.
        """
        has: dict[str, Any] = {"exists": {"field": field}}
        if prefix:
            has = {"prefix": {field: prefix}}
        filters = [{"term": {"root": root_name}}, has]
        if folder:
            filters.append({"prefix": {"relative_path": f"{folder}/"}})
        for hit in self._hits(self._pictures, {"query": {"bool": {"filter": filters}}}):
            yield hit["sort"][1]

    def failed(
        self, root_name: str, folder: str = "", within: Partition | None = None
    ) -> Iterator[Mapping[str, Any]]:
        """List the failures of a root, or of one of its folders, by path; see `stored`."""
        fields = ["relative_path", "size_bytes", "mtime_ns", "error_class", "failed_at", "attempts"]
        body = {"query": _of_root(root_name, within, folder), "_source": fields}
        for hit in self._hits(self._failures, body):
            yield hit["_source"]

    def failures(self, root_name: str | None = None) -> Iterator[Mapping[str, Any]]:
        """List the documents of all failures, or of a root's, by root and path."""
        query = {"match_all": {}} if root_name is None else {"term": {"root": root_name}}
        for hit in self._hits(self._failures, {"query": query, "_source": True}):
            yield hit["_source"]

    def _hits(self, name: str, body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Iterate over all hits of a search, by root and path."""
        for page in self._connection.pages(name, body, "_id,_source,fields"):
            yield from page


def _of_root(root_name: str, within: Partition | None = None, folder: str = "") -> dict[str, Any]:
    filters: list[dict[str, Any]] = [{"term": {"root": root_name}}]
    if folder:
        filters.append({"prefix": {"relative_path": f"{folder}/"}})
    if within is not None:
        filters.append(within.clause())
    return {"bool": {"filter": filters}}


# 3 MB of JSON, with vectors of 512 dims.
_SAMPLE_PAGE = 500


class Searches:
    """Run searches among the pictures."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def sample(
        self,
        count: int,
        seed: int,
        fields: Sequence[str] = (),
        *,
        root_name: str | None = None,
    ) -> Iterator[Mapping[str, Any]]:
        """Draw at most `count` random documents that have a vector, of a root or all.

        Each hit has `_id`, `_source` with these fields, and in `fields` the vector, bit for bit.
        With the same seed an unchanged index yields the same sample.
        """
        # Mixed with the id, which unlike a sequence number survives another write.
        filters: list[dict[str, Any]] = [{"exists": {"field": VECTOR_FIELD}}]
        if root_name is not None:
            filters.append({"term": {"root": root_name}})
        random = {
            "query": {"bool": {"filter": filters}},
            "random_score": {"seed": seed, "field": "image_id"},
        }
        chosen = {"query": {"function_score": random}, "size": count, "_source": False}
        ids = [hit["_id"] for hit in self.hits(chosen)]
        for start in range(0, len(ids), _SAMPLE_PAGE):
            body = {
                **stored_vectors_body(ids[start : start + _SAMPLE_PAGE], [VECTOR_FIELD]),
                "_source": list(fields) or False,
            }
            yield from self.hits(body)

    def search(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run a search; return the answer, reduced to the parts of hits.

        Never returns a partial answer.
        """
        request = search_request(self._connection.pictures, to_json(body))
        answer: Mapping[str, Any] = self._connection.send(request)
        return answer

    def hits(self, body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Run a search and return its hits."""
        hits: Sequence[Mapping[str, Any]] = self.search(body).get("hits", {}).get("hits", ())
        return hits

    def msearch(self, bodies: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
        """Run several searches in one round trip; return the hits of each, in order."""
        if not bodies:
            return []
        request = msearch_request(self._connection.pictures, to_msearch(bodies))
        answer = self._connection.send(request)
        return [each.get("hits", {}).get("hits", []) for each in msearch_answers(answer)]
