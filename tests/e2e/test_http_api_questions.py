"""What a search over HTTP or in the terminal can ask: negative filters, parts, weights, dates."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fastapi.testclient import TestClient
from httpx import Response

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.search.client import ImageSearch
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
    "location": {"lat": 48.2, "lon": 16.37},
}

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def folder(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photographs; one has a sidecar file."""
    folder = tmp_path_factory.mktemp("questions") / "photos"
    (folder / "road").mkdir(parents=True)
    for name in sorted(ALL):
        shutil.copy(photographs / name, folder / ("road" if name in ROAD else "."))
    (folder / "coffee.json").write_text(json.dumps(SIDECAR))
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
    app = create_app(files, SearchService(settings))
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
