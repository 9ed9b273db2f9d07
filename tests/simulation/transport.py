"""The way between the product's client and a server: latency, outages, lost requests and answers.

The server is a function that takes a request and returns an answer: the simulated server, or the
real one over HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import elastic_transport
from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig, TransportApiResponse

from tests.simulation.machine.scheduler import Scheduler

JSON_HEADERS = {"content-type": "application/json", "x-elastic-product": "Elasticsearch"}


class Answer(NamedTuple):
    """Status, headers and body of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Server = Callable[[str, str, Mapping[str, str], bytes | None], Answer]


@dataclass(slots=True)
class Weather:
    """Probabilities of what may happen to a request."""

    lost_request: float = 0.0
    lost_answer: float = 0.0
    busy: float = 0.0
    half_bulk: float = 0.0
    # After a bulk that changed a document and not its failure, or the reverse, the process that
    # sent it is killed at once.
    crash: float = 0.0
    slow: float = 0.0


CALM = Weather()
STORM = Weather(lost_request=0.1, lost_answer=0.1, busy=0.1, half_bulk=0.3, slow=0.1)


class Network:
    """Carries requests to the server; `is_down` is an outage of it.

    `on_bulk` is called with the actions of a bulk and its answer, once it was applied.
    """

    def __init__(self, scheduler: Scheduler, server: Server) -> None:
        self._scheduler = scheduler
        self.server = server
        self.weather = CALM
        self.is_down = False
        # The shortest and the longest that a request takes without trouble, if it takes any time.
        self.least_seconds = 0.0
        self.latency_seconds = 0.05
        self.requests = 0
        # Begin of the present trouble, or None.
        self.trouble_since: float | None = None
        self.trouble_until = 0.0
        self.on_bulk: Callable[[list[Action], list[dict[str, Any]]], None] = lambda _a, _r: None

    def set(self, weather: Weather, *, is_down: bool = False) -> None:
        """Begin or end trouble."""
        if self.is_troubled:
            self.trouble_until = self._scheduler.seconds
        self.weather, self.is_down = weather, is_down
        recent = self._scheduler.seconds - self.trouble_until < 120
        if self.is_troubled and (self.trouble_since is None or not recent):
            self.trouble_since = self._scheduler.seconds

    @property
    def is_troubled(self) -> bool:
        return self.is_down or self.weather is not CALM

    @property
    def steady_since(self) -> float:
        """Time before which nothing waits for an answer any more."""
        now = self._scheduler.seconds
        if self.trouble_since is None:
            return now
        if self.is_troubled or now - self.trouble_until < 120:
            return self.trouble_since
        return now

    def carry(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, limit: float
    ) -> Answer:
        """Carry a request; raises as a node of elastic_transport does."""
        scheduler, chance, weather = self._scheduler, self._scheduler.random.random, self.weather
        self.requests += 1
        scheduler.switch()
        if self.least_seconds or chance() < 0.4:
            scheduler.sleep(self.least_seconds + self.latency_seconds * chance())
        if weather.slow and chance() < weather.slow:
            scheduler.sleep(limit * 0.9 * chance())
        if self.is_down or chance() < weather.lost_request:
            raise elastic_transport.ConnectionError("Connection refused")
        if chance() < weather.busy:
            return _busy()
        if target.startswith("/_bulk") and body is not None:
            answer = self._bulk(method, target, headers, body)
        else:
            answer = self.server(method, target, headers, body)
        scheduler.switch()
        if self.is_down or chance() < weather.lost_answer:
            raise elastic_transport.ConnectionTimeout("Connection timed out")
        if chance() < 0.2:
            scheduler.sleep(self.latency_seconds * chance())
        return answer

    def _bulk(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Apply a bulk, or only some of its actions; the others are refused as busy."""
        actions = parse_bulk(body)
        chance = self._scheduler.random.random
        is_half = chance() < self.weather.half_bulk
        applied = [not is_half or chance() < 0.5 for _ in actions]
        # An id whose document and failure are changed by one bulk, of which only one was.
        fates: dict[str, set[bool]] = {}
        for each, is_applied in zip(actions, applied, strict=True):
            fates.setdefault(each.document_id, set()).add(is_applied)
        is_torn = any(len(each) > 1 for each in fates.values())
        results: list[dict[str, Any]] = []
        kept = [each for each, is_applied in zip(actions, applied, strict=True) if is_applied]
        if kept:
            answer = self.server(method, target, headers, b"".join(each.lines for each in kept))
            if answer.status != 200:
                return answer
            results = json.loads(answer.body)["items"]
            self.on_bulk(kept, results)
        task = self._scheduler.current
        if is_torn and task is not None and chance() < self.weather.crash:
            task.process.kill()
        remaining = iter(results)
        items = [
            next(remaining) if is_applied else each.refused()
            for each, is_applied in zip(actions, applied, strict=True)
        ]
        return Answer(200, JSON_HEADERS, json.dumps({"items": items}).encode())


class Action(NamedTuple):
    """One action of a bulk."""

    kind: str
    index_name: str
    document_id: str
    lines: bytes

    def refused(self) -> dict[str, Any]:
        error = {"type": "es_rejected_execution_exception", "reason": "the queue is full"}
        return {self.kind: {"_id": self.document_id, "status": 429, "error": error}}


def parse_bulk(body: bytes) -> list[Action]:
    """Split a bulk into its actions."""
    actions = []
    lines = iter(body.splitlines(keepends=True))
    for line in lines:
        ((kind, where),) = json.loads(line).items()
        source = b"" if kind == "delete" else next(lines)
        actions.append(Action(kind, where["_index"], where["_id"], line + source))
    return actions


def _busy() -> Answer:
    error = {"type": "circuit_breaking_exception", "reason": "too busy"}
    body = {"error": {**error, "root_cause": [error]}, "status": 429}
    return Answer(429, JSON_HEADERS, json.dumps(body).encode())


class WorldNode(elastic_transport.BaseNode):
    """Node of the client that sends through a `Network`."""

    network: Network

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        self._config = config

    def perform_request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: HttpHeaders | None = None,
        request_timeout: Any = None,
    ) -> Any:
        limit = request_timeout if isinstance(request_timeout, float) else 10.0
        answer = self.network.carry(method, target, headers or {}, body, limit)
        meta = ApiResponseMeta(
            node=self._config,
            duration=0.0,
            http_version="1.1",
            status=answer.status,
            headers=HttpHeaders(answer.headers),
        )
        return TransportApiResponse(meta, answer.body)

    def close(self) -> None:
        """Nothing is open."""


def node_class(network: Network) -> type[WorldNode]:
    """Return the class of nodes of a network."""
    return type("NodeOfNetwork", (WorldNode,), {"network": network})
