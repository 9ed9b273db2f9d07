"""What an attacker sends is refused in good form, and the next search is answered.

The service runs as `serve` starts it, so that what uvicorn answers by itself is seen too.  Foreign
hosts and origins, odd ids, ranges and file names stand in `test_http_api.py` and
`test_serve_safely.py`.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import re
import socket
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from html.parser import HTMLParser
from http.client import HTTPResponse
from itertools import count
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx
import imagecodecs
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from es_imgsearch.records import image_id
from es_imgsearch.search.client import ImageSearch
from es_imgsearch.serve import guard
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.serve.tokens import COOKIE, new_token, read_hashes
from es_imgsearch.serve.traffic.access_log import AccessLog
from es_imgsearch.serve.traffic.connections import BoundedProtocol
from tests.support.gallery import served
from tests.support.house import House, house_of_module
from tests.support.picture_samples import png_chunk

pytestmark = [pytest.mark.es, pytest.mark.process]

ADDRESS: Final = "http://127.0.0.1:8080"
PICTURE: Final = image_id("r", "000.png")
SCRIPT: Final = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}"
MEGABYTE: Final = 1_000_000
# Between a search that answers and one that hangs.
_PATIENCE_SECONDS: Final = 60


@pytest.fixture(scope="module")
def house(es_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Five pictures, one of which is called as a script, and a broken one."""
    with house_of_module(es_url, tmp_path_factory.mktemp("attacks")) as house:
        house.pictures(4)
        house.picture("<script>alert(1)<script>.png", 4)
        (house.folder / "<img src=x onerror=alert(1)>.png").write_bytes(b"no picture")
        house.synced()
        house.store.refresh()
        yield house


def application(house: House, cache: Path, **options: Any) -> FastAPI:
    pictures = PictureFiles(house.store, house.settings, cache)
    search = ImageSearch(settings=house.settings, encoder=house.encoder)
    return create_app(
        pictures, SearchService(house.settings, search, originals=pictures), **options
    )


