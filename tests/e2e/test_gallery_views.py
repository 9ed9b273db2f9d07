"""The gallery's views around the search: a picture, duplicates, status, results as files."""

from __future__ import annotations

import io
import os
import shutil
import uuid
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from httpx import Response
from PIL import Image

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.store import Store
from es_imgsearch.records import image_id
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PREVIEW_PIXELS, PictureFiles
from es_imgsearch.settings import Settings, changed_settings, load_settings
from es_imgsearch.testing import remove_index

pytestmark = [pytest.mark.es, pytest.mark.process]

ADDRESS = "http://127.0.0.1:8080"
HOSTILE = "<script>alert(1)<'\"&.png"
EVIL = "\"><script>alert('x')</script>"
VIENNA = (48.2082, 16.3738)


class Page(HTMLParser):
    """Links, ids, text and scripts of a page."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(response.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, name: str) -> list[str]:
        return [
            attributes[name] for each, attributes in self.tags if each == tag and name in attributes
        ]

    def with_id(self, wanted: str) -> dict[str, str] | None:
        return next((each for _, each in self.tags if each.get("id") == wanted), None)

    def rel(self, wanted: str) -> str:
        return next((each["href"] for _, each in self.tags if each.get("rel") == wanted), "")

    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def folder(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six pictures, two of the same content, and a file that is none."""
    photos = tmp_path_factory.mktemp("views") / "photos"
    (photos / "road").mkdir(parents=True)
    with Image.open(photographs / "chelsea.png") as cat:
        exif = Image.Exif()
        exif[0x8825] = {1: "N", 2: (48.0, 12.0, 29.5), 3: "E", 4: (16.0, 22.0, 25.7)}
        cat.convert("RGB").save(photos / "cat.jpg", exif=exif, quality=95)
        cat.convert("RGB").resize((225, 150)).save(photos / "small cat.jpg", quality=90)
        large = cat.convert("RGB").resize((2400, 1600))
        large.save(photos / "large.tiff")
    shutil.copy(photographs / "coffee.png", photos / HOSTILE)
    shutil.copy(photographs / "motorcycle_left.png", photos / "road" / "left.png")
    shutil.copy(photographs / "motorcycle_left.png", photos / "road" / "copy.png")
    (photos / "broken.png").write_bytes(b"no picture")
    return photos


@pytest.fixture(scope="module")
def settings(es_url: str, folder: Path) -> Iterator[Settings]:
    """The folder, indexed by `starter`; and a document whose fields are hostile."""
    index = f"views-{uuid.uuid4().hex[:12]}"
    environment = {
        "ES_URL": es_url, "ES_IMGSEARCH_INDEX": index, "ES_IMGSEARCH_READ_WORKERS": "1",
        "ES_IMGSEARCH_SETTLE_SECONDS": "0.1",
    }  # fmt: skip
    run = CliRunner(env=environment).invoke
    assert run(main, ["init", "--encoder", "starter"]).exit_code == 0
    assert run(main, ["sync", str(folder)]).exit_code == 1
    made = load_settings({"es_url": es_url, "index": index, "read_workers": 1}, environment={})
    store = Store(connect(made), index)
    hostile = {
        **store.documents.get(image_id("photos", "cat.jpg")), "image_id": "e" * 32,
        "image_name": EVIL, "relative_path": f"gone/{EVIL}", "folder": f"gone/{EVIL}",
        "caption": EVIL, "title": EVIL, "tags": [EVIL, "javascript:alert(1)"], "camera": EVIL,
        "source_url": "javascript:alert(1)", "attributes": {EVIL: EVIL}, "creator": [EVIL],
        "content_id": "e" * 32, "image_embedding": store.documents.vector(
            image_id("photos", "cat.jpg")).tolist(),
    }  # fmt: skip
    assert store.documents.write([Write("e" * 32, document=hostile)]) == {"e" * 32: None}
    store.refresh()
    yield made
    remove_index(store)


