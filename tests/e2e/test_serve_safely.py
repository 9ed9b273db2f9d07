"""What a browser is given: a picture, whatever its file is called and whoever asks how."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from es_imgsearch.records import image_id, stored_path
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.disk_cache import DiskCache
from es_imgsearch.serve.originals import file_name
from es_imgsearch.serve.thumbnails import PictureFiles
from tests.support.house import House, house_of_module, pixels
from tests.support.processes import without_root

ADDRESS = "http://127.0.0.1:8080"

pytestmark = pytest.mark.process

# Formats by the name under which the file stands: a JPEG `cat.html` was `text/html`.
NAMES = {
    "cat.html": "JPEG", "a.svg": "PNG", "a.xhtml": "GIF", "a.js": "WEBP", "a.pdf": "BMP",
    "a.xml": "JPEG", "a.css": "PNG", "noending": "GIF", "a.png": "JPEG", "UPPER.JPG": "JPEG",
    "quote\".png": "PNG", "back\\slash.png": "PNG", "new\nline.png": "PNG", "semi;x=y.png": "PNG",
    "猫.png": "PNG", "é.html": "PNG", "per%41cent.png": "PNG", "tab\t.gif": "GIF",
    "\u202egnp.exe": "PNG", "drawing.xpm": "TIFF", "scan.tif": "TIFF", "paint.ppm": "PPM",
}  # fmt: skip
NOT_UTF_8 = b"caf\xe9.png"
SHOWN = {"image/jpeg", "image/png", "image/gif", "image/webp", "image/bmp", "image/tiff"}
TYPES = {
    "JPEG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif", "WEBP": "image/webp",
    "BMP": "image/bmp", "TIFF": "image/tiff", "PPM": "image/x-portable-anymap",
}  # fmt: skip


@pytest.fixture(scope="module")
def house(es_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of_module(es_url, tmp_path_factory.mktemp("safely")) as house:
        fill(house)
        house.synced()
        yield house


def fill(house: House) -> None:
    for number, (name, kind) in enumerate(NAMES.items()):
        Image.fromarray(pixels(number)).save(house.folder / name, kind)
    with open(bytes(house.folder) + b"/" + NOT_UTF_8, "wb") as file:
        Image.fromarray(pixels(99)).save(file, "PNG")


@pytest.fixture(scope="module")
def client(house: House) -> Iterator[TestClient]:
    cache = house.folder.parent / "cache"
    with TestClient(
        create_app(PictureFiles(house.store, house.settings, cache)), base_url=ADDRESS
    ) as each:
        yield each


def stored(house: House, name: str, **changed: Any) -> str:
    """The id of a copy of a stored document, changed as whoever may write to the index can."""
    path = f"/{house.store.index}/_doc/"
    source = house.store.connection.request("GET", path + image_id("r", name))["_source"]
    other = uuid.uuid4().hex
    body = {name: value for name, value in (source | changed).items() if value is not None}
    house.store.connection.request("PUT", path + other, body | {"image_id": other})
    return other


def disposition(header: str) -> tuple[str, str | None]:
    """How a browser reads it, by Python's own parser of MIME."""
    message = Message()
    message["content-disposition"] = header
    return str(message.get_content_disposition()), message.get_filename()


@pytest.mark.parametrize("name", NAMES)
def test_an_original_has_the_type_of_its_format(client: TestClient, house: House, name: str):
    answer = client.get(f"/images/{image_id('r', stored_path(name))}")
    assert answer.status_code == 200, answer.text
    assert answer.content == (house.folder / name).read_bytes()
    assert answer.headers["content-type"] == TYPES[NAMES[name]]
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert re.search(r"(^|; )sandbox($|;)", policy)
    how, shown = disposition(answer.headers["content-disposition"])
    assert how == ("inline" if TYPES[NAMES[name]] in SHOWN else "attachment")
    assert shown is not None
    assert shown.isprintable()
    assert not set(shown) & set('"\\/\n\r\t;\u202e')
    # Saved and opened again it is a picture as well.
    assert Path(shown).suffix.lower() in {
        "JPEG": {".jpg", ".jpeg"}, "PNG": {".png"}, "GIF": {".gif"}, "WEBP": {".webp"},
        "BMP": {".bmp"}, "TIFF": {".tif", ".tiff"}, "PPM": {".ppm"},
    }[NAMES[name]]  # fmt: skip


def test_a_name_that_is_not_utf_8(client: TestClient):
    for kind in ("images", "thumbnails"):
        answer = client.get(f"/{kind}/{image_id('r', os.fsdecode(NOT_UTF_8))}")
        assert answer.status_code == 200
    (how, _) = disposition(answer.headers.get("content-disposition", "inline"))
    assert how == "inline"


