"""A proxy before a server that refuses bodies over a limit, as nginx does."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<html><head><title>413 Request Entity Too Large</title></head></html>"
_OF_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: tuple[str, int]
    most_bytes: int
    reads_first: bool
    refused: list[int]

    def _pass_on(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        if size > self.most_bytes:
            self.refused.append(size)
            if self.reads_first:
                self.rfile.read(size)
            self.close_connection = True
            self._answer(413, {"server": "nginx", "content-type": "text/html"}, PAGE)
            return
        body = self.rfile.read(size) if size else None
        there = http.client.HTTPConnection(*self.target, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _OF_CONNECTION}
        there.request(self.command, self.path, body, headers)
        answer = there.getresponse()
        content = answer.read()
        self._answer(answer.status, dict(answer.getheaders()), content)
        there.close()

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _OF_CONNECTION:
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _pass_on  # noqa: N815 - names of http.server

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def small_bodies(
    url: str, most_bytes: int, *, reads_first: bool = True
) -> Iterator[tuple[str, list[int]]]:
    """Its address, and the sizes of what it refused.

    Without `reads_first` it answers and closes while the body is still being sent.
    """
    host, port = url.removeprefix("http://").split(":")
    refused: list[int] = []
    given = {
        "target": (host, int(port)),
        "most_bytes": most_bytes,
        "reads_first": reads_first,
        "refused": refused,
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), given))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", refused
    finally:
        server.shutdown()
        server.server_close()