@pytest.fixture(scope="module")
def client(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with client_of(settings, tmp_path_factory.mktemp("cache")) as each:
        yield each


def client_of(settings: Settings, cache: Path) -> TestClient:
    files = PictureFiles(Store(connect(settings), settings.index), settings, cache)
    return TestClient(create_app(files, SearchService(settings)), base_url=ADDRESS)


def page(response: Response, status: int = 200) -> Page:
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    return Page(response)


def of(path: str) -> str:
    return image_id("photos", path)


def test_a_picture_is_shown_with_all_that_is_stored(
    client: TestClient, settings: Settings, folder: Path
):
    shown = page(client.get(f"/pictures/{of('cat.jpg')}"))
    stored = Store(connect(settings), settings.index).documents.get(of("cat.jpg"))
    titles = {each["title"] for tag, each in shown.tags if tag == "th"}
    assert titles == set(stored) - {"height"}
    assert str(folder / "cat.jpg") in shown.text
    assert "451 × 300 (0.14 megapixels)" in shown.text
    size = (folder / "cat.jpg").stat().st_size
    assert f"({size:,} bytes)" in shown.text
    assert "geo:48.208194,16.373806" in shown.all("a", "href")
    assert "asks no map service" in shown.text
    assert f"/?like={of('cat.jpg')}&part=1" in shown.all("a", "href")
    assert shown.with_id("away") is None
    assert len(shown.all("img", "src")) == 1 + 5  # collapsed: the copy is left out


def test_other_files_with_the_same_content_are_listed(client: TestClient):
    shown = page(client.get(f"/pictures/{of('road/left.png')}"))
    assert "Other files with the same content" in shown.text
    assert f"/pictures/{of('road/copy.png')}" in shown.all("a", "href")
    assert "photos/road/copy.png" in shown.text


@pytest.mark.parametrize("search", ["q=a+cat", "sort=folder", "sort=oldest&q=picture", ""])
def test_previous_and_next_are_those_of_the_search(client: TestClient, search: str):
    views = [each for each in page(client.get(f"/?{search}")).all("a", "href") if "n=" in each]
    views = list(dict.fromkeys(views))
    assert len(views) >= 5
    for number, view in enumerate(views):
        shown = page(client.get(view))
        assert shown.rel("prev") == (views[number - 1] if number else "")
        assert shown.rel("next") == (views[number + 1] if number + 1 < len(views) else "")
        back = shown.with_id("back")
        assert back is not None
        assert back["href"] == f"/?{search}".removesuffix("?")


@pytest.mark.parametrize("n", ["0", "-1", "x", "99999999", "²", "1.5", "0x1", "+1"])
def test_a_number_that_is_none_leaves_out_the_neighbours(client: TestClient, n: str):
    shown = page(client.get(f"/pictures/{of('cat.jpg')}", params={"q": "a cat", "n": n}))
    assert (shown.rel("prev"), shown.rel("next")) == ("", "")


def test_a_picture_that_has_moved_in_its_search_is_found_there(client: TestClient):
    for n in (2, 5, 200):
        shown = page(client.get(f"/pictures/{of('cat.jpg')}?q=a+cat&n={n}"))
        assert shown.rel("prev") == ""
        assert shown.rel("next").endswith("?q=a+cat&n=2")


def test_a_search_that_works_no_longer_leaves_out_the_neighbours(client: TestClient):
    for search in ("image=0&n=2", "q=cat&mode=nothing&n=1", "filter=nothing:x&n=1"):
        shown = page(client.get(f"/pictures/{of('cat.jpg')}?{search}"))
        assert (shown.rel("prev"), shown.rel("next")) == ("", "")


@pytest.mark.parametrize(
    "wrong", ["0" * 32, "x", "E" * 32, "%00", "%FF%FE", "<script>", "a" * 5000]
)
def test_an_id_that_is_none(client: TestClient, wrong: str):
    shown = page(client.get(f"/pictures/{wrong}"), 404)
    assert "No picture has the image_id" in shown.text


def test_previews_of_any_format_are_cached_jpegs(client: TestClient):
    for path, size in (("large.tiff", (1600, 1067)), ("cat.jpg", (451, 300))):
        answer = client.get(f"/previews/{of(path)}")
        assert answer.headers["content-type"] == "image/jpeg"
        with Image.open(io.BytesIO(answer.content)) as picture:
            assert (picture.format, picture.size) == ("JPEG", size)
            assert max(picture.size) <= PREVIEW_PIXELS
        again = client.get(
            f"/previews/{of(path)}", headers={"if-none-match": answer.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")
        thumbnail = client.get(f"/thumbnails/{of(path)}")
        with Image.open(io.BytesIO(thumbnail.content)) as picture:
            assert max(picture.size) == 320
    assert client.get(f"/previews/{'0' * 32}").status_code == 404
    assert client.head(f"/previews/{of('cat.jpg')}").status_code == 200


def test_an_original_on_another_host(settings: Settings, tmp_path: Path):
    elsewhere = changed_settings(settings, host="elsewhere")
    with client_of(elsewhere, tmp_path) as client:
        shown = page(client.get(f"/pictures/{of('cat.jpg')}"))
    assert "run `es-imgsearch serve` there" in shown.text
    assert "photos/cat.jpg" in shown.text
    assert {"th"} <= {tag for tag, _ in shown.tags}


def test_an_original_that_is_gone_changed_or_on_a_disk_that_is_not_there(
    client: TestClient, folder: Path
):
    view = f"/pictures/{of('small cat.jpg')}"
    file, aside = folder / "small cat.jpg", folder.parent / "aside.jpg"

    def away() -> str:
        shown = page(client.get(view))
        return "" if shown.with_id("away") is None else shown.words()

    assert away() == ""
    file.rename(aside)
    assert "is gone: run `es-imgsearch sync` on its folder" in away()
    file.write_bytes(b"other content")
    assert "has changed since it was indexed" in away()
    file.unlink()
    aside.rename(file)
    folder.rename(folder.parent / "unmounted")
    assert f"The folder '{folder}' is not there, or is empty" in away()
    folder.mkdir()
    assert "Mount it or bring the folder back" in away()
    folder.rmdir()
    (folder.parent / "unmounted").rename(folder)
    file.chmod(0)
    is_read_anyway = os.access(file, os.R_OK)
    said = away()
    file.chmod(0o644)
    assert is_read_anyway or "let the user who runs" in said
    assert away() == ""


def test_status_says_what_is_indexed_and_what_to_do_next(
    client: TestClient, settings: Settings, folder: Path
):
    shown = page(client.get("/status"))
    words = shown.words()
    assert f"es-imgsearch watch photos={folder} --index {settings.index}" in words
    assert "1 file could not be read or stored" in words
    assert "starter, 384 dims" in words
    assert "not calibrated" in words
    assert "not tuned" in words
    assert f"{folder} on {settings.host}" in words
    assert str(folder / "broken.png") in words
    (failure,) = client.get("/api/v1/failures").json()
    assert failure["message"] in words
    assert client.get("/api/v1/status").json()["calibrated"] == []
    assert shown.rel("next") == ""


def test_failures_are_paged_and_those_that_can_be_read_have_thumbnails(
    settings: Settings, folder: Path, tmp_path: Path
):
    store = Store(connect(settings), settings.index)
    made = [
        {
            "image_id": f"{n:032x}", "image_name": "cat.jpg", "root": "photos",
            "relative_path": "cat.jpg", "folder": "", "size_bytes": 1, "mtime_ns": 1,
            "error_class": "embed_failed" if n else "no_picture", "message": EVIL, "attempts": 1,
            "failed_at": "2026-01-01T00:00:00+00:00",
        }
        for n in range(70)
    ]  # fmt: skip
    store.documents.write_failures(made)
    try:
        with client_of(settings, tmp_path) as client:
            pages = [page(client.get(f"/status?page={n}")) for n in (1, 2, 3)]
            assert [each.rel("next") for each in pages] == ["/status?page=2", "/status?page=3", ""]
            assert [each.rel("prev") for each in pages] == ["", "/status", "/status?page=2"]
            small = [each for one in pages for each in one.all("img", "src")]
            assert len(small) == 69
            assert client.get(small[-1]).headers["content-type"] == "image/jpeg"
            assert client.get(f"/thumbnails/{0:032x}").status_code == 404
            assert client.get(f"/images/{1:032x}").status_code == 404
            for wrong in ("0", "x", "99999"):
                assert client.get(f"/status?page={wrong}").status_code == 400
    finally:
        for each in made:
            store.documents.delete([str(each["image_id"])])
        store.refresh()
