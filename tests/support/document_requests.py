"""Random requests on documents: writes, bulks, blocks, listings; some of them are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import strategies as st

from tests.support.conformance import Both, Step
from tests.support.odd_documents import (
    BODY,
    DIMS,
    IDS,
    READ_BACK,
    chance,
    documents,
    queries,
    query_vectors,
)

BY_PATH = [{"root": "asc"}, {"relative_path": "asc"}]
KNN = {"field": "image_embedding", "k": 10, "num_candidates": 50}
RANDOM = {"seed": 0, "field": "root"}


class DocumentRequests:
    """Makes steps for one index with an alias; conditions refer to what was answered."""

    def __init__(self, both: Both, index: str) -> None:
        self._both, self._index, self._alias = both, index, f"{index}-alias"
        # The last number that each document was answered with.
        self._seq_nos: dict[str, int] = {}

    def send(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        status, answer = self._both.send(Step(method, target, body))
        if isinstance(answer, dict):
            items = [item for each in answer.get("items", ()) for item in each.values()]
            for each in [answer, *items]:
                if "_seq_no" in each:
                    self._seq_nos[each["_id"]] = each["_seq_no"]
        return status, answer

    def run(self, data: st.DataObject, steps: int) -> None:
        self._fill(data)
        kinds = [self.put, self.delete, self.get, self.bulk, self.bulk, self.refresh, self.refresh]
        kinds += [self.page, self.page, self.look, self.look, self.count, self.mget]
        kinds += [self.aggregate, self.block, self.vectors, self.vectors]
        for _ in range(data.draw(st.integers(3, steps))):
            data.draw(st.sampled_from(kinds))(data)

    def _fill(self, data: st.DataObject) -> None:
        lines: list[Any] = []
        for image_id in data.draw(st.lists(st.sampled_from(IDS), min_size=3, unique=True)):
            lines.append({"index": {"_index": self._alias, "_id": image_id}})
            lines.append(data.draw(documents(image_id, may_be_odd=False)))
        self.send("POST", "/_bulk?require_alias=true&refresh=true", lines)

    def try_values(self, values: list[tuple[str, Any]]) -> None:
        """Write a document with each of these fields, and search for it."""
        lines: list[Any] = []
        for number, (name, value) in enumerate(values):
            lines.append({"index": {"_index": self._alias, "_id": f"id{number}"}})
            lines.append({"root": "r", "relative_path": f"{number:03}", name: value})
        self.send("POST", "/_bulk?require_alias=true&refresh=true", lines)
        for name in sorted({each for each, _ in values}):
            body = {
                "query": {"exists": {"field": name}},
                "docvalue_fields": [name] if name in READ_BACK else [],
                "size": 100,
            }
            if name not in {"body", "regions"}:
                self.send("POST", f"/{self._alias}/_search", body)

    def create(self) -> None:
        """Make the index with its alias."""
        body = {**BODY, "aliases": {self._alias: {"is_write_index": True}}}
        self.send("PUT", f"/{self._index}", body)

    def drop(self) -> None:
        """Delete the index."""
        self._seq_nos.clear()
        self.send("DELETE", f"/{self._index}")

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """Delete the documents that a sequence leaves, and make that searchable."""
        try:
            yield
            ids = sorted(self._seq_nos)
            lines = [{"delete": {"_index": self._index, "_id": each}} for each in ids]
            if lines:
                self.send("POST", "/_bulk?refresh=true", lines)
            self._seq_nos.clear()
        except BaseException:
            # After a difference the two have other numbers: the next example begins anew.
            self.drop()
            self.create()
            raise

    def _condition(self, data: st.DataObject, image_id: str) -> dict[str, int]:
        if not data.draw(chance(3)):
            return {}
        # Numbers go on between examples, so whose it is is drawn, not the number.
        whose = data.draw(st.sampled_from([image_id, image_id, image_id, *IDS]))
        term = 2 if data.draw(chance(10)) else 1
        return {"if_seq_no": self._seq_nos.get(whose, 0), "if_primary_term": term}

    def _name(self, data: st.DataObject) -> str:
        names = [self._alias] * 8 + [self._index, "t-missing"]
        return names[data.draw(st.integers(0, len(names) - 1))]

    def put(self, data: st.DataObject) -> None:
        image_id = data.draw(st.sampled_from(IDS))
        params = {"require_alias": "true", **self._condition(data, image_id)}
        if len(params) == 1 and data.draw(chance(4)):
            params["op_type"] = "create"
        query = "&".join(f"{key}={value}" for key, value in params.items())
        target = f"/{self._name(data)}/_doc/{image_id}?{query}"
        self.send("PUT", target, data.draw(documents(image_id)))

    def delete(self, data: st.DataObject) -> None:
        image_id = data.draw(st.sampled_from(IDS))
        params = self._condition(data, image_id)
        query = "&".join(f"{key}={value}" for key, value in params.items())
        self.send("DELETE", f"/{self._alias}/_doc/{image_id}?{query}")

    def get(self, data: st.DataObject) -> None:
        query = data.draw(st.sampled_from(["", "?_source=false"]))
        self.send("GET", f"/{self._name(data)}/_doc/{data.draw(st.sampled_from(IDS))}{query}")

    def mget(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(IDS), max_size=4))
        fields = data.draw(st.sampled_from(["size_bytes,content_id", "*", "*_id", "title"]))
        params = f"_source_includes={fields}&filter_path=docs._id,docs._source,docs.error"
        self.send("POST", f"/{self._name(data)}/_mget?{params}", {"ids": ids})

    def bulk(self, data: st.DataObject) -> None:
        lines: list[Any] = []
        for _ in range(data.draw(st.integers(1, 4))):
            action = data.draw(st.sampled_from(["index", "index", "create", "delete"]))
            image_id = data.draw(st.sampled_from(IDS))
            meta: dict[str, Any] = {"_index": self._name(data), "_id": image_id}
            if action != "create":
                meta |= self._condition(data, image_id)
            if action == "delete" and data.draw(st.booleans()):
                meta["routing"] = data.draw(st.sampled_from(IDS))
            lines.append({action: meta})
            if action != "delete":
                lines.append(data.draw(documents(image_id)))
        params = "require_alias=true&timeout=10s"
        if data.draw(st.booleans()):
            params += "&filter_path=items.*._id,items.*.status,items.*.error"
        self.send("POST", f"/_bulk?{params}", lines)

    def refresh(self, data: st.DataObject) -> None:
        self.send("POST", f"/{data.draw(st.sampled_from([self._alias, self._index]))}/_refresh")

    def page(self, data: st.DataObject) -> None:
        """Page through a listing as `Connection.pages` does."""
        query: Any = data.draw(queries())
        body = {
            "query": query,
            "_source": data.draw(st.sampled_from([False, True, ["size_bytes", "content_id"]])),
            "docvalue_fields": data.draw(
                st.sampled_from([[], ["size_bytes", "content_id"], ["image_embedding", "format"]])
            ),
            "size": data.draw(st.sampled_from([1, 2, 10])),
            "track_total_hits": False,
            "sort": data.draw(st.sampled_from([BY_PATH, [*BY_PATH, {"size_bytes": "asc"}]])),
            "seq_no_primary_term": data.draw(st.booleans()),
        }
        parts = ",".join(
            f"hits.hits.{each}"
            for each in ("_id", "_source", "fields", "sort", "_seq_no", "_primary_term")
        )
        target = f"/{self._alias}/_search?filter_path={parts}&allow_partial_search_results=false"
        # Documents of one path come in any order: which of them a page ends with is free.
        while hits := self.unless_tied(target, body):
            if len(hits) < body["size"]:
                return
            body["search_after"] = hits[-1]["sort"]

    def unless_tied(self, target: str, body: dict[str, Any]) -> list[Any]:
        everything = {**body, "size": 100}
        _, answer = self._both.send_unordered(Step("POST", target, everything))
        sorts = [str(hit["sort"]) for hit in answer.get("hits", {}).get("hits", ())]
        if len(set(sorts)) < len(sorts):
            return []
        _, answer = self.send("POST", target, body)
        hits: list[Any] = answer.get("hits", {}).get("hits", [])
        return hits

    def look(self, data: st.DataObject) -> None:
        """Search as `Documents` and `Rewrites` do, without a sort."""
        nested = {
            "path": "regions",
            "query": {"match_all": {}},
            "inner_hits": {
                "size": 4,
                "_source": ["regions.box"],
                "docvalue_fields": ["regions.embedding"],
            },
        }
        ids = data.draw(st.lists(st.sampled_from(IDS), min_size=2))
        body = {
            "query": {
                "bool": {
                    "filter": [{"ids": {"values": ids}}, data.draw(queries())],
                    "should": [{"nested": nested}],
                }
            },
            "_source": True,
            "docvalue_fields": ["image_embedding", "perceptual_hash", "transparent"],
            "seq_no_primary_term": True,
            "size": 10,
        }
        self.send("POST", f"/{self._alias}/_search", body)
        self.send("POST", f"/{self._name(data)}/_search", {"query": data.draw(queries())})

    def vectors(self, data: st.DataObject) -> None:
        """Search as `embedded_by_content`, `sample` and clients do; all that match is asked for."""
        filters = [data.draw(queries()), {"exists": {"field": "image_embedding"}}]
        by_content = {
            "query": {"bool": {"filter": filters}},
            "collapse": {"field": "content_id"},
            "docvalue_fields": ["content_id"],
            "_source": False,
        }
        self.send("POST", f"/{self._alias}/_search?filter_path=hits.hits.fields", by_content)
        random = {"query": {"bool": {"filter": filters}}, "random_score": RANDOM}
        sample = {"query": {"function_score": random}, "size": 100, "_source": False}
        # A filter that can match nothing (of an unmapped field) hides a vector of other dims.
        nearest = [
            {
                "knn": {
                    **KNN,
                    "query_vector": vector,
                    "filter": filters[:1] if len(vector) == DIMS else [],
                },
                "_source": False,
            }
            for vector in data.draw(st.lists(query_vectors, min_size=1, max_size=2))
        ]
        self.send("POST", f"/{self._alias}/_search", nearest[0])
        lines = [line for each in [sample, *nearest] for line in ({}, each)]
        parts = "responses.hits.hits._id,responses.error,responses.status"
        self.send("POST", f"/{self._name(data)}/_msearch?filter_path={parts}", lines)

    def count(self, data: st.DataObject) -> None:
        self.send("POST", f"/{self._name(data)}/_count", {"query": data.draw(queries())})

    def aggregate(self, _data: st.DataObject) -> None:
        latest = {"last": {"max": {"field": "size_bytes"}}}
        terms = {"terms": {"field": "root", "size": 10_000}, "aggs": latest}
        self.send("POST", f"/{self._alias}/_search", {"size": 0, "aggs": {"roots": terms}})

    def block(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(["write", "read_only_allow_delete", "read_only"]))
        self.send("PUT", f"/{self._alias}/_settings", {"index": {"blocks": {name: True}}})
        try:
            self.bulk(data)
            self.put(data)
            self.delete(data)
            self.send("GET", f"/{self._alias}/_settings/index.blocks.write")
            self.send("PUT", f"/{self._index}/_mapping", {"_meta": {"blocked": name}})
        finally:
            self.send("PUT", f"/{self._alias}/_settings", {"index": {"blocks": {name: None}}})
