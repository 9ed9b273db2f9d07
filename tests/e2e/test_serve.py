"""Thumbnails and originals over HTTP, from real files behind a real index."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from PIL import Image

from es_imgsearch.cli import main
from es_imgsearch.cli.serving.serve import _listening
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.records import image_id
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.disk_cache import DiskCache
from es_imgsearch.serve.thumbnails import PictureFiles
from tests.support.house import House, house_of_module
from tests.support.imports import import_anew

ADDRESS = "http://127.0.0.1:8080"

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def house(es_url: str, photographs: Path, tmp_path_factory: pytest.TempPathFactory):
    """One folder and index for the whole file; tests put back what they change."""
    with house_of_module(es_url, tmp_path_factory.mktemp("serve")) as house:
        shutil.copy(photographs / "coffee.png", house.folder)
        house.synced()
        yield house


@pytest.fixture(scope="module")
def cache(house: House) -> Path:
    return house.folder.parent / "cache"


@pytest.fixture(scope="module")
def shared_client(house: House, cache: Path) -> Iterator[TestClient]:
    with TestClient(
        create_app(PictureFiles(house.store, house.settings, cache)), base_url=ADDRESS
    ) as each:
        yield each


@pytest.fixture
def photograph(house: House, photographs: Path) -> Iterator[str]:
    """The image_id of a stored photograph, coffee.png of 600 x 400 pixels."""
    yield image_id("r", "coffee.png")
    shutil.copy(photographs / "coffee.png", house.folder)


@pytest.fixture
def client(shared_client: TestClient, cache: Path) -> TestClient:
    """The service, its cache empty."""
    for cached in cache.glob("??/*"):
        cached.unlink()
    return shared_client


def test_a_thumbnail_keeps_the_aspect_ratio(client: TestClient, photograph: str):
    answer = client.get(f"/thumbnails/{photograph}")
    assert answer.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (320, 213)


def test_a_thumbnail_looks_like_its_picture(client: TestClient, photograph: str, photographs: Path):
    answer = client.get(f"/thumbnails/{photograph}")
    with (
        Image.open(io.BytesIO(answer.content)) as small,
        Image.open(photographs / "coffee.png") as large,
    ):
        one = small.convert("RGB").resize((8, 8))
        other = large.convert("RGB").resize((8, 8))
    differences = [abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)]
    assert max(differences) < 16


def test_an_unchanged_picture_is_answered_with_304(client: TestClient, photograph: str):
    for kind in ("thumbnails", "images"):
        first = client.get(f"/{kind}/{photograph}")
        assert "max-age" in first.headers["cache-control"]
        again = client.get(
            f"/{kind}/{photograph}", headers={"if-none-match": first.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")


def test_a_thumbnail_is_made_once(client: TestClient, photograph: str, cache: Path):
    first = client.get(f"/thumbnails/{photograph}").content
    (cached,) = cache.glob("??/*")
    assert cached.read_bytes() == first
    # Not read again: the service returns what the cache file holds.
    cached.write_bytes(b"cached")
    assert client.get(f"/thumbnails/{photograph}").content == b"cached"


def test_the_original_byte_for_byte(client: TestClient, photograph: str, photographs: Path):
    answer = client.get(f"/images/{photograph}")
    assert answer.content == (photographs / "coffee.png").read_bytes()
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert 'filename="coffee.png"' in answer.headers["content-disposition"]


def test_a_changed_file_is_shown_and_not_cached(
    client: TestClient, photograph: str, house: House, cache: Path
):
    Image.new("RGB", (64, 64), "red").save(house.folder / "coffee.png")
    answer = client.get(f"/thumbnails/{photograph}")
    assert answer.headers["cache-control"] == "no-store"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (64, 64)
    assert not list(cache.glob("??/*"))


@pytest.mark.parametrize(
    "path", ["0" * 32, "../../etc/passwd", "%2e%2e%2fetc%2fpasswd", "f" * 31, "F" * 32, ""]
)
def test_only_ids_are_answered(client: TestClient, photograph: str, path: str):
    for kind in ("thumbnails", "images"):
        assert client.get(f"/{kind}/{path}").status_code in {404, 422}


def test_originals_on_another_host_or_deleted(client: TestClient, photograph: str, house: House):
    (house.folder / "coffee.png").unlink()
    for kind in ("thumbnails", "images"):
        answer = client.get(f"/{kind}/{photograph}")
        assert answer.status_code == 404
        assert "gone" in answer.json()["detail"]

    def elsewhere(meta):
        return meta.with_root("r", {**meta.roots["r"], "host": "another"})

    def here(meta):
        return meta.with_root("r", {**meta.roots["r"], "host": house.settings.host})

    house.store.generations.update_meta(elsewhere)
    try:
        answer = client.get(f"/images/{photograph}")
    finally:
        house.store.generations.update_meta(here)
    assert answer.status_code == 404
    assert "'another'" in answer.json()["detail"]


def test_a_path_that_leads_out_of_its_root(client: TestClient, photograph: str, house: House):
    secret = house.folder.parent / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    path = f"/{house.store.index}/_doc/{photograph}"
    source = house.store.connection.request("GET", path)["_source"]
    harmful = image_id("r", "harmful.png")
    body = source | {"image_id": harmful, "relative_path": "../secret.png"}
    house.store.connection.request("PUT", path.replace(photograph, harmful), body)
    for kind in ("thumbnails", "images"):
        answer = client.get(f"/{kind}/{harmful}")
        assert answer.status_code == 404
        assert "leads out of its root" in answer.json()["detail"]


def test_a_file_that_no_longer_is_a_picture(client: TestClient, photograph: str, house: House):
    (house.folder / "coffee.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    answer = client.get(f"/thumbnails/{photograph}")
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_elasticsearch_unreachable(house: House, tmp_path: Path):
    settings = house.settings.model_copy(update={"es_url": "http://127.0.0.1:9"})
    away = Store(connect(settings), settings.index)
    with TestClient(
        create_app(PictureFiles(away, settings, tmp_path / "cache")), base_url=ADDRESS
    ) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get(f"/thumbnails/{'0' * 32}").status_code == 503


def test_the_cache_evicts_the_least_recently_used(tmp_path: Path):
    cache = DiskCache(tmp_path, max_bytes=1000)
    for n in range(9):
        cache.put(f"key{n}", bytes(100))
    assert cache.get("key0") == bytes(100)
    for n in range(9, 13):
        cache.put(f"key{n}", bytes(100))
    assert cache.get("key0") is not None
    assert cache.get("key1") is None
    assert sum(file.stat().st_size for file in tmp_path.glob("??/*")) <= 1000
    # Another process knows them, too, and how long ago they were wanted; the clock of files
    # is too coarse for nine in a row.
    (cached,) = tmp_path.glob("??/key0")
    os.utime(cached, (2**31, 2**31))
    later = DiskCache(tmp_path, max_bytes=300)
    later.put("new", bytes(100))
    assert later.get("new") is not None
    assert later.get("key0") is not None
    assert sum(file.stat().st_size for file in tmp_path.glob("??/*")) <= 300
    with pytest.raises(ValueError, match="is not a valid cache key"):
        cache.get("../key0")


def test_the_command(house: House, photograph: str, tmp_path: Path):
    command = [str(Path(sys.executable).parent / "es-imgsearch"), "serve", "--port", "0"]
    command += ["--index", house.settings.index, "--es-url", house.settings.es_url]
    environment = {"XDG_CACHE_HOME": str(tmp_path), "ES_IMGSEARCH_HOST": house.settings.host}
    environment |= {"ES_IMGSEARCH_READ_WORKERS": "1", "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        address = line.rpartition(" ")[2].strip()
        assert address.startswith("http://127.0.0.1:"), line
        with urllib.request.urlopen(f"{address}/thumbnails/{photograph}") as answer:
            assert answer.headers["content-type"] == "image/jpeg"
        assert list((tmp_path / "es-imgsearch" / "thumbnails").glob("??/*"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


def test_settings_set_the_thumbnail_size(house: House, photograph: str, tmp_path: Path):
    settings = house.settings.model_copy(update={"thumbnail_pixels": 100})
    with TestClient(
        create_app(PictureFiles(house.store, settings, tmp_path / "cache")), base_url=ADDRESS
    ) as client:
        answer = client.get(f"/thumbnails/{photograph}")
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (100, 67)


def test_cache_dir_holds_the_thumbnails(
    house: House, photograph: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    settings = house.settings.model_copy(update={"cache_dir": tmp_path / "cache"})
    with TestClient(create_app(PictureFiles(house.store, settings)), base_url=ADDRESS) as client:
        assert client.get(f"/thumbnails/{photograph}").status_code == 200
    assert list((tmp_path / "cache" / "thumbnails").glob("??/*"))
    assert not (tmp_path / "home").exists()


def test_an_answer_does_not_wait_for_the_client_to_acknowledge_its_headers():
    with _listening("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_in_use(house: House):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        message = refused(house, "--port", port)
    assert message == f"Error: 127.0.0.1:{port} cannot be listened on: Address already in use."


def test_an_address_of_another_machine(house: House):
    message = refused(house, "--address", "192.0.2.1", "--port", "0")
    assert message.startswith("Error: 192.0.2.1:0 cannot be listened on: ")


def test_an_unresolvable_address(house: House):
    message = refused(house, "--address", "no.such.name.invalid", "--port", "0")
    assert message.startswith("Error: no.such.name.invalid:0 cannot be listened on: ")


@pytest.mark.parametrize("address", ["nonsense..host", ".localhost", "a" * 64, "ü" * 64, "."])
def test_an_address_that_no_host_can_have(house: House, address: str):
    message = refused(house, "--address", address, "--port", "0")
    assert message.startswith(f"Error: {address}:0 cannot be listened on: ")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("library", ["fastapi", "limits", "uvicorn"])
def test_without_its_libraries(house: House, monkeypatch: pytest.MonkeyPatch, library: str):
    import_anew(monkeypatch, "es_imgsearch.serve")
    monkeypatch.setitem(sys.modules, library, None)
    assert "pip install 'es-imgsearch[serve]'" in refused(house)


def refused(house: House, *given: str) -> str:
    """The one line with which `serve` ends, with exit code 2."""
    common = ["--index", house.settings.index, "--es-url", house.settings.es_url]
    done = CliRunner().invoke(main, ["serve", *common, *given])
    assert done.exit_code == 2, (done.output, done.exception)
    (line,) = done.stderr.strip().splitlines()
    return line
