"""Searches: hits in their order, pages, collapsed groups, and the aggregations of `status`."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.simulation.elastic.aggregations import aggregated
from tests.simulation.elastic.fields import format_date
from tests.simulation.elastic.indices import SimulatedIndex, StoredDocument
from tests.simulation.elastic.names import Names
from tests.simulation.elastic.queries import Queries
from tests.simulation.elastic.refusals import Refusal, failed_search
from tests.simulation.elastic.writes import Answer, picked

_KNOWN = {
    *("query", "size", "_source", "docvalue_fields", "track_total_hits", "sort", "search_after"),
    *("collapse", "seq_no_primary_term", "aggs", "knn", "from"),
}
_MOST_HITS = 10_000
# Sorts after every string and every number.
_LAST = (1,)


class Searching:
    """Searches and counts, of all indices."""

    def __init__(self, names: Names, now_ms: Callable[[], int]) -> None:
        self._names = names
        self._now_ms = now_ms

    def count(self, name: str, body: Mapping[str, Any]) -> Answer:
        """Count the searchable documents that match."""
        if body.keys() - {"query"}:
            raise NotImplementedError(f"_count {body}")
        indices = self._open(name)
        found = sum(1 for _ in self._matching(indices, body.get("query", {"match_all": {}})))
        shards = {"total": len(indices), "successful": len(indices), "skipped": 0, "failed": 0}
        return 200, {"count": found, "_shards": shards}

    def msearch(self, name: str, bodies: Sequence[Mapping[str, Any]]) -> Answer:
        """Run several searches."""
        responses = []
        for body in bodies:
            try:
                status, answer = self.search(name, body)
            except Refusal as refusal:
                status, answer = refusal.status, refusal.body()
            responses.append({**answer, "status": status})
        return 200, {"took": 0, "responses": responses}

    def search(self, name: str, body: Mapping[str, Any]) -> Answer:
        """Run a search."""
        if unknown := body.keys() - _KNOWN:
            raise NotImplementedError(f"_search with {sorted(unknown)}")
        indices = self._open(name)
        size, start = body.get("size", 10), body.get("from", 0)
        if size + start > _MOST_HITS:
            raise failed_search(
                "illegal_argument_exception",
                f"Result window is too large, from + size must be less than or equal to:"
                f" [{_MOST_HITS}] but was [{size + start}].",
            )
        scores: dict[str, float] = {}
        if "knn" in body:
            found = self._nearest(indices, body["knn"], scores)
        else:
            found = list(self._matching(indices, body.get("query", {"match_all": {}})))
            found.sort(key=lambda pair: _lucene_order(*pair))
            if "function_score" in body.get("query", {}):
                found, scores = _shuffled(found, body["query"]["function_score"]["random_score"])
        total = len(found)
        aggregations = body.get("aggs")
        answer: dict[str, Any] = {
            "took": 0,
            "timed_out": False,
            "_shards": {
                "total": len(indices),
                "successful": len(indices),
                "skipped": 0,
                "failed": 0,
            },
            "hits": {"total": {"value": total, "relation": "eq"}, "max_score": None, "hits": []},
        }
        if body.get("track_total_hits") is False:
            del answer["hits"]["total"]
        if aggregations:
            documents = [document for _, document in found]
            answer["aggregations"] = aggregated(documents, aggregations, self._queries(indices))
        page = self._page(found, body)[start : start + size]
        answer["hits"]["hits"] = [self._hit(*each, body, scores) for each in page]
        if page and "sort" not in body:
            answer["hits"]["max_score"] = answer["hits"]["hits"][0]["_score"]
        return 200, answer

    def _open(self, name: str) -> list[SimulatedIndex]:
        indices = self._names.resolve(name)
        for each in indices:
            each.check_open()
        return indices

    def _queries(self, indices: Sequence[SimulatedIndex]) -> Queries:
        if len(indices) != 1:
            raise NotImplementedError("aggregations over several indices")
        return Queries(indices[0], self._now_ms)

    def _matching(
        self, indices: Sequence[SimulatedIndex], query: Mapping[str, Any]
    ) -> Iterator[tuple[SimulatedIndex, StoredDocument]]:
        for index in indices:
            matches = Queries(index, self._now_ms).matching(query)
            for document in index.searchable.values():
                if matches(document):
                    yield index, document

    def _nearest(
        self,
        indices: Sequence[SimulatedIndex],
        knn: Mapping[str, Any],
        scores: dict[str, float],
    ) -> list[tuple[SimulatedIndex, StoredDocument]]:
        """Exact nearest neighbours, best first; fills in `scores`."""
        known = {"field", "query_vector", "k", "num_candidates", "filter", "rescore_vector"}
        if knn.keys() - known:
            raise NotImplementedError(f"knn with {sorted(knn)}")
        field, query = knn["field"], knn["query_vector"]
        for index in indices:
            _check_query_vector(index, field, query)
        filters = {"bool": {"filter": [*knn.get("filter", ()), {"exists": {"field": field}}]}}
        found = []
        for index, document in self._matching(indices, filters):
            scores[document.document_id] = (1 + _cosine(query, document.values[field][0])) / 2
            found.append((index, document))
        found.sort(key=lambda pair: -scores[pair[1].document_id])
        return found[: knn["k"]]

    def _page(
        self, found: list[tuple[SimulatedIndex, StoredDocument]], body: Mapping[str, Any]
    ) -> list[tuple[SimulatedIndex, StoredDocument]]:
        if fields := _sorted_by(body):
            found.sort(key=lambda pair: _place(pair[1], fields))
            if (after := body.get("search_after")) is not None:
                place = tuple(_LAST if each is None else (0, each) for each in after)
                found = [pair for pair in found if _place(pair[1], fields) > place]
        if "collapse" in body:
            (field,) = body["collapse"].values()
            first: dict[Any, tuple[SimulatedIndex, StoredDocument]] = {}
            for pair in found:
                first.setdefault(tuple(pair[1].values.get(field, ())), pair)
            found = list(first.values())
        return found

    def _hit(
        self,
        index: SimulatedIndex,
        document: StoredDocument,
        body: Mapping[str, Any],
        scores: Mapping[str, float],
    ) -> dict[str, Any]:
        score = None if "sort" in body else scores.get(document.document_id, 1.0)
        hit: dict[str, Any] = {"_index": index.name, "_id": document.document_id, "_score": score}
        if body.get("seq_no_primary_term"):
            hit |= {"_seq_no": document.seq_no, "_primary_term": document.term}
        wanted = body.get("_source", True)
        if wanted is not False:
            source = document.source
            hit["_source"] = source if wanted is True else picked(source, wanted)
        names = [*body.get("docvalue_fields", ()), *body.get("collapse", {}).values()]
        if fields := _doc_values(index, document.values, names):
            hit["fields"] = fields
        if names := _sorted_by(body):
            hit["sort"] = [min(document.values.get(each, (None,))) for each in names]
        for clause in body.get("query", {}).get("bool", {}).get("should", ()):
            if "inner_hits" in clause.get("nested", {}):
                nested = clause["nested"]
                inner = hit.setdefault("inner_hits", {})
                inner[nested["path"]] = _inner_hits(index, document, nested)
        return hit


def _sorted_by(body: Mapping[str, Any]) -> list[str]:
    fields = []
    for each in body.get("sort", ()):
        ((field, order),) = each.items()
        if order != "asc":
            raise NotImplementedError(f"the sort {each}")
        fields.append(field)
    return fields


def _place(document: StoredDocument, fields: Sequence[str]) -> tuple[Any, ...]:
    return tuple(
        (0, min(document.values[each])) if each in document.values else _LAST for each in fields
    )


def _lucene_order(index: SimulatedIndex, document: StoredDocument) -> tuple[Any, ...]:
    """Order without a sort: that of the index, then that of the writes."""
    fields = index.settings.get("index.sort.field", ())
    return index.name, _place(document, fields), document.seq_no


def _shuffled(
    found: list[tuple[SimulatedIndex, StoredDocument]], random_score: Mapping[str, Any]
) -> tuple[list[tuple[SimulatedIndex, StoredDocument]], dict[str, float]]:
    """An order that depends on seed and id alone; the server's is another one."""
    scores = {
        document.document_id: zlib.crc32(f"{random_score['seed']} {document.document_id}".encode())
        / 2**32
        for _, document in found
    }
    return sorted(found, key=lambda pair: -scores[pair[1].document_id]), scores


