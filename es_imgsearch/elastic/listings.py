"""What is stored, in order or counted; and the answers to searches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from es_imgsearch.elastic.client import Requests
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.queries import stored_vectors_body, to_json, to_msearch
from es_imgsearch.elastic.region_queries import stored_regions_clause
from es_imgsearch.elastic.requests import answers_of, msearch_request, search_request
from es_imgsearch.records import FileState

# 10,000 is the most one page may hold (index.max_result_window).  The index is sorted by root and
# path, so a page ends as soon as it is full; smaller pages only add requests.
_SCAN_PAGE = 10_000

# 3 MB of JSON, with vectors of 512 dims.
_SAMPLE_PAGE = 500


class Stored(NamedTuple):
    """One line of a listing: where a document says its file is, and in what state."""

    stored_path: str
    state: FileState


class Listings(Requests):
    """What is read of many documents."""

    def page(
        self,
        filters: Sequence[Mapping[str, Any]],
        *,
        fields: Sequence[str],
        vectors: Sequence[str],
        size: int,
        after: Sequence[Any] | None,
        with_regions: bool = False,
    ) -> list[Mapping[str, Any]]:
        """The next hits in the order of root and path: these fields and, bit-exact, these vectors.

        `after` is the `sort` of the last hit before, None for the first page.  `region_hits` reads
        the regions, if they are asked for.
        """
        # Without a filter the clause that only brings regions would have to match.
        query = {
            "filter": [*filters, {"match_all": {}}],
            **({"should": [stored_regions_clause()]} if with_regions else {}),
        }
        body: dict[str, Any] = {
            "query": {"bool": query},
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
            f"/{self.pictures}/_search",
            body,
            params={
                "filter_path": "hits.hits._source,hits.hits.fields,hits.hits.sort"
                + (",hits.hits.inner_hits" if with_regions else ""),
                "allow_partial_search_results": "false",
            },
        )
        hits: list[Mapping[str, Any]] = answer.get("hits", {}).get("hits", [])
        return hits

    def ids_by_content(self, content_ids: Sequence[str]) -> Iterator[tuple[str, str]]:
        """(content_id, image_id) of every document with one of these contents."""
        body = {
            "query": {"terms": {"content_id": list(content_ids)}},
            "docvalue_fields": ["content_id"],
        }
        for hit in self._pages(self.pictures, body):
            yield hit["fields"]["content_id"][0], hit["_id"]

    def count(self, root_name: str | None = None, *, failures: bool = False) -> int:
        """Documents (or failures), of one root or of all, as far as they are searchable."""
        query = {"match_all": {}} if root_name is None else {"term": {"root": root_name}}
        name = self.failures if failures else self.pictures
        return int(self.request("POST", f"/{name}/_count", {"query": query})["count"])

    def counts_by_root(self, *, failures: bool = False) -> dict[str, int]:
        name = self.failures if failures else self.pictures
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
        answer = self.request("POST", f"/{self.pictures}/_search", body)
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
        name = self.failures if failures else self.pictures
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
        for hit in self._pages(self.pictures, body):
            yield hit["sort"][1]

    def having(self, root_name: str, field: str, *, prefix: str = "") -> Iterator[str]:
        """Stored paths of a root's documents that have this field, with a value that begins so."""
        has: dict[str, Any] = {"exists": {"field": field}}
        if prefix:
            has = {"prefix": {field: prefix}}
        filters = [{"term": {"root": root_name}}, has]
        for hit in self._pages(self.pictures, {"query": {"bool": {"filter": filters}}}):
            yield hit["sort"][1]

    def failed(self) -> Iterator[Mapping[str, Any]]:
        """Every failure's document, by root and path."""
        for hit in self._pages(self.failures, {"query": {"match_all": {}}, "_source": True}):
            yield hit["_source"]

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

    def search(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer, reduced to what hits are made of; never a partial one."""
        answer: Mapping[str, Any] = self.send(search_request(self.pictures, to_json(body)))
        return answer

    def msearch(self, bodies: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
        """The hits of several searches in one round trip, in the order of `bodies`."""
        if not bodies:
            return []
        answer = self.send(msearch_request(self.pictures, to_msearch(bodies)))
        return [each.get("hits", {}).get("hits", []) for each in answers_of(answer)]

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
