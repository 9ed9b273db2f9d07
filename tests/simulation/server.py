"""Simulated Elasticsearch: answers what the product asks as the real server does, in memory.

    server = SimulatedElasticsearch()
    client = new_client("http://simulated:9200", node_class=node_class(server))
    store = Store(client, "images")

It has no thread, no clock and no chance in it: a document becomes searchable by a refresh that is
asked for (`refresh_interval` does nothing; call `refresh`), and the same requests get the same
answers.  A request that it does not know raises NotImplementedError.  `before` may have any request
fail, see `faults`.  `tests/contract/test_simulated_server.py` compares it with the real server.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import orjson

from tests.simulation.elastic.admin import Admin
from tests.simulation.elastic.aliases import Aliases
from tests.simulation.elastic.faults import Before, Fault, NoAnswer, NoConnection
from tests.simulation.elastic.filter_path import filtered
from tests.simulation.elastic.names import Names
from tests.simulation.elastic.node import node_class
from tests.simulation.elastic.refusals import Refusal
from tests.simulation.elastic.searching import Searching
from tests.simulation.elastic.writes import Answer, Writes

__all__ = ["SimulatedElasticsearch", "node_class"]

HttpAnswer = tuple[int, dict[str, str], bytes]

_HEADERS = {
    "x-elastic-product": "Elasticsearch",
    "content-type": "application/vnd.elasticsearch+json;compatible-with=8",
}
_FLOODED = "index.blocks.read_only_allow_delete"
_VERSION = "8.19.13"
_NO_FAULT = Fault()
# Parameters that change nothing here.
_IGNORED = {"filter_path", "timeout", "master_timeout", "preference", "expand_wildcards"}
_IGNORED |= {"allow_partial_search_results", "max_num_segments", "level"}


def _no_fault(_method: str, _path: str) -> Fault | None:
    return None


class SimulatedElasticsearch:
    """A server of one node."""

    def __init__(
        self, *, before: Before = _no_fault, now_ms: Callable[[], int] = lambda: 0
    ) -> None:
        """`before` is asked at every request; `now_ms` is the clock that `now-24h` counts from."""
        self.before = before
        self.names = Names()
        self._admin, self._aliases = Admin(self.names), Aliases(self.names)
        self._writes = Writes(self.names)
        self._searching = Searching(self.names, now_ms)
        # A bulk of several threads of the caller is not interleaved with another request.
        self._lock = threading.Lock()

    def refresh(self, *names: str) -> None:
        """Make everything searchable, of these indices or of all: the refresh of each second."""
        with self._lock:
            for index in [self.names.indices[each] for each in names or self.names.indices]:
                index.refresh()

    def set_disk_full(self, full: bool) -> None:
        """Block writes to every index, or end that, as above the flood-stage watermark."""
        with self._lock:
            for index in self.names.indices.values():
                index.change_settings({_FLOODED: "true" if full else None})

    def handle(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> HttpAnswer:
        """Answer a request: status, headers and body.  `path` is quoted as in a request line.

        Raises NoConnection and NoAnswer, as a fault says, and NotImplementedError.
        """
        with self._lock:
            return self._handle(method, path, params or {}, headers or {}, body)

    def _handle(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> HttpAnswer:
        fault = self.before(method, path) or _NO_FAULT
        if fault.refused:
            raise NoConnection(f"{method} {path} was refused")
        if fault.lost and not fault.applied:
            raise NoAnswer(f"{method} {path} timed out")
        if "smile" in headers.get("content-type", ""):
            raise NotImplementedError("a body in SMILE")
        try:
            if fault.answer is not None:
                raise fault.answer
            status, answer = self._route(method, path, params, body, fault)
        except Refusal as refusal:
            status, answer = refusal.status, refusal.body()
        else:
            if "filter_path" in params and status < 400:
                answer = filtered(answer, params["filter_path"])
        content = orjson.dumps(answer)
        if fault.lost:
            raise NoAnswer(f"the answer to {method} {path} was lost")
        return status, _HEADERS, content

    def _route(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        body: bytes | None,
        fault: Fault,
    ) -> Answer:
        parts = [unquote(each) for each in path.split("/")[1:]]
        if parts == ["_bulk"] and method in {"POST", "PUT"}:
            _check_params(params, {"require_alias", "refresh"})
            return self._writes.bulk(
                body or b"", params, ends_after=fault.bulk_ends_after, failing=fault.items
            )
        if parts[-1] == "_msearch":
            lines = (body or b"").split(b"\n")
            return self._searching.msearch(parts[0], [orjson.loads(each) for each in lines[1:-1:2]])
        given = orjson.loads(body) if body else {}
        found = (
            self._on_cluster(method, parts, given)
            or self._on_documents(method, parts, params, given)
            or self._on_indices(method, parts, params, given)
        )
        if found is None:
            raise NotImplementedError(f"{method} {path} {dict(params)} {body!r:.500}")
        return found

    def _on_cluster(self, method: str, parts: Sequence[str], given: Any) -> Answer | None:
        match method, *parts:
            case ["GET", ""]:
                return 200, {
                    "name": "simulated",
                    "cluster_name": "simulated",
                    "cluster_uuid": "simulated",
                    "version": {"number": _VERSION, "build_flavor": "default"},
                    "tagline": "You Know, for Search",
                }
            case ["GET", "_nodes", *_]:
                # As for a key that may not see the nodes' memory.
                return 200, {}
            case ["POST", "_aliases"]:
                return self._aliases.change(given)
            case ["GET", "_alias", alias]:
                return self._aliases.get(alias)
            case ["PUT", "_index_template", name]:
                return self._admin.put_template(name, given)
            case ["DELETE", "_index_template", name]:
                return self._admin.delete_template(name)
        return None

    def _on_documents(
        self, method: str, parts: Sequence[str], params: Mapping[str, str], given: Any
    ) -> Answer | None:
        match method, *parts:
            case ["GET", name, "_doc", document_id]:
                _check_params(params, {"_source"})
                status, answer = self._writes.get(name, document_id)
                if params.get("_source") == "false":
                    answer = {key: each for key, each in answer.items() if key != "_source"}
                return status, answer
            case ["PUT", name, "_doc", document_id]:
                _check_params(
                    params,
                    {"op_type", "if_seq_no", "if_primary_term", "require_alias", "refresh"},
                )
                return self._writes.put(name, document_id, given, params)
            case ["DELETE", name, "_doc", document_id]:
                _check_params(params, {"if_seq_no", "if_primary_term", "refresh"})
                return self._writes.delete(name, document_id, params)
            case ["POST", name, "_mget"]:
                _check_params(params, {"_source_includes"})
                fields = params.get("_source_includes")
                return self._writes.mget(
                    name, given["ids"], None if fields is None else fields.split(",")
                )
            case ["POST" | "GET", name, "_count"]:
                return self._searching.count(name, given)
            case ["POST" | "GET", name, "_search"]:
                return self._searching.search(name, given)
        return None

    def _on_indices(
        self, method: str, parts: Sequence[str], params: Mapping[str, str], given: Any
    ) -> Answer | None:
        name, *rest = parts
        if name.startswith("_"):
            return None
        admin = self._admin
        routes: dict[tuple[str, ...], Callable[[], Answer]] = {
            ("GET",): lambda: admin.describe(name, params),
            ("PUT",): lambda: admin.create(name, given),
            ("DELETE",): lambda: admin.delete(name, params),
            ("POST", "_refresh"): lambda: admin.refresh(name),
            ("POST", "_forcemerge"): lambda: admin.refresh(name),
            ("PUT", "_mapping"): lambda: admin.put_mapping(name, given),
            ("PUT", "_settings"): lambda: admin.put_settings(name, given),
            ("GET", "_settings"): lambda: admin.get_settings(name, rest[1]),
            ("PUT", "_block"): lambda: admin.block(name, rest[1]),
            ("GET", "_stats"): lambda: admin.statistics(name),
            ("POST", "_close"): lambda: admin.set_closed(name, closed=True),
            ("POST", "_open"): lambda: admin.set_closed(name, closed=False),
        }
        route = routes.get((method, *rest[:1]))
        return None if route is None else route()


def _check_params(params: Mapping[str, str], known: set[str]) -> None:
    if unknown := params.keys() - known - _IGNORED:
        raise NotImplementedError(f"the parameters {sorted(unknown)}")
