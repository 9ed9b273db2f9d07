"""Send the same requests to the simulated and to the real server, and compare the answers."""

from __future__ import annotations

import re
import threading
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import elastic_transport
import orjson
from elastic_transport import NodeConfig

from es_imgsearch.elastic.server.http_node import HttpNode
from tests.simulation.server import SimulatedElasticsearch, node_class

_SENT = {"accept": "application/json", "content-type": "application/json"}
_SENT_LINES = {"accept": "application/json", "content-type": "application/x-ndjson"}
# Parts of answers that the product does not read, or that differ between two real servers.
_FREE = {"took", "timed_out", "_shards", "index_uuid", "max_score", "_score", "caused_by", "phase"}
_FREE |= {
    "grouped",
    "failed_shards",
    "root_cause",
    "cluster_name",
    "cluster_uuid",
    "name",
    "version",
}
_FREE |= {"forced_refresh", "resource.id", "resource.type", "tagline", "_ignored"}
# Versions begin anew a minute after a deletion (index.gc_deletes).
_FREE |= {"_version"}
# Errors whose text says more than their type.
_EXACT = {
    "version_conflict_engine_exception",
    "index_not_found_exception",
    "resource_already_exists_exception",
    "aliases_not_found_exception",
}
_UNEQUAL = re.compile(r"/[\w-]{20,22}\]| \(current version \[\d+\]\)")
_NO_REFRESH = (b'"refresh_interval":"1s"', b'"refresh_interval":"900s"')
_LARGEST_FLOAT32 = 3.4e38
_SETTINGS = ("refresh_interval", "blocks", "sort")


class Step(NamedTuple):
    """One request; a body that is a list is sent as lines."""

    method: str
    target: str
    body: Any = None


class Exchange(NamedTuple):
    """A request of a real run, and the real server's answer."""

    method: str
    target: str
    body: bytes | None
    headers: Mapping[str, str]
    status: int
    answer: bytes

    def differs(self, simulated: SimulatedElasticsearch) -> str | None:
        """Send it to the simulated server; describe a difference of the answers."""
        path, _, query = self.target.partition("?")
        params = dict(parse_qsl(query, keep_blank_values=True))
        status, _, answer = simulated.handle(self.method, path, params, self.headers, self.body)
        real = self.status, comparable(orjson.loads(self.answer))
        found = status, comparable(orjson.loads(answer))
        if found == real:
            return None
        return f"{self.method} {self.target} {self.body!r:.500}\nreal {real}\nsimulated {found}"


def recording(exchanges: list[Exchange]) -> type[HttpNode]:
    """Make a class of nodes that note every exchange, one at a time.

    Indices are made without their refresh of each second, which would happen at any time.
    """
    lock = threading.Lock()

    class RecordingNode(HttpNode):
        def perform_request(self, method: str, target: str, *args: Any, **given: Any) -> Any:
            body = given.get("body")
            if body is not None and method == "PUT":
                body = given["body"] = body.replace(*_NO_REFRESH)
            with lock:
                answer = super().perform_request(method, target, *args, **given)
                sent = dict(given.get("headers") or {})
                status = answer.meta.status
                exchanges.append(Exchange(method, target, body, sent, status, answer.body))
            return answer

    return RecordingNode


class Both:
    """A real and a simulated server that get the same requests, or none while `is_idle`."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        config = NodeConfig("http", host, int(port), request_timeout=60)
        self.is_idle = False
        self.simulated = SimulatedElasticsearch()
        self._nodes: Sequence[elastic_transport.BaseNode] = (
            HttpNode(config),
            node_class(self.simulated)(config),
        )
        _, answer = self._nodes[0].perform_request("GET", "/", headers=_SENT)
        self.version = str(orjson.loads(answer)["version"]["number"])

    def close(self) -> None:
        for node in self._nodes:
            node.close()

    def send(self, step: Step) -> tuple[int, Any]:
        """Send a request to both; return status and body, which must be equal."""
        if self.is_idle:
            return 0, {}
        real, simulated = (answered(node, step) for node in self._nodes)
        assert simulated == real, f"{step}\nreal      {real}\nsimulated {simulated}"
        return real

    def send_unordered(self, step: Step) -> tuple[int, Any]:
        """Send a search whose sort leaves the order of some hits free."""
        if self.is_idle:
            return 0, {}
        answers = []
        for node in self._nodes:
            status, body = answered(node, step)
            hits = body.get("hits", {}).get("hits", [])
            hits.sort(key=lambda hit: orjson.dumps(hit, option=orjson.OPT_SORT_KEYS))
            answers.append((status, body))
        real, simulated = answers
        assert simulated == real, f"{step}\nreal      {real}\nsimulated {simulated}"
        return real


def answered(node: elastic_transport.BaseNode, step: Step) -> tuple[int, Any]:
    """Send a request; return status and comparable body."""
    lines = isinstance(step.body, list)
    parts = step.body if lines else [step.body]
    body = b"\n".join(orjson.dumps(each) for each in parts) + b"\n" * lines
    answer = node.perform_request(
        step.method,
        step.target,
        body=None if step.body is None else body,
        headers=elastic_transport.HttpHeaders(_SENT_LINES if lines else _SENT),
    )
    return answer.meta.status, comparable(orjson.loads(answer.body))


# Of several, the server names them in the order of a hash.
_ALIASES = re.compile(r"(?<=^aliases \[).*(?=\] missing$)")


def _sorted_names(names: re.Match[str]) -> str:
    return ", ".join(sorted(names[0].split(", ")))


def comparable(body: Any) -> Any:
    """Reduce an answer to what the product reads of it."""
    plain = _reduced(body)
    if isinstance(plain, dict):
        for each in [plain, *plain.get("responses", ())]:
            hits = each.get("hits", {}).get("hits")
            if hits and "sort" not in hits[0]:
                # Without a sort the order depends on segments.
                hits.sort(key=lambda hit: orjson.dumps(hit, option=orjson.OPT_SORT_KEYS))
    return plain


def _reduced(value: Any) -> Any:
    if isinstance(value, list):
        return [_reduced(each) for each in value]
    if isinstance(value, float) and abs(value) < _LARGEST_FLOAT32:
        # The real server writes a float32 with fewer digits.
        return array("f", (value,))[0]
    if not isinstance(value, dict):
        return value
    if "type" in value and "reason" in value:
        kept = {"type": value["type"]}
        if value["type"] in _EXACT:
            kept["reason"] = _ALIASES.sub(_sorted_names, _UNEQUAL.sub("", value["reason"]))
        return kept
    if "mappings" in value and "settings" in value:
        return _described(value)
    return {key: _reduced(each) for key, each in value.items() if key not in _FREE}


def _described(index: Mapping[str, Any]) -> dict[str, Any]:
    """An index, as far as `IndexInfo` reads it."""
    mappings, settings = index["mappings"], index["settings"]["index"]
    return {
        "aliases": index["aliases"],
        "meta": mappings.get("_meta"),
        "source": mappings.get("_source"),
        "dynamic": mappings.get("dynamic"),
        "properties": {
            name: (
                each.get("type", "object"),
                each.get("dims"),
                sorted(each.get("fields", ())),
                sorted(each.get("properties", ())),
            )
            for name, each in mappings.get("properties", {}).items()
        },
        "settings": {name: settings[name] for name in _SETTINGS if name in settings},
    }
