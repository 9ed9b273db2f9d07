"""`init` on servers of other versions: the real one, which says that it is another."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from es_imgsearch.elastic.store import Store


@contextmanager
def of_version(es_url: str, version: str) -> Iterator[str]:
    """A relay to the server that answers `GET /` with this version."""
    real = urlsplit(es_url)

    class Relay(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            connection = http.client.HTTPConnection(real.hostname or "", real.port)
            sent = self.rfile.read(int(self.headers.get("content-length", 0)))
            kept = {name: self.headers[name] for name in ("accept", "content-type")}
            connection.request(
                self.command, self.path, sent, {name: kept[name] for name in kept if kept[name]}
            )
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            if self.path == "/":
                body = b'{"version": {"number": "%s"}}' % version.encode()
            self.send_response(answer.status)
            for name in ("content-type", "x-elastic-product"):
                self.send_header(name, answer.headers.get(name, ""))
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Relay) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def init(url: str, index: str) -> Result:
    arguments = ["init", "--encoder", "starter", "--index", index, "--es-url", url]
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("version", ["7.17.28", "8.17.5", "10.0.0"])
def test_it_is_refused_in_one_line_and_nothing_is_made(
    real_store: Store, es_url: str, version: str
) -> None:
    with of_version(es_url, version) as url:
        done = init(url, real_store.index)
    assert done.exit_code == 1
    assert done.stderr == (
        f"Error: Elasticsearch {version} is not supported: use a server of version 8.18 to 9.x.\n"
    )
    answer = real_store.connection.request("GET", f"/{real_store.index}*")
    assert answer == {}


def test_a_known_fault_is_a_warning(
    real_store: Store, es_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with of_version(es_url, "9.1.0") as url:
        done = init(url, real_store.index)
    assert done.exit_code == 0, done.stderr
    assert "Elasticsearch 9.1.0 reads the whole vectors past the page cache" in (
        done.stderr + caplog.text
    )
    assert real_store.info().meta.seal.name == "starter"