@pytest.fixture(scope="module")
def app(house: House, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return application(house, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def site(app: FastAPI) -> Iterator[str]:
    with served(app) as each:
        yield each


@pytest.fixture
def client(site: str) -> Iterator[httpx.Client]:
    """Whatever a test sends, the service answers the next search."""
    with httpx.Client(base_url=site, timeout=_PATIENCE_SECONDS) as each:
        yield each
        each.cookies.clear()
        answer = each.get("/api/v1/search", params={"q": "a red car", "k": 3})
        assert (answer.status_code, len(answer.json()["hits"])) == (200, 3)


def refused(answer: httpx.Response, *statuses: int) -> str:
    """The detail of a problem of one of these statuses."""
    assert answer.status_code in statuses, f"{answer.status_code} {answer.text[:300]}"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(answer.content) < 10_000
    return str(answer.json()["detail"])


def on_page(answer: httpx.Response, *statuses: int) -> str:
    """The text of a page of one of these statuses."""
    assert answer.status_code in statuses, f"{answer.status_code} {answer.text[:300]}"
    assert answer.headers["content-type"].startswith("text/html")
    checked_headers(answer)
    return answer.text


def checked_headers(answer: httpx.Response) -> None:
    """What every answer has."""
    assert answer.headers["x-content-type-options"] == "nosniff", answer.url
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    if answer.headers.get("content-type", "").startswith("text/html"):
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "base-uri 'none'" in policy
        assert "form-action 'self'" in policy


# -- paths and ids ---------------------------------------------------------------------------------

STEPS: Final = [
    "..", "../..", "%2e%2e", "%2e%2e%2f%2e%2e", "..%2f..", "..%5c..", "..\\..", ".%00.", "....//",
    "%c0%ae%c0%ae", "%252e%252e", "/etc", "//etc", "%2fetc", "file:", "static/..",
]  # fmt: skip


def raw(site: str, path: str, method: str = "GET", headers: str = "") -> httpx.Response:
    """Ask for a path as it is: clients make it tidy first."""
    sent = f"{method} {path} HTTP/1.1\r\nHost: {urlsplit(site).netloc}\r\n{headers}"
    return answered(site, f"{sent}Connection: close\r\n\r\n".encode("latin-1"))


def answered(site: str, content: bytes) -> httpx.Response:
    """Send bytes, and read the first answer."""
    with connected(site) as connection:
        with suppress(OSError):
            connection.sendall(content)
        answer = HTTPResponse(connection)
        answer.begin()
        read = answer.read()
        return httpx.Response(
            answer.status,
            headers=answer.getheaders(),
            content=read,
            request=httpx.Request("GET", site),
        )


def connected(site: str) -> socket.socket:
    parts = urlsplit(site)
    assert parts.hostname is not None
    assert parts.port is not None
    return socket.create_connection((parts.hostname, parts.port), timeout=_PATIENCE_SECONDS)


def received(connection: socket.socket) -> bytes:
    """What comes until the other end closes."""
    content = b""
    while part := connection.recv(65_536):
        content += part
    return content


class Markup(HTMLParser):
    """What a browser would run of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.runs: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script" and not str(given.get("src")).startswith("/static/"):
            self.runs.append(f"script {given}")
        if tag in {"style", "iframe", "object", "embed", "base", "meta"} and "http-equiv" in given:
            self.runs.append(tag)
        for name, value in attrs:
            leads = name in {"href", "src", "action", "formaction"}
            is_own = re.match(r"(/(?!/)|#|geo:|https?://(?!evil))", value or "")
            if name.startswith("on") or name == "style" or (leads and not is_own):
                self.runs.append(f"{tag} {name}={value}")


@pytest.mark.parametrize("step", STEPS)
def test_no_path_leads_out(client: httpx.Client, site: str, step: str) -> None:
    static = re.search(r'href="(/static/[0-9a-f]+)/style.css"', client.get("/").text)
    assert static is not None
    for start in (
        static[1], "/static", "/images", "/thumbnails", "/previews", "/api/v1/images", "/queries",
        "/pictures",
    ):  # fmt: skip
        for end in ("etc/passwd", "rendering.py", f"{PICTURE}", ""):
            answer = raw(site, f"{start}/{step}/{end}")
            assert answer.status_code in {307, 400, 404, 405, 422}, (start, step, end)
            assert b"root:" not in answer.content
            assert b"import " not in answer.content
            checked_headers(answer)


@pytest.mark.parametrize(
    "asked",
    ["none", "0" * 31, "0" * 33, "A" * 32, "%00", "%0d%0aset-cookie:a=b", "é", "%ff",
     "'%20or%201=1", "_search", "*", "0" * 32, "x" * 3000, f"{PICTURE}%00",
     "%F0%9F%98%80", "null", "-1", "%3Cscript%3Ealert(1)"],
)  # fmt: skip
def test_ids_that_are_none(client: httpx.Client, asked: str) -> None:
    for path in ("images", "thumbnails", "previews", "api/v1/images"):
        refused(client.get(f"/{path}/{asked}"), 404, 422)
    refused(client.get(f"/api/v1/images/{asked}/similar"), 404, 422)
    for path in (f"/pictures/{asked}", f"/?like={asked}", f"/?q=a&unlike={asked}"):
        on_page(client.get(path, follow_redirects=True), 404, 400)
    answer = client.get(f"/queries/{asked}")
    assert answer.status_code == 404
    checked_headers(answer)


@pytest.mark.parametrize(
    "asked",
    ["", " ", "\ud800", "\0", "../../_cluster/health", "_search", "x" * 512, "x" * 513,
     "x" * 5000, "猫" * 171, "?", "a/b#c", "^2", "a^"],
)  # fmt: skip
@pytest.mark.parametrize("box", [None, [0, 0, 5, 5]])
def test_ids_in_a_body_that_are_none(client: httpx.Client, asked: str, box: Any) -> None:
    """An empty one, with a box, was a 500: the address of all documents was asked for."""
    for each in ({"like": [asked]}, {"q": "a", "unlike": [asked]}):
        content = json.dumps({**each, **({"box": box} if box and "like" in each else {})})
        headers = {"content-type": "application/json"}
        refused(client.post("/api/v1/search", content=content, headers=headers), 400, 404)


# -- who asks --------------------------------------------------------------------------------------

FOREIGN: Final = [
    {"origin": "null"}, {"origin": "http://evil.example"}, {"origin": ""}, {"origin": "http://["},
    {"origin": "http://127.0.0.1.evil.example"}, {"origin": "file://"}, {"origin": "é"},
    {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"sec-fetch-site": "x"},
]  # fmt: skip
POSTS: Final = ["/queries", "/login", "/logout", "/api/v1/search", "/api/v1/searches",
                "/api/v1/encode", "/api/v1/search-by-examples"]  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN)
def test_pages_of_other_sites_may_post_nothing(
    client: httpx.Client, headers: dict[str, str]
) -> None:
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    for path in POSTS:
        answer = client.post(path, data={"token": "x", "q": "a"}, headers=httpx.Headers(sent))
        refused(answer, 403)
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::1", "a b",
             "127.0.0.1@evil.example", "evil.example:80@127.0.0.1", "evil.example#127.0.0.1",
             "xn--lcalhost-54a", "0x7f.1", "évil"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/status", "/api/v1/search?q=a", f"/images/{PICTURE}"])
def test_foreign_hosts(client: httpx.Client, site: str, host: str, path: str) -> None:
    answer = answered(
        site, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    )
    refused(answer, 421, 400)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-http-method-override": "DELETE"}, {"x-http-method": "PUT"},
        {"x-forwarded-host": "evil.example"}, {"x-original-url": "/metrics"},
        {"x-rewrite-url": "/metrics"}, {"forwarded": "host=evil.example;proto=https"},
        {"x-forwarded-prefix": "//evil.example"}, {"x-forwarded-proto": "javascript"},
        {"accept-encoding": "gzip, br, zstd"}, {"te": "trailers"}, {"expect": "x"},
    ],
)  # fmt: skip
def test_headers_that_change_nothing(client: httpx.Client, headers: dict[str, str]) -> None:
    for path in ("/", "/healthz", "/status"):
        plain, asked = client.get(path), client.get(path, headers=headers)
        assert asked.status_code == plain.status_code == 200
        assert "evil" not in asked.text
        assert {"location", "set-cookie"}.isdisjoint(asked.headers)
        checked_headers(asked)


@pytest.mark.parametrize(
    "method", ["TRACE", "OPTIONS", "PUT", "DELETE", "PATCH", "CONNECT", "PROPFIND", "QUERY", "GETX",
               "get", "x" * 300],
)  # fmt: skip
def test_other_methods(client: httpx.Client, site: str, method: str) -> None:
    asked = (
        "Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n"
        "Access-Control-Request-Headers: authorization\r\nCookie: a=secret\r\n"
    )
    for path in ("/", "/api/v1/search", "/queries", f"/images/{PICTURE}", "/static/x", "/healthz"):
        answer = raw(site, path, method, asked)
        assert answer.status_code in {400, 403, 404, 405}, (method, path)
        refused(answer, answer.status_code)
        checked_headers(answer)
        assert b"secret" not in answer.content


# -- bodies ----------------------------------------------------------------------------------------


def test_an_endless_body_ends_with_the_answer(
    client: httpx.Client, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "linger_seconds", 0.2)
    head = (
        f"POST /api/v1/search HTTP/1.1\r\nHost: {urlsplit(site).netloc}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    with connected(site) as connection:
        connection.sendall(head.encode())
        sent = 0
        with suppress(ConnectionError):
            while sent < 10_000_000_000:
                connection.sendall(chunk)
                sent += len(chunk)
        assert sent < 10_000_000_000
    # A sender who reads gets the answer.
    answer = client.post(
        "/api/v1/search",
        content=(b" " * 65_536 for _ in range(400)),
        headers={"content-type": "application/json"},
    )
    assert "larger than 20 MB" in refused(answer, 413)


@pytest.mark.parametrize(
    "head", ["", "GET / HT", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: "]
)
def test_a_head_that_never_ends_is_given_up(
    client: httpx.Client, site: str, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvicorn itself waits for ever."""
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 0.2)
    with connected(site) as connection:
        connection.sendall(head.encode())
        assert received(connection) == b""
    # After an answer, too.
    with connected(site) as connection:
        netloc = urlsplit(site).netloc
        connection.sendall(f"GET /healthz HTTP/1.1\r\nHost: {netloc}\r\n\r\n".encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET / HT")
        received(connection)


@pytest.mark.parametrize("path", ["/queries", "/api/v1/search", "/api/v1/searches"])
@pytest.mark.parametrize("bound", ["BODY_IDLE_SECONDS", "BODY_SECONDS"])
def test_a_body_that_never_comes_is_given_up(
    client: httpx.Client, site: str, path: str, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, bound, 0.2)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {urlsplit(site).netloc}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    answer = answered(site, head.encode())
    if path != "/queries":
        refused(answer, 408)
    assert answer.status_code in {408, 400}


@pytest.mark.parametrize(
    "content",
    [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100,
     b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
     b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
     b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
     b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_request(client: httpx.Client, site: str, content: bytes) -> None:
    """uvicorn itself answers in plain text."""
    refused(answered(site, content), 400, 413, 421, 431, 501)


@pytest.mark.parametrize(
    "target",
    ["*", "http://evil.example/", "//evil.example/%2e%2e", "/%", "/?%", "/?%ff=%ff",
     "/?" + "&" * 5000, "/%00", "/\x7f"],
)  # fmt: skip
def test_odd_targets(client: httpx.Client, site: str, target: str) -> None:
    answer = raw(site, target)
    assert answer.status_code in {200, 303, 400, 404}, answer.text
    assert "evil" not in answer.headers.get("location", "")


def test_ten_megabytes_of_text(client: httpx.Client, site: str) -> None:
    text = "a" * (10 * MEGABYTE)
    for path in ("/api/v1/search", "/"):
        assert "POST" in refused(raw(site, f"{path}?q={text}"), 431)
    refused(raw(site, "/healthz", headers=f"X: {text}\r\n"), 431)
    too_long = "a" * MEGABYTE
    for path, sent in (("search", {"q": too_long}), ("encode", {"texts": [too_long]})):
        answer = client.post(f"/api/v1/{path}", json=sent)
        assert "at most 2000 long" in refused(answer, 400)
    assert "The JSON is longer than 4 MB" in refused(
        client.post("/api/v1/search", json={"q": text}), 400
    )
    asked = {"searches": [{"q": text}]}
    assert "at most 2000 long" in refused(client.post("/api/v1/searches", json=asked), 422)
    refused(client.post("/api/v1/search", data={"q": text}), 400)
    refused(client.post("/api/v1/search", files={"q": (None, text)}), 400)
    refused(client.post("/api/v1/search", json={text: 1}), 400)
    refused(client.post("/api/v1/search", json={"filter": [text], "q": "a"}), 400)
    refused(client.post("/api/v1/search", json={"cursor": text, "q": "a"}), 400)
    refused(client.post("/api/v1/search", json={"when": text, "q": "a"}), 400)
    refused(client.post("/api/v1/search", json={"since": text, "q": "a"}), 400)
    refused(client.post("/api/v1/search", json={"like": [text]}), 400, 404)
    refused(client.post("/api/v1/search", json={"image": text}), 400, 404)
    path = "/api/v1/search-by-examples"
    refused(client.post(path, json={"positive": [{"text": text}]}), 400)
    refused(client.post(path, json={"positive": [{"image_id": text}]}), 400, 404)


@pytest.mark.parametrize("path", ["/queries", "/api/v1/search", "/api/v1/encode"])
def test_a_thousand_parts(client: httpx.Client, path: str) -> None:
    pictures = [("image", (f"{n}.png", b"x")) for n in range(1000)]
    fields = [("q", (None, str(n))) for n in range(1000)]
    for parts in (pictures, fields):
        answer = client.post(path, files=parts)
        assert answer.status_code == 400
        checked_headers(answer)
    answer = client.post(path, content="&".join(f"q={n}" for n in range(1000)),
                         headers={"content-type": "application/x-www-form-urlencoded"})  # fmt: skip
    assert answer.status_code == 400
    nameless = b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--"
    many = b"--x\r\n" + b"A: b\r\n" * 5000
    for broken in (b"", b"--x", b"--x\r\n\r\n", nameless, many, b"--y\r\n\r\n--y--"):
        for kind in ("multipart/form-data; boundary=x", "multipart/form-data",
                     "multipart/form-data; boundary=" + "x" * 5000):  # fmt: skip
            answer = client.post(path, content=broken, headers={"content-type": kind})
            assert answer.status_code in {400, 422}, answer.text
            checked_headers(answer)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_body_is_never_decompressed(client: httpx.Client, encoding: str) -> None:
    content = gzip.compress(b" " * (50 * MEGABYTE) + b'{"q":"a"}')
    headers = {"content-type": "application/json", "content-encoding": encoding}
    for path in ("/api/v1/search", "/api/v1/searches", "/api/v1/encode"):
        refused(client.post(path, content=content, headers=headers), 400, 415, 422)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "text/html", "application/json5", "image/png", "x",
             "", "application/json, text/html", "multipart/mixed; boundary=x"],
)  # fmt: skip
def test_other_kinds_of_bodies(client: httpx.Client, kind: str) -> None:
    for path in ("/api/v1/search", "/api/v1/searches", "/api/v1/encode",
                 "/api/v1/search-by-examples"):  # fmt: skip
        answer = client.post(path, content=b'{"q":"a"}', headers={"content-type": kind})
        refused(answer, 415)


# -- pictures --------------------------------------------------------------------------------------


def png(width: int, height: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + data + png_chunk(b"IEND", b"")


def saved(kind: str, size: tuple[int, int] = (16, 16), **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "red").save(stream, kind, **options)
    return stream.getvalue()


def tiff(width: int, height: int) -> bytes:
    tags = [(256, width), (257, height), (258, 1), (259, 1), (262, 1), (273, 200), (277, 1),
            (278, height), (279, 10)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(100)


def gif(width: int, height: int) -> bytes:
    small = saved("GIF")
    at = small.index(b",")
    sides = struct.pack("<HH", width, height)
    return small[:6] + sides + small[10 : at + 5] + sides + small[at + 9 :]


def webp(width: int, height: int) -> bytes:
    small = saved("WEBP", lossless=True)
    # VP8L: a signature of one byte, then 14 bits for each side less 1.
    at = small.index(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", small, at)
    sides = (width - 1) | (height - 1) << 14 | (bits >> 28) << 28
    return small[:at] + struct.pack("<I", sides) + small[at + 4 :]


def bombs() -> dict[str, bytes]:
    black = zlib.compress(bytes(2501) * 20_000, 9)
    text = zlib.compress(bytes(300 * MEGABYTE), 9)
    jxl = imagecodecs.jpegxl_encode(np.zeros((17_000, 17_000), np.uint8), effort=1)
    return {
        "png header": png(2**31 - 1, 2**31 - 1, png_chunk(b"IDAT", zlib.compress(b"a"))),
        "png": png(20_000, 20_000, png_chunk(b"IDAT", black)),
        "png text": png(16, 16, png_chunk(b"zTXt", b"a\0\0" + text) + png_chunk(b"IDAT", black)),
        "png colours": png(16, 16, png_chunk(b"iCCP", b"a\0\0" + text) + png_chunk(b"IDAT", black)),
        "tiff": tiff(2**31, 2**31), "tiff wide": tiff(2**32 - 1, 1),
        "gif": gif(65_535, 65_535), "webp": webp(16_384, 16_384), "jxl": jxl,
        "jpeg": saved("JPEG").replace(
            b"\x00\x10\x00\x10\x03", b"\xff\xdc\xff\xdc\x03"
        ),
        "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1,
                                   24, 0, 0, 0, 0, 0, 0) + bytes(100),
        "ppm": b"P6 99999999 99999999 255\n", "ico": b"\0\0\1\0\xff\xff" + b"\0" * 2000,
    }  # fmt: skip


BOMBS: Final = bombs()


@pytest.mark.parametrize("name", BOMBS)
def test_decompression_bombs(client: httpx.Client, name: str) -> None:
    content = BOMBS[name]
    assert len(content) < MEGABYTE
    sent = {"image": (f"a.{name.split()[0]}", content)}
    # What surrounds the pixels may be left out, and the picture shown.
    statuses = (422, 200) if " " in name and name.startswith("png") else (422,)
    for path in ("/api/v1/search", "/api/v1/encode", "/api/v1/search-by-examples"):
        asked = {"asked": '{"positive": [{"picture": 0}]}'} if "examples" in path else {}
        answer = client.post(path, files=sent, data=asked)
        if answer.status_code != 200:
            refused(answer, 422)
        assert answer.status_code in statuses
    answer = client.post("/queries", files=sent)
    if answer.status_code != 303:
        on_page(answer, 422)
    assert answer.status_code in {422, *({303} if 200 in statuses else ())}


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.html", SCRIPT)
    return stream.getvalue()


NO_PICTURES: Final = {
    "a.png": zipped(), "b.png": b"%PDF-1.7\n" + SCRIPT.encode(),
    "c.svg": f"<svg xmlns='http://www.w3.org/2000/svg'>{SCRIPT}</svg>".encode(),
    "d.png": f"<svg xmlns='http://www.w3.org/2000/svg'>{SCRIPT}</svg>".encode(),
    "e.gif": b"GIF89a=1;alert(1)//", "f.jpg": SCRIPT.encode(), "g.png": b"\x89PNG\r\n\x1a\n",
    "h.jpg": b"\xff\xd8\xff", "i.png": b"#!/bin/sh\nid\n", "j.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "k.png": b"\x7fELF" + bytes(100), "l.mvg": b"push graphic-context\nimage over 0,0 0,0 '|id'\n",
    "m.jpg": saved("JPEG")[:100], "n.png": saved("PNG")[:40], "o.webp": saved("WEBP")[:20],
    "p.tiff": saved("TIFF")[:20], "q.gif": saved("GIF")[:12], "r.xml": b"<?xml version='1.0'?>"
    b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>", "s.png": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", NO_PICTURES)
def test_what_is_no_picture(client: httpx.Client, name: str) -> None:
    for kind in ("image/png", "text/html"):
        sent = {"image": (name, NO_PICTURES[name], kind)}
        refused(client.post("/api/v1/search", files=sent), 422)
        refused(client.post("/api/v1/encode", files=sent), 422)
        assert "alert(1)" not in on_page(client.post("/queries", files=sent), 422)


POLYGLOTS: Final = {
    "a.html": saved("JPEG", comment=SCRIPT.encode()), "b.html": saved("JPEG") + SCRIPT.encode(),
    "c.js": saved("GIF", comment=b"*/=1;alert(1)//"), "d.svg": saved("PNG") + SCRIPT.encode(),
    "e.zip": saved("PNG") + zipped(), "f.pdf": saved("PNG") + b"%PDF-1.7",
    "g.jpg\r\nX: y": saved("JPEG"), 'h.jpg"; x="': saved("PNG"), "../../../i.png": saved("PNG"),
    "j\0.png": saved("PNG"), f"{SCRIPT}.png": saved("PNG"),
    "https://evil.example/a.png": saved("PNG"),
}  # fmt: skip


@pytest.mark.parametrize("name", POLYGLOTS)
def test_a_picture_that_is_also_something_else(client: httpx.Client, name: str) -> None:
    """What is kept is drawn anew: nothing but its pixels comes back."""
    answer = client.post("/queries", files={"image": (name, POLYGLOTS[name], "text/html")})
    assert answer.status_code == 303
    assert re.fullmatch(r"/\?image=[0-9a-f]{32}", answer.headers["location"])
    assert {"x", "set-cookie"}.isdisjoint(answer.headers)
    page = on_page(client.get(answer.headers["location"]), 200)
    assert "<script>alert" not in page
    assert "evil.example" not in page
    kept = client.get(answer.headers["location"].replace("/?image=", "/queries/"))
    assert kept.headers["content-type"] == "image/jpeg"
    assert kept.content.startswith(b"\xff\xd8\xff")
    assert b"alert(1)" not in kept.content
    checked_headers(kept)
    # Opened by itself it is a document, in which nothing runs.
    assert "sandbox" in kept.headers["content-security-policy"]


# -- pages -----------------------------------------------------------------------------------------

HOSTILE: Final = [
    SCRIPT, "javascript:alert(1)", "</title></textarea></style><svg onload=alert(1)>",
    '" onfocus=alert(1) autofocus x="', "' onclick='alert(1)", "a\r\nX-Y: z", "//evil.example",
]  # fmt: skip
REFLECTED: Final = [
    "/?q={}", "/?q=a&q={}", "/?q=a&not={}", "/?q=a&filter={}", "/?q=a&filter=tags:{}",
    "/?q=a&filter=-tags:{}", "/?q=a&filter={}:x", "/?q=a&since={}", "/?q=a&until={}",
    "/?q=a&when={}", "/?q=a&mode={}", "/?q=a&sort={}", "/?q=a&page={}", "/?q=a&min_relevance={}",
    "/?like={}", "/?q=a&like={}", "/?q=a&unlike={}", "/?image={}", "/?q=a&box={}",
    "/?like=" + PICTURE + "&box={}", "/?like=" + PICTURE + "&part={}", "/?q=a&copies={}",
    "/?q=a&{}=1", "/?q=a&k={}", "/?q=a&n={}", "/?box_x={0}&box_y={0}&box_w={0}&box_h={0}",
    "/pictures/" + PICTURE + "?q={}&n=1", "/pictures/" + PICTURE + "?filter={}&n=1",
    "/pictures/" + PICTURE + "?n={}", "/pictures/{}", "/status?page={}", "/status?{}=1",
    "/duplicates?level={}", "/duplicates?folder={}", "/duplicates?image_id={}", "/duplicates?{}=1",
    "/duplicates?keep={}", "/duplicates?threshold={}", "/duplicates?page={}", "/?facets={}",
    "/nothing/{}", "/queries/{}", "/?q=a&filter=root:{}", "/?q=a&filter=folder:{}",
]  # fmt: skip


@pytest.mark.parametrize("path", REFLECTED)
def test_nothing_that_is_sent_becomes_part_of_a_page(client: httpx.Client, path: str) -> None:
    for text in HOSTILE:
        answer = client.get(path.format(quote(text, safe="")), follow_redirects=True)
        assert answer.status_code in {200, 400, 404, 422}, answer.text[:500]
        checked_headers(answer)
        assert "x-y" not in answer.headers
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        assert Markup(answer.text).runs == [], path
        assert "49" not in re.findall(r"(?s)<title>(.*?)</title>", answer.text)[0]


def test_names_of_files_are_text(client: httpx.Client) -> None:
    hostile = image_id("r", "<script>alert(1)<script>.png")
    for path in ("/", "/?q=red", f"/?like={hostile}", f"/pictures/{hostile}", "/status",
                 f"/pictures/{hostile}?q=red&n=1", f"/?like={hostile}&part=1",
                 "/duplicates?level=similar"):  # fmt: skip
        page = on_page(client.get(path), 200)
        assert "<script>" not in page
        assert "<img src=x" not in page
    assert "&lt;script&gt;" in client.get(f"/pictures/{hostile}").text


def test_every_page_and_file_has_a_head(client: httpx.Client, app: FastAPI) -> None:
    sent = client.post("/queries", files={"image": saved("PNG")})
    key = sent.headers["location"].removeprefix("/?image=")
    style = re.search(r'href="(/static/[0-9a-f]+/style.css)"', client.get("/").text)
    assert style is not None
    routes = {str(getattr(each, "path", "")) for each in app.routes}
    paths = {each.format(image_id=PICTURE, key=key) for each in routes if "static" not in each}
    assert {"/", "/status", "/metrics", "/openapi.json", f"/pictures/{PICTURE}"} <= paths
    posted = {"/queries", "/api/v1/searches", "/api/v1/encode", "/api/v1/search-by-examples"}
    for path in sorted({*paths - posted, style[1]}):
        got, head = client.get(path), client.head(path)
        assert got.status_code in {200, 400, 422}, path
        assert head.status_code == got.status_code, path
        assert head.content == b"", path
        checked_headers(got)
        checked_headers(head)
        for name in ("content-type", "content-security-policy", "cache-control"):
            assert head.headers.get(name) == got.headers.get(name), (path, name)


def test_parts_of_a_file(client: httpx.Client) -> None:
    """Starlette itself refuses in plain text."""
    path = f"/images/{PICTURE}"
    for asked in ("bytes=x", "bytes", "lines=0-1", "bytes=5-2", "bytes=", "bytes=--1"):
        assert "Range" in refused(client.get(path, headers={"range": asked}), 400, 416)
    answer = client.get(path, headers={"range": "bytes=999999-"})
    refused(answer, 416)
    assert re.fullmatch(r"bytes \*/\d+", answer.headers["content-range"])
    many = "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 8000, 2))
    for asked in (many, "bytes=" + "0-," * 5000, "bytes=0-0,-1", "bytes=" + "9" * 5000 + "-"):
        answer = client.get(path, headers={"range": asked})
        assert answer.status_code in {200, 206, 400, 416}
        assert len(answer.content) < 10_000
        checked_headers(answer)


# -- tokens ----------------------------------------------------------------------------------------


class Guarded:
    """A service with a token, and what it logs."""

    def __init__(self, client: TestClient, token: str, logged: Sequence[str]) -> None:
        self.client, self.token, self.logged = client, token, logged


@pytest.fixture
def guarded(house: House, tmp_path: Path) -> Iterator[Guarded]:
    token, logged = new_token(tmp_path / "tokens"), list[str]()
    made = application(
        house, tmp_path / "cache", token_hashes=read_hashes(tmp_path / "tokens"),
        access_log=AccessLog(logged.append, "full"),
    )  # fmt: skip
    with TestClient(made, base_url=ADDRESS, follow_redirects=False,
                    raise_server_exceptions=False) as client:  # fmt: skip
        yield Guarded(client, token, logged)
        client.cookies.clear()
        asked = {"authorization": f"Bearer {token}"}
        assert client.get("/api/v1/search?q=red", headers=asked).status_code == 200


_numbers = count(1)


def another(guarded: Guarded) -> TestClient:
    """A client at another address."""
    address = (f"192.0.2.{next(_numbers)}", 5000)
    return TestClient(guarded.client.app, base_url=ADDRESS, client=address, follow_redirects=False)


def test_every_route_but_health_needs_the_token(guarded: Guarded) -> None:
    client = guarded.client
    routes = {str(getattr(each, "path", "")) for each in client.app.routes}  # type: ignore[attr-defined]
    free = {"/healthz", "/readyz", "/login"}
    for path in sorted(each.format(image_id=PICTURE, key="0") for each in routes - free):
        if path.startswith("/static/"):
            continue
        # More from one address are answered by 429.
        client = another(guarded)
        for asked in ({}, {"authorization": "Bearer x"}, {"cookie": f"{COOKIE}=x"}):
            for method in ("GET", "POST", "HEAD", "OPTIONS", "DELETE"):
                refused_to = client.request(method, path, headers=asked)
                assert refused_to.status_code == 401, (method, path)
    for path in ("/static/../api/v1/status", "/static//../status", "/login/../status", "/login/x",
                 "/healthz/../status", "//status", "/status/", "/static/..%2fstatus",
                 "/STATUS"):  # fmt: skip
        answer = client.get(path)
        assert answer.status_code in {401, 404, 405, 307}, path
        assert "Folder" not in answer.text
    described = client.get("/openapi.json", headers={"authorization": f"Bearer {guarded.token}"})
    assert described.json()["security"] == [{"token": []}]


@pytest.mark.parametrize(
    "after",
    ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "",
     "\\\\evil.example", "/\t/evil.example", "/\r\nset-cookie: a=b", "evil.example",
     "///evil.example", "/%09/evil.example", " //evil.example", "http:evil.example",
     "/\n/evil.example", "@evil.example",
     "/..//evil.example", "/.//evil.example", "\x00//evil.example"],
)  # fmt: skip
def test_signing_in_leads_to_no_other_site(guarded: Guarded, after: str) -> None:
    asked = guarded.client.get("/login", params={"next": after})
    assert "javascript:" not in re.findall(r'(?:href|action)="([^"]*)"', asked.text)
    checked_headers(asked)
    answer = guarded.client.post("/login", data={"token": guarded.token, "next": after})
    assert answer.status_code == 303
    where = answer.headers["location"]
    # As a browser resolves it.
    resolved = httpx.URL(ADDRESS).join(re.sub(r"[\t\r\n]", "", where).strip().replace("\\", "/"))
    assert (resolved.host, resolved.scheme) == ("127.0.0.1", "http"), where
    assert len(answer.headers.get_list("set-cookie")) == 1


def test_the_cookie_is_for_this_service_alone(guarded: Guarded) -> None:
    answer = guarded.client.post("/login", data={"token": guarded.token})
    (cookie,) = answer.headers.get_list("set-cookie")
    given = {each.strip().lower().partition("=")[0] for each in cookie.split(";")[1:]}
    assert {"httponly", "samesite", "path", "max-age"} <= given
    assert "samesite=strict" in cookie.lower()
    assert "domain" not in given
    assert "secure" not in given
    encrypted = TestClient(
        guarded.client.app, base_url="https://127.0.0.1:8080", follow_redirects=False
    )
    answer = encrypted.post("/login", data={"token": guarded.token})
    assert "; secure" in answer.headers["set-cookie"].lower()
    out = guarded.client.post("/logout").headers["set-cookie"]
    assert "max-age=0" in out.lower()
    # The cookie lets in, but not a page of another site.
    guarded.client.cookies.set(COOKIE, guarded.token)
    assert guarded.client.get("/").status_code == 200
    foreign = {"origin": "null"}
    assert (
        guarded.client.post("/api/v1/search", json={"q": "a"}, headers=foreign).status_code == 403
    )
    wrong = guarded.client.post("/login", data={"token": "wrong"})
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers


def test_a_token_is_written_nowhere(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client, token = guarded.client, guarded.token
    html = {"accept": "text/html"}
    answers = [
        client.get("/api/v1/status", headers={"authorization": f"Basic {token}"}),
        client.get("/api/v1/status", headers={"authorization": token}),
        client.get("/nothing", headers={"authorization": f"Bearer {token}"}),
        client.get("/api/v1/search", headers={"authorization": f"Bearer {token}"}),
        client.get("/metrics", headers={"authorization": f"Bearer {token}"}),
        client.get("/status", headers={"authorization": f"Bearer {token}"}),
        client.get(f"/?token={token}"),
        client.get(f"/?token={token}&q=a", headers={"authorization": f"Bearer {token}"}),
        client.get(f"/api/v1/search?token={token}", headers={"authorization": f"Bearer {token}"}),
        client.post("/login", data={"token": token + "x"}),
        client.post("/login", data={"token": token, "next": "/status"}),
        client.get(f"/login?token={token}"),
        client.get("/", headers={**html, "cookie": f"{COOKIE}={token}x"}),
        client.get(f"/?token={token}", headers=html),
    ]
    for each in answers:
        shown = each.text + each.headers.get("location", "")
        assert token not in shown, (each.request.method, each.url, each.status_code)
    # `uvicorn` is not in between, and httpx is no part of the service.
    assert [each for each in caplog.records if token in each.getMessage()
            and not each.name.startswith(("httpx", "httpcore"))] == []  # fmt: skip
    assert guarded.logged
    assert not [each for each in guarded.logged if token in each]
