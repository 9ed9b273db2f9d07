"""The node that carries every request, against servers that answer, hang, hang up and compress."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import elastic_transport
import pytest
from elastic_transport import NodeConfig

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.server.http_node import HttpNode
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import StoreUnreachable
from es_imgsearch.settings import Settings

ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nWarning: one\r\nWarning: two\r\n"
    b"X-Elastic-Product: Elasticsearch\r\nContent-Length: 2\r\n\r\n{}"
)


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[NodeConfig]:
    """A server whose every connection is handled by `answer`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield NodeConfig("http", "127.0.0.1", listener.getsockname()[1], request_timeout=5)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def read_request(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65536)
        if not part:
            return b""
        received += part
    return received


def test_connections_are_kept_and_shared(es_url: str):
    host, port = es_url.removeprefix("http://").split(":")
    node = HttpNode(NodeConfig("http", host, int(port), connections_per_node=2))
    for _ in range(3):
        meta, body = node.perform_request("GET", "/")
        assert meta.status == 200
        assert meta.headers["content-type"].startswith("application/json")
        assert b"lucene_version" in body
    assert len(node._idle) == 1
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: node.perform_request("GET", "/"), range(40)))
    assert {meta.status for meta, _ in answers} == {200}
    assert len(node._idle) <= 2
    node.close()
    assert not node._idle


def test_a_connection_that_was_closed_meanwhile_is_replaced():
    closed = threading.Event()
    asked = []

    def answer(connection: socket.socket) -> None:
        asked.append(read_request(connection))
        connection.sendall(ANSWER)
        connection.close()
        closed.set()

    with server(answer) as config:
        node = HttpNode(config)
        for _ in range(3):
            closed.clear()
            meta, body = node.perform_request("GET", "/")
            assert (meta.status, body) == (200, b"{}")
            assert meta.headers["warning"] == "one, two"
            assert closed.wait(5)
        assert len(asked) == 3


def test_a_server_that_does_not_answer_is_a_timeout():
    released = threading.Event()

    def hang(connection: socket.socket) -> None:
        read_request(connection)
        released.wait(10)
        connection.close()

    with server(hang) as config:
        node = HttpNode(config)
        with pytest.raises(elastic_transport.ConnectionTimeout):
            node.perform_request("GET", "/", request_timeout=0.1)
        assert not node._idle
        released.set()


@pytest.mark.parametrize("garbage", [b"", b"hello\r\n\r\n", ANSWER[:-1]])
def test_half_an_answer_is_a_connection_error(garbage: bytes):
    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(garbage)
        connection.close()

    with server(answer) as config:
        node = HttpNode(config)
        with pytest.raises(elastic_transport.ConnectionError):
            node.perform_request("GET", "/")
        assert not node._idle


def test_paths_that_are_not_ascii_are_quoted():
    asked = []

    def answer(connection: socket.socket) -> None:
        asked.append(read_request(connection).split(b"\r\n")[0])
        connection.sendall(ANSWER)

    with server(answer) as config:
        node = HttpNode(config)
        node.perform_request("GET", "/bilder-ä/_search?a=b,c&d=%20")
        node.close()
    assert asked == [b"GET /bilder-%C3%A4/_search?a=b,c&d=%20 HTTP/1.1"]


def test_a_port_that_nobody_listens_on(settings: Settings):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        store = Store(connect(settings.model_copy(update={"es_url": url})), "none")
        with pytest.raises(StoreUnreachable, match="refused"):
            store.connection.version()
