"""Random requests on indices: create, delete, aliases, templates, mappings, closed ones."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.support.conformance import Both, Step


class IndexRequests:
    """Makes steps for several indices of one prefix, their aliases and a template."""

    def __init__(self, both: Both, prefix: str) -> None:
        self._both, self._prefix = both, prefix
        self.indices = [f"{prefix}-{n:06}" for n in range(3)]
        self.aliases = [f"{prefix}-{name}" for name in ("serving", "next")]

    def send(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        return self._both.send(Step(method, target, body))

    def run(self, data: st.DataObject, steps: int) -> None:
        kinds = [self.create, self.create, self.drop, self.actions, self.actions, self.describe]
        kinds += [self.template, self.remap, self.write, self.write, self.close]
        serving = {self.aliases[0]: {"is_write_index": True}}
        self.send("PUT", f"/{self.indices[0]}", {**data.draw(bodies()), "aliases": serving})
        self.send("PUT", f"/{self.indices[1]}", data.draw(bodies()))
        for _ in range(data.draw(st.integers(2, steps))):
            data.draw(st.sampled_from(kinds))(data)

    def clean(self) -> None:
        self.send("DELETE", f"/{','.join(self.indices)}?ignore_unavailable=true")
        self.send("DELETE", f"/_index_template/{self._prefix}")

    def _index(self, data: st.DataObject) -> str:
        # Names are new in each example, so their places are drawn.
        return self.indices[data.draw(st.sampled_from([0, 0, 1, 1, 2]))]

    def _alias(self, data: st.DataObject) -> str:
        return self.aliases[data.draw(st.sampled_from([0, 1]))]

    def _any(self, data: st.DataObject) -> str:
        return [*self.indices, *self.aliases][data.draw(st.sampled_from([0, 1, 2, 3, 3, 4]))]

    def _options(self, data: st.DataObject) -> dict[str, Any]:
        return data.draw(st.sampled_from([{}, {"is_write_index": True}, {"is_write_index": False}]))

    def create(self, data: st.DataObject) -> None:
        aliases = {
            self._any(data): self._options(data) for _ in range(data.draw(st.integers(0, 2)))
        }
        body = {**data.draw(bodies()), "aliases": aliases}
        name = [*self.indices, self.aliases[0]][data.draw(st.sampled_from([2, 2, 0, 1, 3]))]
        self.send("PUT", f"/{name}", body)

    def drop(self, data: st.DataObject) -> None:
        names = ",".join(self._any(data) for _ in range(data.draw(st.integers(1, 2))))
        query = data.draw(st.sampled_from(["", "?ignore_unavailable=true"]))
        self.send("DELETE", f"/{names}{query}")

    def describe(self, data: st.DataObject) -> None:
        self.send("GET", f"/{self._any(data)}")
        self.send("GET", f"/_alias/{self._any(data)}")
        self.send("GET", f"/{self._prefix}-0*?filter_path=*.aliases&expand_wildcards=all")
        parts = "indices.*.shards.*.routing.primary,indices.*.shards.*.seq_no"
        self.send("GET", f"/{self._any(data)}/_stats?level=shards&filter_path={parts}")

    def actions(self, data: st.DataObject) -> None:
        actions = []
        for _ in range(data.draw(st.integers(1, 4))):
            kind = data.draw(st.sampled_from(["add", "add", "remove", "remove", "remove_index"]))
            options: dict[str, Any] = {"index": self._index(data)}
            if kind != "remove_index":
                options["alias"] = self._alias(data)
            if kind == "add":
                options |= self._options(data)
            if kind == "remove":
                options |= data.draw(st.sampled_from([{}, {"must_exist": False}]))
            actions.append({kind: options})
        self.send("POST", "/_aliases", {"actions": actions})

    def template(self, data: st.DataObject) -> None:
        if data.draw(st.booleans()):
            self.send("DELETE", f"/_index_template/{self._prefix}")
            return
        patterns = [self.indices[0], self.aliases[0]]
        template = {"index_patterns": patterns, "priority": 200, "template": data.draw(bodies())}
        self.send("PUT", f"/_index_template/{self._prefix}", template)

    def remap(self, data: st.DataObject) -> None:
        body = data.draw(bodies())["mappings"]
        self.send("PUT", f"/{self._any(data)}/_mapping", body)
        settings = {"index": {"refresh_interval": data.draw(st.sampled_from(["5s", None]))}}
        self.send("PUT", f"/{self._any(data)}/_settings", settings)

    def write(self, data: st.DataObject) -> None:
        if data.draw(st.booleans()):
            self.send("PUT", f"/{self._any(data)}/_block/write")
        name = self._any(data)
        source = {"a": data.draw(st.sampled_from([1, "x"]))}
        self.send("PUT", f"/{name}/_doc/1?require_alias=true", source)
        meta = {"_index": self._any(data), "_id": "2"}
        lines = [{"index": meta}, source, {"delete": {**meta, "_index": self._any(data)}}]
        self.send("POST", "/_bulk?require_alias=true", lines)
        self.send("GET", f"/{self._any(data)}/_doc/1")
        self.send("POST", f"/{self._any(data)},{self._any(data)}/_refresh")
        self.send("POST", f"/{self._any(data)}/_search", {"query": {"match_all": {}}})
        self.send("POST", f"/{self._any(data)}/_mget", {"ids": ["1"]})

    def close(self, data: st.DataObject) -> None:
        name = self._any(data)
        self.send("POST", f"/{name}/_close")
        self.write(data)
        if data.draw(st.booleans()):
            self.send("POST", f"/{name}/_open")


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A small body of an index."""
    flat, graph = {"type": "flat"}, {"type": "hnsw", "m": 16, "ef_construction": 100}
    vector = {"type": "dense_vector", "dims": 4, "index": True, "similarity": "cosine"}
    fields: dict[str, list[dict[str, Any]]] = {
        "a": [
            {"type": "long"},
            {"type": "keyword"},
            {"type": "keyword", "ignore_above": 5},
            {"type": "keyword", "fields": {"text": {"type": "text"}}},
        ],
        "v": [
            {**vector, "index_options": flat},
            {**vector, "index_options": graph},
            {**vector, "dims": 8, "index_options": flat},
            {**vector, "similarity": "dot_product", "index_options": flat},
        ],
    }
    names = draw(st.sets(st.sampled_from(sorted(fields))))
    properties = {name: draw(st.sampled_from(fields[name])) for name in sorted(names)}
    mappings: dict[str, Any] = {"dynamic": "strict", "properties": properties}
    if draw(st.booleans()):
        mappings["_meta"] = {"seal": {draw(st.sampled_from("xy")): draw(st.integers(0, 2))}}
    return {
        "settings": {"refresh_interval": "-1", "number_of_replicas": 0},
        "mappings": mappings,
    }
