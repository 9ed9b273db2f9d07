"""Roots at URLs other than S3's: servers of HTTP and FTP that really answer."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from es_imgsearch.errors import LibraryMissing, RootError
from es_imgsearch.records import path_of
from es_imgsearch.watch.given_roots import parse_roots
from es_imgsearch.watch.sources.given import url_root
from tests.support.ftp_server import PASSWORD, USER, ftp_server
from tests.support.house import House
from tests.support.s3_server import png

pytestmark = pytest.mark.process

NAMES = ["a.png", "b c.png", "below/c+d.png", "below/deeper/e.png"]
Serve = Callable[[Path], "Iterator[str]"]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def http(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def ftp(folder: Path) -> Iterator[str]:
    with ftp_server(folder) as served:
        yield served.url


def put(folder: Path, name: str, content: bytes, at: float | None = None) -> None:
    path = folder / "r" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if at is not None:
        os.utime(path, (at, at))


def at(url: str, house: House) -> House:
    house.folder = path_of(f"{url}/r")
    house.folders = [house.folder]
    return house


def paths(house: House) -> list[str]:
    return sorted(path for _, path in house.indexed())


@pytest.mark.parametrize("serve", [http, ftp])
def test_a_root_is_indexed_followed_and_kept_while_its_server_is_away(
    serve: Callable, house: House, tmp_path: Path
):
    folder = tmp_path / "served"
    padded = max(len(png(number)) for number in range(10))
    for number, name in enumerate(NAMES):
        put(folder, name, png(number).ljust(padded, b"\0"), 1_700_000_000)
    put(folder, "notes.txt", b"text")
    put(folder, "broken.png", b"no picture")
    with serve(folder) as url:
        there = at(url, house)
        first = there.synced()
        assert (first.counts.embedded, first.counts.failed) == (4, 1)
        # Of a page of links, paths are as they stand in URLs.
        names = [each.replace(" ", "%20").replace("+", "%2B") for each in NAMES]
        assert paths(there) == sorted(names if serve is http else NAMES)
        assert [path for _, path in there.failed()] == ["broken.png"]
        again = there.synced()
        assert (again.counts.stored, again.counts.failed, again.counts.deleted) == (0, 0, 0)
        # As many bytes, a second later.
        put(folder, "a.png", png(9).ljust(padded, b"\0"), 1_700_000_001)
        put(folder, "new.png", png(8))
        (folder / "r" / "b c.png").unlink()
        changed = there.synced(allow_deletes=True)
        assert (changed.counts.embedded, changed.counts.deleted) == (2, 1)
        assert len(paths(there)) == 4
        assert {"a.png", "new.png"} < set(paths(there))
    away = there.synced()
    assert (away.counts.deleted, away.counts.failed) == (0, 0)
    assert len(paths(there)) == 4
    assert "cannot be listed" in away.paused["r"].message(away.roots[0], there.store.index)


def test_credentials_of_ftp_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As fsspec reads them; in the URL they are refused."""
    from fsspec.config import conf, set_conf_env

    put(tmp_path, "a.png", png(1))
    with ftp_server(tmp_path) as served:
        address = served.url.removeprefix("ftp://")
        with pytest.raises(RootError, match="password") as refused:
            parse_roots([f"r=ftp://{USER}:{PASSWORD}@{address}/r"])
        assert PASSWORD not in str(refused.value)
        monkeypatch.setitem(conf, "ftp", {})
        given = {"FSSPEC_FTP_USERNAME": USER, "FSSPEC_FTP_PASSWORD": "wrong"}
        set_conf_env(conf, given)
        with pytest.raises(RootError, match="cannot be listed") as wrong:
            url_root("r", "r", f"{served.url}/r", is_checked=False)
        assert "wrong" not in str(wrong.value)
        set_conf_env(conf, {**given, "FSSPEC_FTP_PASSWORD": PASSWORD})
        assert str(url_root("s", "s", f"{served.url}/r/", is_checked=False).path) == (
            f"{served.url}/r"
        )


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://photos", "memory of one process"),
        ("file:///srv/photos", "on this machine"),
        ("local:///srv/photos", "on this machine"),
        ("zip://photos::s3://bucket/a.zip", "without"),
        ("data://photos", "data"),
        ("nosuch://photos", "nosuch"),
    ],
)
def test_what_is_no_source_of_pictures_is_refused(url: str, words: str):
    with pytest.raises(RootError, match=re.escape(words)):
        parse_roots([f"r={url}"])


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("gs://bucket/photos", "gcsfs"),
        ("gcs://bucket/photos", "gcsfs"),
        ("az://container/photos", "adlfs"),
        ("abfs://container/photos", "adlfs"),
        ("sftp://server/photos", "paramiko"),
        ("ssh://server/photos", "paramiko"),
        ("smb://server/photos", "smbprotocol"),
        ("webdav://server/photos", "webdav4"),
    ],
)
def test_a_protocol_without_its_package_names_it(url: str, package: str):
    with pytest.raises((LibraryMissing, RootError), match=package) as refused:
        parse_roots([f"r={url}"])
    assert "\n" not in str(refused.value)
