"""Servers for a world: the simulated one, or a real Elasticsearch; and what they hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import elastic_transport

from es_imgsearch.elastic.server.http_node import HttpNode
from tests.simulation.transport import JSON_HEADERS, Answer, Server


def simulated_server(now_ms: Callable[[], int] = lambda: 0) -> Server:
    """Make an empty simulated server."""
    from tests.simulation.server import SimulatedElasticsearch

    server = SimulatedElasticsearch(now_ms=now_ms)

    def handle(method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        path, _, query = target.partition("?")
        lower = {name.lower(): value for name, value in headers.items()}
        parameters = dict(parse_qsl(query, keep_blank_values=True))
        return Answer(*server.handle(method, path, parameters, lower, _bytes(body)))

    return handle


def real_server(url: str) -> Server:
    """Return the way to a real server."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    config = elastic_transport.NodeConfig(
        parts.scheme, parts.hostname, parts.port or 9200, request_timeout=60.0
    )
    node = HttpNode(config)

    def handle(method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        answer = node.perform_request(
            method, target, _bytes(body), elastic_transport.HttpHeaders(headers)
        )
        return Answer(answer.meta.status, dict(answer.meta.headers), answer.body)

    return handle


def _bytes(body: bytes | str | None) -> bytes | None:
    return body.encode() if isinstance(body, str) else body


class Peek:
    """Read the server from outside of the world, without its faults."""

    def __init__(self, server: Server, index: str) -> None:
        self._server = server
        self._index = index

    def send(self, method: str, target: str, body: Any = None) -> dict[str, Any]:
        content = None if body is None else json.dumps(body).encode()
        headers = JSON_HEADERS | {"accept": "application/json"}
        answer = self._server(method, target, headers, content)
        parsed: dict[str, Any] = json.loads(answer.body) if answer.body else {}
        return parsed | {"status": answer.status}

    def pictures(self) -> dict[str, dict[str, Any]]:
        """Return the documents of pictures by id, with their vectors."""
        return self._documents(self._index, ["image_embedding"])

    def failures(self) -> dict[str, dict[str, Any]]:
        return self._documents(f"{self._index}-failures", [])

    def state(self, name: str) -> dict[str, Any] | None:
        """Return a state document."""
        return self.send("GET", f"/{self._index}-state/_doc/{name}").get("_source")

    def meta(self) -> dict[str, Any]:
        answer = self.send("GET", f"/{self._index}")
        status = answer.pop("status")
        assert status == 200, (status, answer)
        ((_, body),) = answer.items()
        meta: dict[str, Any] = body["mappings"]["_meta"]
        return meta

    def roots(self) -> list[str]:
        """Return the names of the registered roots."""
        document = self.state(f"roots:{self.meta()['index_id']}")
        return [each["name"] for each in document["body"]["roots"]] if document else []

    def _documents(self, name: str, fields: list[str]) -> dict[str, dict[str, Any]]:
        self.send("POST", f"/{name}/_refresh")
        body = {
            "size": 1000,
            "query": {"match_all": {}},
            "_source": True,
            **({"docvalue_fields": fields} if fields else {}),
        }
        answer = self.send("POST", f"/{name}/_search", body)
        # There is no index while it is made anew.
        return (
            {}
            if answer["status"] == 404
            else {
                hit["_id"]: hit["_source"]
                | {"vector": hit.get("fields", {}).get("image_embedding")}
                for hit in answer["hits"]["hits"]
            }
        )
