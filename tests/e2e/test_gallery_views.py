"""The gallery's views around the search: a picture, duplicates, status, results as files."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import threading
import uuid
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from httpx import Response
from PIL import Image
from playwright.sync_api import expect

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.doctor.hints import hints
from es_imgsearch.records import image_id
from es_imgsearch.search.client import ImageSearch
from es_imgsearch.serve.answers import duplicate_lists
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.page import duplicates_page, search_page
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PREVIEW_PIXELS, PictureFiles
from es_imgsearch.settings import Settings, changed_settings, load_settings
from es_imgsearch.testing import remove_index
from es_imgsearch.watch.given_roots import parse_roots
from tests.support.gallery import (
    Gallery,
    address,
    broken_images,
    obstacles,
    open_chromium,
    scrolls_sideways,
    served,
)

pytestmark = [pytest.mark.es, pytest.mark.process]

ADDRESS = "http://127.0.0.1:8080"
HOSTILE = "<script>alert(1)<'\"&.png"
EVIL = "\"><script>alert('x')</script>"
GONE = "e" * 32


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
        **store.documents.get(image_id("photos", "cat.jpg")), "image_id": GONE,
        "image_name": EVIL, "relative_path": f"gone/{EVIL}", "folder": f"gone/{EVIL}",
        "caption": EVIL, "title": EVIL, "tags": [EVIL, "javascript:alert(1)"], "camera": EVIL,
        "source_url": "javascript:alert(1)", "attributes": {EVIL: EVIL}, "creator": [EVIL],
        "content_id": GONE, "image_embedding": store.documents.vector(
            image_id("photos", "cat.jpg")).tolist(),
    }  # fmt: skip
    assert store.documents.write([Write(GONE, document=hostile)]) == {GONE: None}
    store.refresh()
    yield made
    remove_index(store)


@pytest.fixture(scope="module")
def client(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with client_of(settings, tmp_path_factory.mktemp("cache")) as each:
        yield each


def client_of(settings: Settings, cache: Path) -> TestClient:
    files = PictureFiles(Store(connect(settings), settings.index), settings, cache)
    app = create_app(files, SearchService(settings, originals=files), rate_limit="none")
    return TestClient(app, base_url=ADDRESS)


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
        assert back["href"] == f"{f'/?{search}'.removesuffix('?')}#hit-{number + 1}"


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
    assert not [each for each in shown.all("img", "src") if each.startswith("/previews")]
    assert f"/images/{of('cat.jpg')}" not in shown.all("a", "href")
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


def run(settings: Settings, *words: str) -> str:
    environment = {"ES_URL": settings.es_url, "ES_IMGSEARCH_INDEX": settings.index}
    ended = CliRunner(env=environment).invoke(main, list(words))
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_duplicates_are_what_the_command_prints(client: TestClient, settings: Settings):
    for level in ("same", "near", "similar"):
        expected = json.loads(run(settings, "duplicates", "--level", level, "--json"))
        answer = client.get("/api/v1/duplicates", params={"level": level})
        assert answer.json() == expected
        assert answer.headers["x-total-count"] == str(len(expected))
        listed = client.get("/duplicates.txt", params={"level": level})
        assert run(settings, "duplicates", "--level", level) in listed.text
        assert listed.headers["content-type"].startswith("text/plain")
    near = client.get("/api/v1/duplicates").json()
    assert len(near) == 2
    assert client.get("/api/v1/duplicates?k=1&offset=1").json() == near[1:]
    assert client.get("/api/v1/duplicates?offset=9").json() == []
    script = client.get("/duplicates.sh?level=near")
    assert script.text == run(settings, "duplicates", "--script")
    assert 'filename="remove-duplicates.sh"' in script.headers["content-disposition"]


def test_groups_are_shown_side_by_side_and_the_kept_file_is_marked(client: TestClient):
    shown = page(client.get("/duplicates?level=near"))
    assert [each["class"] for tag, each in shown.tags if tag == "section"] == ["group"] * 2
    assert [each.get("class") for tag, each in shown.tags if tag == "li"].count("kept") == 2
    words = shown.words()
    assert "This page deletes nothing" in words
    assert "same bytes" in words
    assert "bits of 64 of the hashes differ" in words
    assert "/duplicates.sh?level=near" in shown.all("a", "href")
    assert "/duplicates.txt?level=near" in shown.all("a", "href")
    # Without JavaScript a form sends every field.
    sent = client.get("/duplicates?level=same&keep=newest&folder=&threshold=")
    assert sent.url.query == b"level=same&keep=newest"
    assert "1 group, 2 pictures" in page(sent).words()
    of_one = page(client.get(f"/duplicates?level=near&image_id={of('small cat.jpg')}"))
    assert "1 group, " in of_one.words()


def test_a_folder_or_date_says_which_file_is_kept(client: TestClient, folder: Path):
    left, copy = folder / "road" / "left.png", folder / "road" / "copy.png"

    def kept(**asked: str) -> str:
        (group,) = client.get("/api/v1/duplicates", params={"level": "same", **asked}).json()
        return str(group["pictures"][0]["relative_path"])

    ages = sorted([left, copy], key=lambda each: each.stat().st_mtime_ns)
    assert kept(keep="oldest") == f"road/{ages[0].name}"
    assert kept(keep="newest") == f"road/{ages[1].name}"
    for folder_given in ("photos/road", str(folder / "road"), "photos", "photos/road/"):
        assert kept(keep="oldest", folder=folder_given) == f"road/{ages[0].name}"
    for mistyped in ("road", "photos/raod", "nowhere"):
        for where in ("/api/v1/duplicates", "/duplicates.sh", "/duplicates"):
            refused = client.get(where, params={"level": "same", "folder": mistyped})
            assert refused.status_code == 400
            assert "No file of these groups is in" in refused.text
            assert ("photos/road" in refused.text) == (mistyped == "photos/raod")


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("level=other", 400), ("keep=other", 400), ("threshold=x", 400), ("threshold=nan", 400),
        ("level=near&threshold=99", 400), ("level=same&threshold=1", 200), ("other=1", 400),
        ("level=same&thorough=true", 200), ("level=similar&thorough=true", 400),
        ("level=near&image_id=x", 400), (f"image_id={'0' * 32}", 404), ("page=0", 400),
        ("level=similar&unconfirmed=true", 400), ("page=9", 200),
    ],
)  # fmt: skip
def test_duplicates_that_cannot_be_asked_for(client: TestClient, asked: str, status: int):
    assert page(client.get(f"/duplicates?{asked}"), status).words()


def test_no_script_for_what_nothing_compared(client: TestClient):
    for asked in ("level=similar", "level=near&unconfirmed=true"):
        refused = client.get(f"/duplicates.sh?{asked}")
        assert (
            "removes only files whose bytes or pixels were compared" in page(refused, 400).words()
        )
        assert "/duplicates.sh" not in client.get(f"/duplicates?{asked}").text


def test_a_long_comparison_says_so_and_goes_on(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    """It begins once the one before has ended: here the test holds the lock."""
    held = threading.Event()
    compare = duplicate_lists.find_duplicates

    def slow(*given: Any, **options: Any) -> Any:
        assert held.wait(60)
        return compare(*given, **options)

    monkeypatch.setattr(duplicate_lists, "find_duplicates", slow)
    monkeypatch.setattr(duplicates_page, "_WAIT_SECONDS", 0.0)
    asked = "/duplicates?level=near&threshold=3"
    waiting = page(client.get(asked))
    assert "are being compared" in waiting.words()
    assert ("meta", {"http-equiv": "refresh", "content": "3"}) in waiting.tags
    for threshold in (4, 5, 6):
        assert "being compared" in client.get(f"{asked[:-1]}{threshold}").text
    busy = client.get(f"{asked[:-1]}7")
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "5")
    held.set()
    assert client.get("/api/v1/duplicates?threshold=3").status_code == 200
    assert "group" in page(client.get(asked)).words()


def test_a_large_index_is_compared_by_the_command(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, settings: Settings
):
    monkeypatch.setattr(duplicate_lists, "MOST_COMPARED", 3)
    refused = page(client.get("/duplicates?level=similar"), 400)
    command = f"es-imgsearch duplicates --level similar --index {settings.index}"
    assert command in refused.words()
    run(settings, *command.split()[1:])
    assert client.get("/duplicates?level=same").status_code == 200
    assert client.get(f"/duplicates?level=similar&image_id={of('cat.jpg')}").status_code == 200


def test_what_status_advises_works(client: TestClient, settings: Settings, folder: Path):
    steps = hints(client.get("/api/v1/status").json(), settings.host)
    watch, retry = (shlex.split(each.command) for each in steps)
    assert retry[1:] == ["failures", "retry", "--index", settings.index]
    environment = {"ES_URL": settings.es_url, "ES_IMGSEARCH_READ_WORKERS": "1"}
    ended = CliRunner(env=environment).invoke(main, retry[1:])
    assert (ended.exit_code, "1 failed" in ended.output) == (1, True)
    assert watch[1:2] + watch[3:] == ["watch", "--index", settings.index]
    (root,) = parse_roots([watch[2]])
    assert (root.name, root.path) == ("photos", folder)


def test_an_index_without_pictures_says_what_to_do(es_url: str, folder: Path, tmp_path: Path):
    index = f"views-empty-{uuid.uuid4().hex[:12]}"
    settings = load_settings({"es_url": es_url, "index": index, "read_workers": 1}, environment={})
    run(settings, "init", "--encoder", "starter")
    try:
        with client_of(settings, tmp_path) as client:
            for path in ("/", "/status", "/duplicates", "/?q=cat", "/duplicates?level=near"):
                assert page(client.get(path)).words()
            assert "No pictures yet" in page(client.get("/")).words()
            assert "No duplicates." in page(client.get("/duplicates")).words()
            shown = page(client.get("/status")).words()
            assert (
                "Nothing is indexed yet: index a folder of pictures. es-imgsearch sync DIR" in shown
            )
            (step,) = hints(client.get("/api/v1/status").json(), settings.host)
            (tmp_path / "photos").mkdir()
            shutil.copy(folder / "cat.jpg", tmp_path / "photos")
            command = step.command.replace("DIR", str(tmp_path / "photos"))
            run(settings, *shlex.split(command)[1:])
            assert "cat.jpg" in page(client.get("/?q=cat")).words()
    finally:
        remove_index(Store(connect(settings), index))


@pytest.mark.parametrize("search", ["q=a+cat", "q=a+cat&sort=folder", "filter=format:png", ""])
def test_results_are_files_of_what_the_page_lists(client: TestClient, folder: Path, search: str):
    shown = page(client.get(f"/?{search}"))
    listed = [each["data-id"] for tag, each in shown.tags if tag == "li" and "data-id" in each]
    links = {each.partition("?")[0]: each for each in shown.all("a", "href")}
    table = client.get(links["/export.csv"])
    rows = list(csv.DictReader(io.StringIO(table.text, newline="")))
    assert [each["image_id"] for each in rows] == listed
    assert table.headers["content-disposition"] == 'attachment; filename="pictures.csv"'
    hits = client.get(links["/export.json"]).json()
    assert [each["image_id"] for each in hits["hits"]] == listed
    assert hits.keys() >= {"hits", "facets", "notes", "took_ms", "relevant"}
    paths = client.get(links["/export.txt"]).text.splitlines()
    assert paths == [each["path"] for each in hits["hits"]]
    assert str(folder / HOSTILE) in paths
    assert all(not value.startswith(("=", "@", "+")) for row in rows for value in row.values())
    assert ("/export.ndjson" in links) == ("q=" in search)


def test_a_search_is_saved_for_kibana_with_its_filters(
    client: TestClient, settings: Settings, tmp_path: Path
):
    answer = client.get("/export.ndjson?q=a+cat&filter=format:png&filter=-tags:dog")
    assert answer.headers["content-type"] == "application/x-ndjson"
    objects = [json.loads(line) for line in answer.text.splitlines()]
    query = next(each for each in objects if each.get("type") == "query")
    assert query["attributes"]["title"].endswith(": a cat, format:png, -tags:dog")
    knn = query["attributes"]["query"]["query"]["knn"]
    assert "png" in json.dumps(knn["filter"])
    vega = next(each for each in objects if each.get("type") == "visualization")
    assert "png" in vega["attributes"]["visState"]
    (tmp_path / "search.ndjson").write_bytes(answer.content)
    run(settings, "kibana", "check", str(tmp_path / "search.ndjson"))
    for asked in ("", "filter=format:png", "q=cat&mode=x", f"like={'0' * 32}"):
        assert client.get(f"/export.ndjson?{asked}").status_code in {400, 404}


@pytest.fixture(scope="module")
def views(client: TestClient) -> list[str]:
    """Every view, with hostile values in its address and in what it shows."""
    evil = quote(EVIL)
    return [
        "/", "/?q=a+cat", f"/?q={evil}", f"/?filter=tags:{evil}", f"/?filter={evil}:x",
        f"/?like={evil}", f"/?q=cat&not={evil}", f"/?page={evil}", f"/?image={evil}",
        f"/pictures/{of('cat.jpg')}?q=a+cat&n=1", f"/pictures/{of(HOSTILE)}",
        f"/pictures/{GONE}?q={evil}&n=1&why=1",
        f"/pictures/{GONE}",
        f"/pictures/{GONE}?q={evil}&n=1", f"/pictures/{quote('<script>')}",
        f"/pictures/{of('cat.jpg')}?n={evil}",
        "/status", f"/status?page={evil}", "/duplicates", "/duplicates?level=near",
        "/duplicates?level=similar&threshold=0.1", f"/duplicates?folder={evil}",
        f"/duplicates?level={evil}", f"/duplicates?image_id={evil}",
        f"/duplicates?threshold={evil}",
        f"/duplicates.sh?level={evil}", f"/export.csv?mode={evil}", f"/export.ndjson?filter={evil}",
    ]  # fmt: skip


def test_nothing_that_is_stored_or_asked_becomes_markup(client: TestClient, views: list[str]):
    seen = 0
    for view in views:
        answer = client.get(view)
        assert answer.status_code in {200, 400, 404, 422}, (view, answer.text)
        shown = page(answer, answer.status_code)
        for tag, attributes in shown.tags:
            assert tag != "script" or attributes["src"].startswith("/static/"), view
            assert not any(name.startswith("on") or name == "style" for name in attributes), view
            for name in ("href", "src", "action"):
                address = attributes.get(name, "/")
                assert address.startswith(("/", "#", "geo:")), (view, address)
                assert not address.startswith("//"), (view, address)
        assert "<script>" not in answer.text
        seen += EVIL in shown.text
    assert seen >= 5


def test_every_link_of_every_view_leads_somewhere(client: TestClient, views: list[str]):
    links = {
        address
        for view in views
        for tag, name in (("a", "href"), ("img", "src"), ("link", "href"), ("script", "src"))
        for address in page(client.get(view), client.get(view).status_code).all(tag, name)
    }
    for link in sorted(links):
        if link.startswith(("#", "geo:")):
            continue
        status = client.get(link).status_code
        # The original of one document is in no folder.
        expected = 404 if GONE in link and link.startswith(("/images", "/prev", "/thumb")) else 200
        assert status == expected, link


def test_elasticsearch_away_is_said_with_when_to_try_again(settings: Settings, tmp_path: Path):
    away = changed_settings(settings, es_url="http://127.0.0.1:9", request_timeout_seconds=1.0)
    with client_of(away, tmp_path) as client:
        for view in ("/", "/?q=cat", f"/pictures/{of('cat.jpg')}", "/status", "/duplicates",
                     "/export.csv", "/duplicates.txt"):  # fmt: skip
            answer = client.get(view)
            shown = page(answer, 503)
            assert answer.headers["retry-after"] == "5"
            assert view in shown.all("a", "href"), view
            assert "Try again" in shown.words()
            assert "Elasticsearch" in shown.words()


def test_no_index_is_said_with_the_command_that_makes_one(settings: Settings, tmp_path: Path):
    missing = changed_settings(settings, index=f"views-none-{uuid.uuid4().hex[:12]}")
    with client_of(missing, tmp_path) as client:
        for view in ("/", "/?q=cat", f"/pictures/{of('cat.jpg')}", "/status", "/duplicates"):
            shown = page(client.get(view), 404).words()
            assert f"es-imgsearch init --index {missing.index}" in shown


def test_a_model_that_is_being_loaded_is_said_and_other_views_work(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(search_page, "WARM_SECONDS", 0.05)
    loading, loaded = threading.Event(), threading.Event()
    warm_up = ImageSearch.embed

    def slow(*given: Any) -> Any:
        loading.set()
        assert loaded.wait(60)
        return warm_up(*given)

    monkeypatch.setattr(ImageSearch, "embed", slow)
    with client_of(settings, tmp_path) as client:
        assert loading.wait(60)
        answer = client.get("/?q=cat")
        assert "model is being loaded" in page(answer, 503).words()
        assert answer.headers["retry-after"] == "5"
        for view in ("/", "/status", "/duplicates", f"/pictures/{of('cat.jpg')}?q=cat&n=1"):
            assert client.get(view).status_code == 200
        loaded.set()
        monkeypatch.setattr(search_page, "WARM_SECONDS", 60.0)
        assert client.get("/?q=cat").status_code == 200


def test_why_it_matched_is_shown_on_request_with_its_box(client: TestClient, settings: Settings):
    view = f"/pictures/{of('road/left.png')}?q=wheel&n=1"
    plain = page(client.get(view))
    ask = plain.with_id("ask-why")
    assert ask is not None
    assert plain.with_id("why") is None
    shown = page(client.get(ask["href"]))
    match = client.get(f"/api/v1/images/{of('road/left.png')}/match?q=wheel").json()
    (drawn,) = [each for tag, each in shown.tags if tag == "rect"]
    assert [int(drawn[each]) for each in ("x", "y", "width", "height")] == match["box"]
    assert f"{match['box_cosine']:.3f}" in shown.words()
    assert shown.rel("next").endswith("&why=1")
    back = shown.with_id("back")
    assert back is not None
    assert back["href"] == "/?q=wheel#hit-1"


def test_why_words_matched_and_why_nothing_is_said_without_a_search(client: TestClient):
    named = page(client.get(f"/pictures/{of('road/left.png')}?q=left&mode=text&n=1&why=1"))
    assert "Only words were compared." in named.words()
    assert "Words of the search stand in: File nameleft.png" in named.words()
    for asked in ("", "?why=1", "?filter=format:png&n=1&why=1", "?q=a&mode=x&why=1&n=1"):
        shown = page(client.get(f"/pictures/{of('cat.jpg')}{asked}"))
        assert shown.with_id("why") is None
        assert shown.with_id("ask-why") is None


@pytest.fixture
def gallery(settings: Settings, tmp_path: Path) -> Iterator[Gallery]:
    """Pages in Chromium; whatever it complains of fails the test."""
    files = PictureFiles(Store(connect(settings), settings.index), settings, tmp_path)
    app = create_app(files, SearchService(settings, originals=files))
    with open_chromium() as browser, served(app) as site:
        opened = Gallery(browser, site)
        yield opened
        opened.close()
        # One document has no file.
        assert [each for each in opened.complaints if GONE not in each] == []


def test_nothing_stands_in_the_way_of_anyone(gallery: Gallery):
    for path in (
        f"/pictures/{of('cat.jpg')}?q=a+cat&n=1", f"/pictures/{of('road/left.png')}?q=wheel&why=1",
        "/status", "/duplicates?level=near", "/duplicates",
    ):  # fmt: skip
        for scheme in ("light", "dark"):
            shown = gallery.open(path, color_scheme=scheme)
            assert obstacles(shown) == [], path
            assert [each for each in broken_images(shown) if GONE not in each] == [], path
            assert not scrolls_sideways(shown), path
        assert not scrolls_sideways(gallery.phone(path)), path
        assert not scrolls_sideways(gallery.open(path, viewport={"width": 320, "height": 640}))
    gone = gallery.open(f"/pictures/{'f' * 32}")
    assert obstacles(gone) == []
    # The page itself is none.
    gallery.complaints = [each for each in gallery.complaints if "404" not in each]


def test_arrows_lead_to_the_neighbours_and_a_button_copies_the_path(gallery: Gallery, folder: Path):
    shown = gallery.open(
        f"/pictures/{of('cat.jpg')}?q=a+cat&n=1",
        permissions=["clipboard-read", "clipboard-write"],
    )
    following = shown.locator("a[rel=next]").get_attribute("href")
    shown.keyboard.press("ArrowRight")
    shown.wait_for_url(f"**{following}")
    shown.keyboard.press("ArrowLeft")
    shown.wait_for_url("**/pictures/*&n=1")
    shown.keyboard.press("ArrowLeft")
    assert address(shown) == f"/pictures/{of('cat.jpg')}?q=a+cat&n=1"
    shown.get_by_role("button", name="Copy the path").click()
    shown.get_by_text("Copied.").wait_for()
    assert shown.evaluate("navigator.clipboard.readText()") == str(folder / "cat.jpg")


def test_views_without_scripts(gallery: Gallery):
    shown = gallery.open(f"/pictures/{of('cat.jpg')}?q=a+cat&n=1", scripts=False)
    assert not shown.get_by_role("button", name="Copy the path").is_visible()
    shown.get_by_role("link", name="Next").click()
    assert address(shown).endswith("?q=a+cat&n=2")
    shown.get_by_role("link", name="Back to the search").click()
    assert address(shown) == "/?q=a+cat"
    shown.get_by_role("link", name="Duplicates").click()
    shown.get_by_label("What counts").select_option("near")
    shown.get_by_label("also unconfirmed ones").check()
    shown.get_by_role("button", name="Compare").click()
    assert address(shown) == "/duplicates?level=near&keep=largest&unconfirmed=true"
    with shown.expect_download() as saved:
        shown.get_by_role("link", name="list").click()
    assert saved.value.suggested_filename == "duplicates.txt"
    shown.get_by_role("link", name="Status").click()
    expect(shown.get_by_role("heading", name="What to do next")).to_be_visible()


@pytest.fixture
def with_crop(es_url: str, photographs: Path, tmp_path: Path) -> Iterator[Settings]:
    """A picture and a grey part of it, which only a thorough comparison finds."""
    photos = tmp_path / "photos"
    photos.mkdir()
    with Image.open(photographs / "chelsea.png") as cat:
        cat.save(photos / "cat.png")
        cat.convert("L").crop((60, 20, 420, 290)).save(photos / "part.png")
    index = f"views-{uuid.uuid4().hex[:12]}"
    environment = {"ES_URL": es_url, "ES_IMGSEARCH_INDEX": index, "ES_IMGSEARCH_READ_WORKERS": "1"}
    invoke = CliRunner(env=environment).invoke
    assert invoke(main, ["init", "--encoder", "starter"]).exit_code == 0
    assert invoke(main, ["sync", str(photos)]).exit_code == 0
    yield load_settings({"es_url": es_url, "index": index, "read_workers": 1}, environment={})
    assert invoke(main, ["drop", "--yes"]).exit_code == 0


def test_a_thorough_comparison_is_chosen_on_the_page(with_crop: Settings, tmp_path: Path):
    expected = json.loads(run(with_crop, "duplicates", "--thorough", "--json"))
    assert len(expected) == 1
    with client_of(with_crop, tmp_path / "cache") as client:
        plain = page(client.get("/duplicates?level=near"))
        assert "section" not in [tag for tag, _ in plain.tags]
        (box,) = [each for tag, each in plain.tags if each.get("name") == "thorough"]
        assert "checked" not in box
        assert "reads every original" in plain.words()
        shown = page(client.get("/duplicates?level=near&thorough=true"))
        assert [each["class"] for tag, each in shown.tags if tag == "section"] == ["group"]
        (box,) = [each for tag, each in shown.tags if each.get("name") == "thorough"]
        assert "checked" in box
        # Nothing compared the pixels.
        assert "/duplicates.sh" not in shown.text
        refused = client.get("/duplicates.sh?level=near&thorough=true")
        assert "whose bytes or pixels were compared" in page(refused, 400).words()
        assert client.get("/api/v1/duplicates?thorough=true").json() == expected
        assert client.get("/api/v1/duplicates").json() == []
        other = client.get("/duplicates?level=similar&thorough=true")
        assert "Only level near can be thorough" in page(other, 400).words()


def test_similar_pictures_of_a_picture_have_their_relevance(client: TestClient):
    shown = client.get(f"/pictures/{of('road/left.png')}").text
    part = shown.partition('class="thumbs"')[2].partition("</ul>")[0]
    expected = client.get(
        "/", params={"like": of("road/left.png")}
    ).text.partition('id="hits"')[2]  # fmt: skip
    percents = re.findall(r'class="percent"[^>]*>(\d+%)<', part)
    assert percents == re.findall(r'class="percent"[^>]*>(\d+%)<', expected)[: len(percents)]


def test_technical_fields_are_folded(client: TestClient):
    shown = client.get(f"/pictures/{of('cat.jpg')}").text
    plain, _, folded = shown.partition('<details class="technical">')
    assert "Hash of the content" in folded
    assert "Hash of the content" not in plain
    assert "Size in pixels" in plain
