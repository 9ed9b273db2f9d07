"""Searches logged in `<index>-searches`, if that is switched on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient

from es_imgsearch import AsyncImageSearch, ImageSearch
from es_imgsearch.cli import main
from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.init import create_index
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.records import image_id
from es_imgsearch.search.query import StoredPicture
from es_imgsearch.search.search_log import create_searches_index
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.serve.traffic.served_search import ServedSearch
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder, remove_index
from tests.support.house import House, until


@pytest.fixture
def house(real_store: Store, settings: Settings, tmp_path: Path):
    settings = settings.model_copy(update={"log_searches": True})
    house = House(real_store, settings, tmp_path)
    house.pictures(4)
    indexer = house.indexer()
    try:
        sync(indexer)
    finally:
        indexer.pipeline.close()
    create_searches_index(real_store)
    yield house
    remove_index(real_store, Companion.SEARCHES.alias(real_store.index))


def logged(house: House) -> list[dict]:
    alias = Companion.SEARCHES.alias(house.store.index)
    house.store.connection.request("POST", f"/{alias}/_refresh")
    body = {"size": 100, "sort": ["searched_at", "_doc"]}
    answer = house.store.connection.request("POST", f"/{alias}/_search", body)
    return [hit["_source"] for hit in answer["hits"]["hits"]]


def stored_name(house: House) -> str:
    return min(house.folder.iterdir()).name


def test_the_document_of_each_kind_of_search(house: House):
    name = stored_name(house)
    picture = house.folder / name
    with ImageSearch(settings=house.settings, encoder=FakeEncoder()) as client:
        hits = client.search_text("red", k=3, filters={"root": "r"})
        client.search_image(picture, k=2, exact=True)
        client.similar(image_id("r", name), k=1, num_candidates=77)
        client.search(["red", picture], k=2)
        client.search_text("red", k=2, mode="hybrid")
        client.search([client.embed("red"), StoredPicture(image_id("r", name))])
    documents = logged(house)
    assert [each["kind"] for each in documents] == [
        "text",
        "picture",
        "stored",
        "mixed",
        "text",
        "mixed",
    ]
    first, second, third = documents[:3]
    assert (first["text"], first["k"], first["hits"]) == ("red", 3, 3)
    assert first["filters"] == ["root"]
    assert first["best_score"] == pytest.approx(hits[0].score)
    assert first["duration_ms"] > first["took_ms"] >= 0
    assert first["host"] == house.settings.host
    assert "text" not in second
    assert second["exact"] is True
    assert "num_candidates" not in second
    assert third["num_candidates"] == 77
    assert documents[4]["mode"] == "hybrid"


def test_the_asyncio_client_logs_as_well(house: House):
    async def search() -> None:
        async with AsyncImageSearch(settings=house.settings, encoder=FakeEncoder()) as client:
            await client.search_text("red", k=1)

    asyncio.run(search())
    assert [each["text"] for each in logged(house)] == ["red"]


def test_by_default_nothing_is_logged(house: House):
    quiet = house.settings.model_copy(update={"log_searches": False})
    with ImageSearch(settings=quiet, encoder=FakeEncoder()) as client:
        client.search_text("red")
    assert logged(house) == []


def test_without_the_index_searches_succeed_and_one_warning_is_logged(
    house: House, caplog: pytest.LogCaptureFixture
):
    alias = Companion.SEARCHES.alias(house.store.index)
    house.store.connection.client.indices.delete(index=f"{alias}-000001")
    with (
        caplog.at_level(logging.WARNING),
        ImageSearch(settings=house.settings, encoder=FakeEncoder()) as client,
    ):
        client.search_text("red")
        client.search_text("blue")
    warnings = [each for each in caplog.messages if "es-imgsearch init" in each]
    assert len(warnings) == 1
    assert not house.store.connection.client.indices.exists(index=alias)


def test_init_creates_the_index(house: House):
    alias = Companion.SEARCHES.alias(house.store.index)
    client = house.store.connection.client
    client.indices.delete(index=f"{alias}-000001")
    create_index(house.store, house.settings.model_copy(update={"log_searches": False}))
    assert not client.indices.exists(index=alias)
    create_index(house.store, house.settings)
    assert client.indices.exists_alias(name=alias)


def test_the_environment_switches_it_on(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ES_IMGSEARCH_LOG_SEARCHES", "true")
    options = ["--index", house.settings.index, "--es-url", house.settings.es_url]
    name = stored_name(house)
    result = CliRunner().invoke(main, ["similar", image_id("r", name), *options])
    assert result.exit_code == 0, result.stderr
    assert [each["kind"] for each in logged(house)] == ["stored"]


@pytest.fixture
def browser(house: House, tmp_path: Path) -> Iterator[TestClient]:
    files = PictureFiles(house.store, house.settings, tmp_path / "cache")
    service = SearchService(
        house.settings, ServedSearch(house.settings, FakeEncoder()), originals=files
    )
    with TestClient(create_app(files, service), base_url="http://127.0.0.1:8080") as client:
        until(lambda: client.get("/readyz").status_code == 200)
        yield client


def test_of_the_gallery_only_what_was_asked_for_is_logged(house: House, browser: TestClient):
    picture = image_id("r", stored_name(house))
    asked = {
        "/?q=red": "auto", "/?q=green&mode=vector": "vector", "/?q=blue&sort=newest": "auto",
        f"/?like={picture}": "vector", "/api/v1/search?q=red&k=3": "auto",
        "/api/v1/search?q=red&k=2&sort=newest&mode=vector": "vector",
        f"/api/v1/images/{picture}/similar?k=1": "vector",
        "/api/v1/search?q=png&k=1000&mode=text": "text", "/?q=png&mode=text": "text",
    }  # fmt: skip
    for path in asked:
        assert browser.get(path).status_code == 200, path
    batch = {"searches": [{"q": "red", "k": 1}, {"q": "red", "k": 4, "mode": "vector"}]}
    assert browser.post("/api/v1/searches", json=batch).status_code == 200
    documents = logged(house)
    # One each, with the k that was asked for and not the depth of the ranking.
    assert [each["k"] for each in documents] == [60, 60, 60, 60, 3, 2, 1, 1000, 60, 1, 4]
    assert [each["hits"] for each in documents if each["mode"] == "vector"][:3] == [4, 4, 3]
    assert all(each["hits"] <= each["k"] for each in documents)
    cursor = browser.get("/api/v1/search?q=red&k=1").json()["next"]
    before = len(logged(house))
    assert before == len(documents) + 1
    for path in (
        # What the page shows around a search, and what it shows or saves of one again.
        f"/pictures/{picture}?q=red&n=1", f"/pictures/{picture}", "/?q=red&page=2",
        "/?q=red&page=9", "/export.csv?q=red", "/export.json?q=red", "/export.txt?q=red",
        "/export.ndjson?q=red", "/status", "/duplicates", "/", "/?sort=newest",
        f"/api/v1/search?q=red&k=1&cursor={cursor}", "/api/v1/facets?fields=format",
        f"/api/v1/images/{picture}", f"/api/v1/images/{picture}/match?q=red",
    ):  # fmt: skip
        assert browser.get(path).status_code == 200, path
    assert len(logged(house)) == before
