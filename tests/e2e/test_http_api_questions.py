"""What a search over HTTP or in the terminal can ask: negative filters, parts, weights, dates."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fastapi.testclient import TestClient
from httpx import Response
from PIL import Image

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.records import image_id
from es_imgsearch.search.client import ImageSearch
from es_imgsearch.search.query import StoredPicture
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.settings import Settings, load_settings
from es_imgsearch.testing import remove_index

pytestmark = [pytest.mark.es, pytest.mark.process]

ADDRESS = "http://127.0.0.1:8080"
ROAD = {"motorcycle_left.png", "motorcycle_right.png"}
ALL = {"chelsea.png", "coffee.png", "rocket.jpg", *ROAD}
SIDECAR = {
    "description": "A cup of espresso on a wooden table",
    "keywords": ["breakfast", "hot drink"],
    "material": "ceramic",
    "taken_at": "2015-01-01T00:00:00",
    "location": {"lat": 48.2, "lon": 16.37},
}

TAKEN = {
    "chelsea": "2023-06-30T23:59:59",
    "rocket": "2024-11-27T12:00:00",
    "road/motorcycle_left": "2020-02-29T00:00:01",
    "road/motorcycle_right": "2024-08-31T08:00:00",
}
TODAY = date(2024, 11, 28)

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def folder(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photographs; one has a sidecar file."""
    folder = tmp_path_factory.mktemp("questions") / "photos"
    (folder / "road").mkdir(parents=True)
    for name in sorted(ALL):
        shutil.copy(photographs / name, folder / ("road" if name in ROAD else "."))
    (folder / "coffee.json").write_text(json.dumps(SIDECAR))
    for name, taken in TAKEN.items():
        (folder / f"{name}.json").write_text(json.dumps({"taken_at": taken}))
    return folder


@pytest.fixture(scope="module")
def settings(es_url: str, folder: Path) -> Iterator[Settings]:
    index = f"api-questions-{uuid.uuid4().hex[:12]}"
    settings = load_settings({"es_url": es_url, "index": index, "read_workers": 1})
    run = command(settings)
    assert run("init", "--encoder", "starter").exit_code == 0
    assert run("sync", folder).exit_code == 0
    yield settings
    remove_index(Store(connect(settings), index))


def command(settings: Settings) -> Run:
    environment = {
        "ES_URL": settings.es_url,
        "ES_IMGSEARCH_INDEX": settings.index,
        "ES_IMGSEARCH_READ_WORKERS": "1",
        "ES_IMGSEARCH_DESCRIBERS": "-text_in_image",
        "ES_IMGSEARCH_SETTLE_SECONDS": "0.1",
    }

    def run(*words: str | Path) -> Result:
        return CliRunner(env=environment).invoke(main, [os.fspath(each) for each in words])

    return run


@pytest.fixture(scope="module")
def run(settings: Settings) -> Run:
    return command(settings)