@pytest.mark.parametrize(
    "format_",
    ["html", "svg", "text/html", "application/xhtml+xml", "pdf", "", "jpeg\r\nx: y", None],
)
def test_a_format_that_nobody_knows_is_saved_and_never_shown(
    client: TestClient, house: House, format_: str | None
):
    answer = client.get(f"/images/{stored(house, 'cat.html', format=format_)}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    how, shown = disposition(answer.headers["content-disposition"])
    assert (how, shown) == ("attachment", "cat.html.bin")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("name", "format_", "wanted"),
    [
        ("a.jpeg", "jpeg", "a.jpeg"), ("a.JPG", "jpeg", "a.JPG"), ("a.mpo", "jpeg", "a.mpo"),
        ("a.html", "jpeg", "a.html.jpg"), ("a", "png", "a.png"), ("", "png", "picture.png"),
        ("...", "png", "picture.png"), (".png", "png", "png.png"), ("a.png.", "png", "a.png"),
        ("a.heic", "heif", "a.heic"), ("a.nef", "raw", "a.nef"), ("a.svg", "raw", "a.svg.bin"),
        ("../../etc/passwd", "png", "_.._etc_passwd.png"), ("a:b.png", "png", "a_b.png"),
        ("CON.png", "png", "_CON.png"), ("a\x00b\x7f.png", "png", "a_b_.png"),
        ("x" * 300 + ".png", "png", "x" * 180 + ".png"), ("猫" * 300, "png", "猫" * 60 + ".png"),
        ("\ud800.png", "png", "_.png"), ("a\u2028b.png", "png", "a_b.png"),
    ],
)  # fmt: skip
def test_a_name_to_save_under(name: str, format_: str, wanted: str):
    assert file_name(name, format_) == wanted


def test_every_route_that_can_be_got_can_be_asked_for_its_head(client: TestClient):
    picture = image_id("r", "cat.html")
    described = client.get("/openapi.json").json()["paths"]
    paths = {path for path, methods in described.items() if "get" in methods} | {"/openapi.json"}
    assert {"/healthz", "/images/{image_id}", "/thumbnails/{image_id}"} <= paths
    for path in paths:
        for asked in (picture, "0" * 32, "odd"):
            got = client.get(path.format(image_id=asked))
            head = client.head(path.format(image_id=asked))
            assert head.status_code == got.status_code, path
            assert head.content == b""
            for name in ("content-type", "content-length", "etag", "content-disposition"):
                assert head.headers.get(name) == got.headers.get(name), (path, name)
    assert client.post("/healthz").status_code == 405


@pytest.mark.parametrize(
    ("asked", "status", "start", "end"),
    [
        ("bytes=0-9", 206, 0, 10), ("bytes=10-", 206, 10, None), ("bytes=-5", 206, -5, None),
        ("bytes=0-999999", 206, 0, None), ("bytes=999999-", 416, 0, 0), ("bytes=x", 400, 0, 0),
    ],
)  # fmt: skip
def test_a_part_of_an_original(
    client: TestClient, house: House, asked: str, status: int, start: int, end: int | None
):
    answer = client.get(f"/images/{image_id('r', 'cat.html')}", headers={"range": asked})
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    if status == 206:
        assert answer.content == (house.folder / "cat.html").read_bytes()[start:end]
        assert answer.headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize("kind", ["images", "thumbnails"])