def _check_query_vector(index: SimulatedIndex, field: str, query: Sequence[float]) -> None:
    mapping = index.mapping.body["properties"][field]
    if mapping["dims"] != len(query):
        raise failed_search(
            "query_shard_exception",
            "failed to create query: The query vector has a different number of dimensions"
            f" [{len(query)}] than the document vectors [{mapping['dims']}].",
        )
    if mapping.get("similarity", "cosine") != "cosine":
        raise NotImplementedError(f"knn by {mapping['similarity']}")


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = math.sqrt(sum(each * each for each in one) * sum(each * each for each in other))
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths


def _doc_values(
    index: SimulatedIndex, values: Mapping[str, Sequence[Any]], names: Sequence[str]
) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name in names:
        if name not in values:
            continue
        kind = index.mapping.kind(name)
        stored = values[name]
        if kind == "keyword":
            found[name] = sorted(set(stored))
        elif kind in {"long", "integer", "byte"}:
            found[name] = sorted(stored)
        elif kind == "dense_vector":
            found[name] = [list(each) for each in stored]
        elif kind == "date":
            found[name] = [format_date(each) for each in sorted(stored)]
        elif kind == "boolean":
            found[name] = sorted(stored)
        else:
            raise NotImplementedError(f"docvalue_fields {name!r}, which is {kind}")
    return found


def _inner_hits(
    index: SimulatedIndex, document: StoredDocument, nested: Mapping[str, Any]
) -> dict[str, Any]:
    """The objects of a nested field, as hits."""
    path, wanted = nested["path"], nested["inner_hits"]
    hits = []
    for offset, source, values in document.values.get(path, ()):
        hit: dict[str, Any] = {
            "_index": index.name,
            "_id": document.document_id,
            "_nested": {"field": path, "offset": offset},
            "_score": 1.0,
            "_source": {
                name: source[name] for name in source if f"{path}.{name}" in wanted["_source"]
            },
        }
        if fields := _doc_values(index, values, wanted.get("docvalue_fields", ())):
            hit["fields"] = fields
        hits.append(hit)
    total = {"value": len(hits), "relation": "eq"}
    return {"hits": {"total": total, "max_score": 1.0, "hits": hits[: wanted.get("size", 3)]}}