@pytest.fixture(scope="module")
def files(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> PictureFiles:
    store = Store(connect(settings), settings.index)
    return PictureFiles(store, settings, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def client(settings: Settings, files: PictureFiles) -> Iterator[TestClient]:
    service = SearchService(settings, originals=files, today=lambda: TODAY)
    app = create_app(files, service)
    with TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as each:
        yield each


@pytest.fixture(scope="module")
def python(settings: Settings) -> Iterator[ImageSearch]:
    with ImageSearch(settings=settings) as search:
        yield search


def names(answer: Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [each["image_name"] for each in answer.json()["hits"]]


def refusal(answer: Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["detail"])


def printed_names(result: Result) -> set[str]:
    assert result.exit_code == 0, result.output
    return {os.path.basename(each) for each in result.stdout.split()}


NOT = [
    (["folder=road"], ALL - ROAD),
    (["folder=ROAD/"], ALL - ROAD),
    (["format=jpg"], ALL - {"rocket.jpg"}),
    (["format=jpg", "folder=road"], ALL - ROAD - {"rocket.jpg"}),
    (["image_name=coffee.png", "image_name=CHELSEA.png"], ALL - {"coffee.png", "chelsea.png"}),
    (["width=..600"], {"rocket.jpg", *ROAD}),
    (["location=48.2,16.37,5km"], ALL - {"coffee.png"}),
    (["location=10,10,5km"], ALL),
    (["description=espresso cup"], ALL - {"coffee.png"}),
    (["keywords=BREAKFAST"], ALL - {"coffee.png"}),
    (["root=photos"], set()),
    (["modified_at=1990"], ALL),
]


@pytest.mark.parametrize(("unwanted", "expected"), NOT)
def test_negative_filters(
    client: TestClient, run: Run, unwanted: list[str], expected: set[str]
) -> None:
    filters = [f"-{each.replace('=', ':', 1)}" for each in unwanted]
    answer = client.get("/api/v1/search", params={"q": "a photograph", "filter": filters})
    assert {*names(answer)} == expected
    by_json = client.post("/api/v1/search", json={"q": "a photograph", "filter": filters})
    assert {*names(by_json)} == expected
    facets = client.get("/api/v1/facets", params={"fields": "root", "filter": filters}).json()
    assert facets["root"] == ({"photos": len(expected)} if expected else {})
    options = [part for each in unwanted for part in ("--filter", each.replace("=", "!=", 1))]
    assert printed_names(run("search", "a photograph", "--paths", *options)) == expected


def test_negative_filters_beside_positive_ones(client: TestClient, run: Run) -> None:
    asked = {"q": "a photograph", "filter": ["format:png", "-folder:road", "-width:..451"]}
    assert names(client.get("/api/v1/search", params=asked)) == ["coffee.png"]
    like = client.get("/api/v1/search", params={"q": "a cat", "k": 1}).json()["hits"][0]["image_id"]
    similar = run("similar", like, "--paths", "--filter", "folder!=road", "--filter", "format=png")
    assert printed_names(similar) == {"coffee.png"}


def test_find_and_export_leave_out(run: Run, folder: Path, tmp_path: Path) -> None:
    found = run("find", "a photograph", folder, "--paths", "--filter", "folder!=Road")
    assert printed_names(found) == ALL - ROAD
    for filters, rows in ((["folder!=ROAD"], 3), (["format!=png", "width=1.."], 1)):
        options = [part for each in filters for part in ("--filter", each)]
        written = run("export", tmp_path / "rows.parquet", *options)
        assert written.exit_code == 0, written.output
        assert f"{rows} picture" in written.stderr


def test_a_negative_filter_that_means_nothing(client: TestClient, run: Run) -> None:
    answer = client.get("/api/v1/search", params={"q": "a photograph", "filter": "-format:pgn"})
    assert "No picture has the format 'pgn'; near it are 'png', 'jpeg'." in answer.json()["notes"]
    assert len(names(answer)) == 5
    noted = run("search", "a photograph", "--filter", "format!=pgn")
    assert "near it are 'png', 'jpeg'" in noted.output
    wrong = client.get("/api/v1/search", params={"q": "a", "filter": "-fromat:png"})
    assert "no field 'fromat'" in refusal(wrong, 400)
    no_filter = client.get("/api/v1/facets", params={"fields": "root", "filter": "-root"})
    assert "field:value or -field:value, not '-root'" in refusal(no_filter, 400)
    assert "looks like a filter" in run("search", "format!=png").stderr


BOXES = [
    (0, 0, 451, 300), (100, 20, 200, 200), (-50, -50, 120, 120), (300, 200, 1000, 1000),
    (10.5, 20.25, 99.5, 100), (0, 0, 1, 1), (450, 299, 5, 5),
]  # fmt: skip


@pytest.mark.parametrize("box", BOXES)
def test_a_box_on_a_stored_picture_is_that_part_of_its_original(
    client: TestClient, python: ImageSearch, folder: Path, box: tuple[float, ...]
) -> None:
    cat = image_id("photos", "chelsea.png")
    asked = {"like": cat, "box": ",".join(map(str, box)), "explain": True}
    answer = client.get("/api/v1/search", params=asked)
    assert {*names(answer)} == ALL - {"chelsea.png"}
    with Image.open(folder / "chelsea.png") as picture:
        left, top = max(0, int(box[0])), max(0, int(box[1]))
        right, bottom = min(451, round(box[0] + box[2])), min(300, round(box[1] + box[3]))
        part = picture.convert("RGB").crop((left, top, right, bottom))
    expected = python.search_image(part, without={"image_id": cat})
    assert names(answer) == [each.fields["image_name"] for each in expected]
    first = answer.json()["hits"][0]["score"]
    assert first == pytest.approx(expected[0].score, abs=0.01)
    is_as_whole = first == pytest.approx(python.similar(cat)[0].score, abs=1e-4)
    assert is_as_whole == (box == BOXES[0])


@contextmanager
def turned(es_url: str, tmp_path: Path, *options: str) -> Iterator[TestClient]:
    """A service of a large picture whose upper third is red, a red one and a white one."""
    folder = tmp_path / "large"
    folder.mkdir()
    lying = Image.new("RGB", (3000, 2000), (255, 255, 255))
    lying.paste((200, 30, 30), (0, 0, 1000, 2000))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise: the red part is the upper one
    lying.save(folder / "turned.jpg", exif=exif)
    Image.new("RGB", (64, 64), (200, 30, 30)).save(folder / "red.png")
    Image.new("RGB", (24, 24), (255, 255, 255)).save(folder / "white.png")
    index = f"api-turned-{uuid.uuid4().hex[:12]}"
    settings = load_settings({"es_url": es_url, "index": index, "read_workers": 1})
    run = command(settings)
    store = Store(connect(settings), index)
    try:
        assert run("init", "--encoder", "starter", *options).exit_code == 0
        assert run("sync", folder).exit_code == 0
        originals = PictureFiles(store, settings, tmp_path / "cache")
        app = create_app(originals, SearchService(settings, originals=originals))
        with TestClient(app, base_url=ADDRESS) as client:
            yield client
    finally:
        remove_index(store)


def test_a_box_on_a_turned_and_large_original(es_url: str, tmp_path: Path) -> None:
    """The box is in pixels of the upright picture, of which 1600 are searched with."""
    with turned(es_url, tmp_path) as client:
        like = image_id("large", "turned.jpg")
        for box, expected in (
            ("0,0,2000,1000", "red.png"),
            ("0,1000,2000,2000", "white.png"),
            ("1990,0,10,900", "red.png"),
        ):
            found = client.get("/api/v1/search", params={"like": like, "box": box})
            assert names(found)[0] == expected
        outside = client.get("/api/v1/search", params={"like": like, "box": "2000,0,10,10"})
        assert "which is 2000 x 3000 pixels" in refusal(outside, 422)


@pytest.mark.parametrize("options", [(), ("--regions",)])
def test_the_part_that_is_nearest_to_the_query(
    es_url: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """By the stored regions, or by tiles of the original; the upper third is red."""
    with turned(es_url, tmp_path, *options) as client:
        large, red, white = (image_id("large", each) for each in ("turned.jpg", "red.png",
                                                                  "white.png"))  # fmt: skip
        answer = client.get(f"/api/v1/images/{large}/match", params={"like": red}).json()
        _, y, width, height = answer["box"]
        assert y == 0
        assert (width, height) == ((1000, 1500) if options else (pytest.approx(667, abs=1), 1000))
        assert answer["box_cosine"] > answer["whole_cosine"]
        if not options:
            assert answer["box_cosine"] == pytest.approx(1, abs=0.02)
        below = client.get(f"/api/v1/images/{large}/match", params={"like": white}).json()
        assert below["box"][1] >= (1000 if not options else 750)
        # Too small for tiles.
        small = client.get(f"/api/v1/images/{white}/match", params={"like": large}).json()
        assert small["box"] is None
        assert small["box_cosine"] is None
        assert small["whole_cosine"] == pytest.approx(
            client.get("/api/v1/search", params={"like": large, "k": 2}).json()["hits"][0]["score"],
            abs=0.2,
        )
        itself = client.get(f"/api/v1/images/{large}/match", params={"like": large}).json()
        assert itself["whole_cosine"] == pytest.approx(1, abs=1e-5)
        assert itself["box"] is None
        assert itself["notes"] == []
        box = {"like": large, "box": "0,0,2000,1000"}
        by_box = client.get(f"/api/v1/images/{large}/match", params=box).json()
        assert by_box["box"][1] == 0


def test_a_box_on_a_stored_picture_beside_words_and_pages(client: TestClient) -> None:
    cup = image_id("photos", "coffee.png")
    asked = {"like": cup, "box": "100,50,300,300", "q": "a vehicle", "k": 2}
    first = client.get("/api/v1/search", params=asked)
    second = client.get("/api/v1/search", params={**asked, "cursor": first.json()["next"]})
    assert {*names(first), *names(second)} == ALL - {"coffee.png"}
    other = {**asked, "box": "100,50,300,301", "cursor": first.json()["next"]}
    assert "another search" in refusal(client.get("/api/v1/search", params=other), 400)
    by_json = client.post(
        "/api/v1/search", json={**asked, "like": [cup], "box": [100, 50, 300, 300]}
    )
    assert names(by_json) == names(first)


def test_boxes_that_are_refused(client: TestClient, settings: Settings, folder: Path) -> None:
    cat, cup = image_id("photos", "chelsea.png"), image_id("photos", "coffee.png")
    for like in ([], [cat, cup]):
        answer = client.get("/api/v1/search", params={"like": like, "q": "a", "box": "0,0,9,9"})
        assert "A box is a part of a picture: send one" in refusal(answer, 400)
    for box in ("451,0,9,9", "0,0,0,9", "-20,0,20,20", "0,0,-5,5", "900,900,1,1"):
        answer = client.get("/api/v1/search", params={"like": cat, "box": box})
        assert "which is 451 x 300 pixels" in refusal(answer, 422)
    for missing in ("0" * 32, "../chelsea.png", "/etc/hostname"):
        answer = client.get("/api/v1/search", params={"like": missing, "box": "0,0,9,9"})
        assert "No picture has the image_id" in refusal(answer, 404)
    alone = SearchService(settings)
    with TestClient(create_app(PictureFiles(Store(connect(settings), settings.index), settings),
                               alone), base_url=ADDRESS) as other:  # fmt: skip
        answer = other.get("/api/v1/search", params={"like": cat, "box": "0,0,9,9"})
        assert "reads no originals" in refusal(answer, 404)


def test_a_box_on_a_picture_whose_original_is_gone(
    client: TestClient, settings: Settings, folder: Path
) -> None:
    rocket = folder / "rocket.jpg"
    asked = {"like": image_id("photos", "rocket.jpg"), "box": "0,0,99,99"}
    moved = rocket.rename(folder.parent / "away.jpg")
    try:
        answer = client.get("/api/v1/search", params=asked)
        assert "is gone: run `es-imgsearch sync` on its folder" in refusal(answer, 404)
        rocket.write_bytes(b"no picture")
        assert client.get("/api/v1/search", params=asked).status_code == 422
    finally:
        moved.rename(rocket)
    assert len(names(client.get("/api/v1/search", params=asked))) == 4
    elsewhere = settings.model_copy(update={"host": "elsewhere"})
    files = PictureFiles(Store(connect(settings), settings.index), elsewhere)
    app = create_app(files, SearchService(elsewhere, originals=files))
    with TestClient(app, base_url=ADDRESS) as other:
        answer = other.get("/api/v1/search", params=asked)
        assert "run `es-imgsearch serve` there" in refusal(answer, 404)


def test_several_words_and_weights_are_those_of_the_client(
    client: TestClient, python: ImageSearch
) -> None:
    cat, cup = image_id("photos", "chelsea.png"), image_id("photos", "coffee.png")
    for asked, positive, negative in (
        ({"q": ["a cat", "a vehicle"]}, ["a cat", "a vehicle"], []),
        ({"q": ["a cat^3", "a vehicle"]}, [("a cat", 3), "a vehicle"], []),
        ({"q": "a cat^.25", "like": f"{cup}^2"}, [("a cat", 0.25), (StoredPicture(cup), 2)], []),
        ({"q": "a photo", "not": ["a cat^0.5", "coffee"]}, ["a photo"], [("a cat", 0.5), "coffee"]),
        ({"q": "a photo", "unlike": f"{cat}^1.5"}, ["a photo"], [(StoredPicture(cat), 1.5)]),
        ({"q": ["a cat ^2", "  ", "^3"]}, [("a cat", 2)], []),
        ({"q": "a^b^2.5"}, [("a^b", 2.5)], []),
        ({"q": "cat^"}, ["cat^"], []),
        ({"q": "cat^two"}, ["cat^two"], []),
        ({"q": "cat^1e3"}, ["cat^1e3"], []),
    ):
        for mode in ("auto", "vector"):
            hits = python.search(positive, negative, k=5, mode=mode)
            by_get = client.get("/api/v1/search", params={**asked, "mode": mode, "k": 5})
            assert names(by_get) == [each.image_name for each in hits], (asked, mode)
            assert len(hits) >= 4
            scores = [each["score"] for each in by_get.json()["hits"]]
            # Texts that are encoded together differ in the last digits.
            assert scores == pytest.approx([each.score for each in hits], abs=1e-5)
            by_form = client.post("/api/v1/search", data={**asked, "mode": mode, "k": "5"})
            assert names(by_form) == names(by_get)


def test_a_weight_changes_the_order_and_a_cursor_is_bound_to_it(client: TestClient) -> None:
    asked: dict[str, Any] = {"k": 2, "mode": "vector"}
    first = {}
    for weight in ("0.1", "10"):
        asked["q"] = [f"a cat^{weight}", "a motorcycle"]
        answer = client.get("/api/v1/search", params=asked)
        first[weight] = names(answer)[0]
        cursor = answer.json()["next"]
    assert first["10"] == "chelsea.png"
    assert first["0.1"] in ROAD
    for q in (["a cat^9", "a motorcycle"], ["a cat^10"], ["a motorcycle", "a cat^10"]):
        other = client.get("/api/v1/search", params={**asked, "q": q, "cursor": cursor})
        assert "another search" in refusal(other, 400)
    assert client.get("/api/v1/search", params={**asked, "cursor": cursor}).status_code == 200


def test_one_text_stays_one(client: TestClient) -> None:
    by_list = client.post("/api/v1/search", json={"q": ["a cat"]})
    by_text = client.post("/api/v1/search", json={"q": "a cat"})
    assert by_list.json()["hits"] == by_text.json()["hits"]
    batch = client.post("/api/v1/searches", json={"searches": [{"q": "a cat"}]})
    assert batch.json()["answers"][0]["hits"] == by_text.json()["hits"]
    body = client.get("/openapi.json").json()["components"]["schemas"]["SearchRequest"]
    assert {each["type"] for each in body["properties"]["q"]["anyOf"]} == {"string", "array"}


@pytest.mark.parametrize("weight", ["0", "-1", "-0.5", "0.0", "9" * 400])
@pytest.mark.parametrize("name", ["q", "not", "like", "unlike"])
def test_weights_that_are_refused(client: TestClient, name: str, weight: str) -> None:
    asked = {"q": "a cat"} | {name: f"{image_id('photos', 'coffee.png')}^{weight}"}
    detail = refusal(client.get("/api/v1/search", params=asked), 400)
    assert detail.startswith("The weight behind ^ must be above 0")


def test_the_weight_of_a_part(client: TestClient, python: ImageSearch) -> None:
    cat = image_id("photos", "chelsea.png")
    asked = {"like": f"{cat}^0.05", "box": "0,0,300,300", "q": "a motorcycle", "mode": "vector"}
    light = client.get("/api/v1/search", params=asked)
    heavy = client.get("/api/v1/search", params={**asked, "like": f"{cat}^9"})
    assert names(light)[0] in ROAD
    assert names(light) != names(heavy)
    assert "chelsea.png" not in names(heavy)


@pytest.mark.parametrize(
    ("when", "since", "until", "expected"),
    [
        ("yesterday", "2024-11-27", "2024-11-27", {"rocket.jpg"}),
        ("last summer", "2024-06-01", "2024-08-31", {"motorcycle_right.png"}),
        ("June 2023", "2023-06-01", "2023-06-30", {"chelsea.png"}),
        ("winter 2019/20", "2019-12-01", "2020-02-29", {"motorcycle_left.png"}),
        ("2010s", "2010-01-01", "2019-12-31", {"coffee.png"}),
        ("last 90 days", "2024-08-31", "2024-11-28", {"rocket.jpg", "motorcycle_right.png"}),
        ("2020-02", "2020-02-01", "2020-02-29", {"motorcycle_left.png"}),
        ("2015 to 2023", "2015-01-01", "2023-12-31",
         {"coffee.png", "motorcycle_left.png", "chelsea.png"}),
        ("last week", "2024-11-18", "2024-11-24", set()),
    ],
)  # fmt: skip
def test_dates_in_words(
    client: TestClient, when: str, since: str, until: str, expected: set[str]
) -> None:
    asked = {"q": "a photograph", "when": when}
    answer = client.get("/api/v1/search", params=asked)
    assert {*names(answer)} == expected
    assert answer.json()["when"] == {"since": since, "until": until}
    by_date = client.post(
        "/api/v1/search", json={"q": "a photograph", "since": since, "until": until}
    )
    assert names(by_date) == names(answer)
    assert by_date.json()["when"] is None
    facets = client.get("/api/v1/facets", params={"fields": "root", "when": when}).json()
    assert facets["root"].get("photos", 0) == len(expected)


def test_pages_of_dates_in_words(client: TestClient, settings: Settings) -> None:
    asked = {"q": "a photograph", "when": "last 90 days", "k": 1}
    first = client.get("/api/v1/search", params=asked)
    cursor = first.json()["next"]
    second = client.get("/api/v1/search", params={**asked, "cursor": cursor})
    assert {*names(first), *names(second)} == {"rocket.jpg", "motorcycle_right.png"}
    files = PictureFiles(Store(connect(settings), settings.index), settings)
    service = SearchService(settings, today=lambda: date(2024, 11, 29))
    with TestClient(create_app(files, service), base_url=ADDRESS) as tomorrow:
        other = tomorrow.get("/api/v1/search", params={**asked, "cursor": cursor})
        assert "another search" in refusal(other, 400)


def test_dates_that_cannot_be_read(client: TestClient, run: Run, folder: Path) -> None:
    for words in ({"when": "xmas"}, {"when": ""}, {"when": "next week"}, {"when": "x" * 1500}):
        answer = client.get("/api/v1/search", params={"q": "a", **words})
        assert "says no dates: write today, yesterday" in refusal(answer, 400)
        refusal(client.get("/api/v1/facets", params={"fields": "root", **words}), 400)
    for more in ({"since": "2020"}, {"until": "2020"}, {"since": "2020", "until": "2021"}):
        both = client.get("/api/v1/search", params={"q": "a", "when": "2020", **more})
        assert "leave `since` and `until` out, or `when`" in refusal(both, 400)
    for words in (("search", "a"), ("similar", "0" * 32), ("find", "a", folder)):
        wrong = run(*words, "--when", "xmas")
        assert wrong.exit_code == 2
        assert "'xmas' says no dates: write today, yesterday" in wrong.stderr
        both = run(*words, "--when", "2020", "--since", "2020")
        assert both.exit_code == 2
        assert "leave --since and --until out, or --when" in both.stderr


def test_dates_in_words_in_the_terminal(run: Run, folder: Path) -> None:
    for words, expected in (
        (("search", "a photograph", "--when", "june 2023"), {"chelsea.png"}),
        (("search", "a photograph", "--when", "2020s", "--filter", "format!=jpg"),
         {"chelsea.png", *ROAD}),
        (("find", "a photograph", folder, "--when", "february 2020"), {"motorcycle_left.png"}),
        (("similar", image_id("photos", "coffee.png"), "--when", "2023"), {"chelsea.png"}),
    ):  # fmt: skip
        found = run(*words, "--paths")
        assert printed_names(found) == expected
    assert (
        "february 2020: 2020-02-01 to 2020-02-29."
        in run("search", "a", "--when", "february 2020").stderr
    )


@pytest.mark.parametrize(
    ("picture", "q", "expected"),
    [
        ("coffee.png", "espresso", {"description": SIDECAR["description"]}),
        ("coffee.png", "a hot breakfast", {"keywords": ["breakfast", "hot drink"]}),
        ("coffee.png", "drinks", {"keywords": ["hot drink"]}),
        ("coffee.png", "COFFEE", {"image_name": "coffee.png", "tags": ["coffee"]}),
        ("coffee.png", "the table", {"description": SIDECAR["description"]}),
        ("coffee.png", "tables", {"description": SIDECAR["description"]}),
        ("coffee.png", "a submarine", {}),
        ("coffee.png", "espresso^0.5", {"description": SIDECAR["description"]}),
        ("coffee.png", ["espresso", "breakfast"],
         {"description": SIDECAR["description"], "keywords": ["breakfast"]}),
        ("road/motorcycle_left.png", "motorcycles",
         {"image_name": "motorcycle_left.png", "tags": ["motorcycle"]}),
        ("road/motorcycle_left.png", "road", {"folder": "road"}),
        ("road/motorcycle_left.png", "road/motorcycle_left.png",
         {"folder": "road", "image_name": "motorcycle_left.png",
          "relative_path": "road/motorcycle_left.png", "tags": ["motorcycle"]}),
        ("coffee.png", "ceramic", {"attributes": {"material": "ceramic"}}),
    ],
)  # fmt: skip
def test_the_fields_that_have_words_of_the_query(
    client: TestClient, picture: str, q: Any, expected: dict[str, Any]
) -> None:
    like = image_id("photos", picture)
    for mode in ("auto", "text"):
        found = client.get(f"/api/v1/images/{like}/match", params={"q": q, "mode": mode})
        assert found.status_code == 200, found.text
        assert found.json()["fields"] == expected
        assert found.json()["notes"] == []
        assert (found.json()["whole_cosine"] is None) == (mode == "text")


def test_a_match_has_the_cosine_of_the_search(client: TestClient, folder: Path) -> None:
    for asked in (
        {"q": ["a cat^2", "a garden"], "not": "coffee^0.5"},
        {"like": image_id("photos", "coffee.png"), "unlike": image_id("photos", "rocket.jpg")},
        {"like": image_id("photos", "coffee.png"), "box": "0,0,200,200", "q": "a machine"},
    ):
        hits = client.get("/api/v1/search", params={**asked, "mode": "vector"} | {"k": 5})
        for hit in hits.json()["hits"]:
            path = f"/api/v1/images/{hit['image_id']}/match"
            found = client.get(path, params={**asked, "filter": "format:none", "k": 1}).json()
            assert found["whole_cosine"] == pytest.approx(hit["score"], abs=1e-4)
            if found["box"] is not None:
                assert found["box_cosine"] > found["whole_cosine"]


def test_a_match_whose_original_is_gone(client: TestClient, folder: Path) -> None:
    left = folder / "road" / "motorcycle_left.png"
    path = f"/api/v1/images/{image_id('photos', 'road/motorcycle_left.png')}/match"
    moved = left.rename(folder.parent / "moved.png")
    try:
        answer = client.get(path, params={"q": "a dog in the grass", "when": "last year"}).json()
    finally:
        moved.rename(left)
    assert answer["box"] is None
    assert answer["whole_cosine"] is not None
    assert "Its parts were not compared: The original of" in answer["notes"][0]


def test_matches_that_are_refused(client: TestClient) -> None:
    cat = image_id("photos", "chelsea.png")
    refusal(client.get(f"/api/v1/images/{'0' * 32}/match", params={"q": "a"}), 404)
    refusal(client.get("/api/v1/images/none/match", params={"q": "a"}), 422)
    nothing = client.get(f"/api/v1/images/{cat}/match", params={"not": "a"})
    assert "Say what to search for" in refusal(nothing, 400)
    refusal(client.get(f"/api/v1/images/{cat}/match", params={"q": "a", "fields": "x"}), 422)
    refusal(client.get(f"/api/v1/images/{cat}/match", params={"image": "0" * 32}), 404)
    described = client.get("/openapi.json").json()["paths"]
    assert "/api/v1/images/{image_id}/match" in described