def test_every_answer_forbids_to_guess_its_type(client: TestClient, kind: str):
    picture = image_id("r", "cat.html")
    for path in (
        f"/{kind}/{picture}",
        f"/{kind}/{'0' * 32}",
        f"/{kind}/%0a",
        "/healthz",
        "/nothing",
    ):
        answer = client.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert "default-src 'none'" in answer.headers["content-security-policy"], path
    tag = client.get(f"/{kind}/{picture}").headers["etag"]
    for asked in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = client.get(f"/{kind}/{picture}", headers={"if-none-match": asked})
        assert (again.status_code, again.content) == (304, b""), asked
        assert again.headers["x-content-type-options"] == "nosniff"
    assert client.get(f"/{kind}/{picture}", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "asked",
    ["0" * 32 + "%0a", "0" * 31 + "%00", "%ff" * 32, "０" * 32, "0" * 33, "a" * 5000, " " * 32,
     "0" * 32 + "/", "..", "%2e%2e", "0" * 32 + "?x=1"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["images", "thumbnails"])
def test_odd_ids(client: TestClient, kind: str, asked: str):
    for answer in (client.get(f"/{kind}/{asked}"), client.head(f"/{kind}/{asked}")):
        assert answer.status_code in {404, 422}, answer.text


def test_a_browser_loads_nothing_from_elsewhere(client: TestClient):
    """FastAPI's own pages of documentation load scripts from a public network."""
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert client.get(path).status_code == 404
    assert client.get("/openapi.json").json()["paths"].keys() == {
        "/healthz", "/readyz", "/images/{image_id}", "/previews/{image_id}",
        "/thumbnails/{image_id}"
    }  # fmt: skip


def test_an_original_that_changed_is_not_kept_by_browsers(client: TestClient, house: House):
    file = house.folder / "a.png"
    before = file.read_bytes()
    tag = client.get(f"/images/{image_id('r', 'a.png')}").headers["etag"]
    try:
        Image.new("RGB", (64, 64), "red").save(file, "JPEG")
        answer = client.get(f"/images/{image_id('r', 'a.png')}", headers={"if-none-match": tag})
        assert answer.status_code == 200
        assert answer.content == file.read_bytes()
        assert answer.headers["cache-control"] == "no-store"
    finally:
        file.write_bytes(before)


def test_an_original_that_may_not_be_read(house: House, tmp_path: Path):
    file = house.folder / "noending"
    cache = tmp_path / "cache"

    def ask() -> str:
        files = PictureFiles(house.store, house.settings, cache)
        with TestClient(
            create_app(files), base_url=ADDRESS, raise_server_exceptions=False
        ) as client:
            answer = client.get(f"/images/{image_id('r', 'noending')}")
        return f"{answer.status_code} {answer.text}"

    for target, mode in ((file, 0), (house.folder, 0)):
        before = target.stat().st_mode
        target.chmod(mode)
        try:
            answered = without_root(ask, tmp_path)
        finally:
            target.chmod(before)
        assert answered.startswith("422 "), answered
        assert "Permission denied" in answered


def no_folder(place: Path) -> Path:
    place.write_text("a file")
    return place / "cache"


def a_file(place: Path) -> Path:
    place.write_text("a file")
    return place


def unwritable(place: Path) -> Path:
    # Root may write everywhere but here.
    return Path("/proc/es-imgsearch/thumbnails")


def full(place: Path) -> Path:
    return Path("/dev/full/thumbnails")


def relative(place: Path) -> Path:
    # What is left of ~/.cache for a user without a home folder.
    return Path("~/.cache/es-imgsearch/thumbnails")


@pytest.mark.parametrize("broken", [no_folder, a_file, unwritable, full, relative])
def test_thumbnails_without_a_cache_folder(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: Any,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    folder = broken(tmp_path / "place")
    files = PictureFiles(house.store, house.settings, folder)
    with TestClient(create_app(files), base_url=ADDRESS) as client:
        answers = [client.get(f"/thumbnails/{image_id('r', name)}") for name in ("a.js", "a.svg")]
        again = client.get(f"/thumbnails/{image_id('r', 'a.js')}")
    assert [answer.status_code for answer in answers] == [200, 200]
    assert again.content == answers[0].content
    assert not (tmp_path / "~").exists()
    (warning,) = [each for each in caplog.messages if "Thumbnails cannot be kept" in each]
    assert str(folder) in warning


def test_a_folder_that_becomes_unwritable_and_is_whole_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    cache = DiskCache(tmp_path / "cache", max_bytes=1000)
    cache.put("before", b"1")
    shutil.rmtree(tmp_path / "cache")
    cache.put("removed", b"2")
    assert (tmp_path / "cache" / "re" / "removed").read_bytes() == b"2"

    def no_space(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for _ in range(2):
        caplog.clear()
        with monkeypatch.context() as patch:
            patch.setattr("tempfile.NamedTemporaryFile", no_space)
            for number in range(30):
                cache.put(f"full{number}", bytes([number]) * 100)
        (warning,) = caplog.messages
        assert "No space left on device" in warning
        # As much as the disk would hold, the newest of it.
        kept = [cache.get(f"full{number}") for number in range(30)]
        assert kept[29] == bytes([29]) * 100
        assert 5 <= sum(each is not None for each in kept) <= 10
        cache.put("after", b"3")
        assert (tmp_path / "cache" / "af" / "after").read_bytes() == b"3"
    # A file that the full disk left empty is made anew.
    (tmp_path / "cache" / "af" / "after").write_bytes(b"")
    assert DiskCache(tmp_path / "cache", max_bytes=1000).get("after") is None


def test_a_content_id_that_is_no_hash(client: TestClient, house: House):
    for content_id in ("../../x", 'a"\r\nset-cookie: b', ".", "", "猫"):
        for kind in ("images", "thumbnails"):
            answer = client.get(f"/{kind}/{stored(house, 'a.js', content_id=content_id)}")
            assert answer.status_code == 200, answer.text
            assert "set-cookie" not in answer.headers
