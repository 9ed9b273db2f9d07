"""Somebody closes the index, as before a restore, and opens it again later."""

from __future__ import annotations

import logging

import pytest

from es_imgsearch.elastic.error_mapping import search_error
from es_imgsearch.elastic.requests import NDJSON
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import EXIT_UNREACHABLE, StoreBusy
from es_imgsearch.search import ImageSearch
from es_imgsearch.settings import Settings
from tests.support.house import House, Running, compare_again, until


def post(store: Store, path: str) -> None:
    store.connection.request("POST", path)


def concrete(store: Store, alias: str) -> str:
    (name,) = store.connection.request("GET", f"/{alias}")
    return str(name)


@pytest.mark.parametrize("which", ["pictures", "failures"])
def test_a_closed_index_is_an_outage_until_it_is_opened(
    house: House, caplog: pytest.LogCaptureFixture, which: str
):
    caplog.set_level(logging.WARNING, "es_imgsearch")
    house.picture("a.png", 1)
    name = concrete(house.store, getattr(house.store.connection, which))
    with house.watched() as daemon:
        house.settle()
        post(house.store, f"/{name}/_close")
        (house.folder / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
        house.picture("b.png", 2)
        until(lambda: "closed" in caplog.text or daemon.error)
        assert daemon.error is None
        assert f"POST /{name}/_open" in caplog.text
        post(house.store, f"/{name}/_open?wait_for_active_shards=1")
        house.settle()
        assert daemon.error is None
        compare_again(daemon)
    assert len(house.indexed()) == 2
    assert len(house.failed()) == 1


@pytest.mark.parametrize("which", ["pictures", "failures"])
def test_a_daemon_that_starts_meanwhile_waits(
    house: House, caplog: pytest.LogCaptureFixture, which: str
):
    """Its first comparison asks the closed index for what it holds."""
    caplog.set_level(logging.WARNING, "es_imgsearch")
    house.picture("a.png", 1)
    name = concrete(house.store, getattr(house.store.connection, which))
    indexer = house.indexer()
    post(house.store, f"/{name}/_close")
    daemon = Running(indexer)
    try:
        until(lambda: "closed" in caplog.text or daemon.error)
        assert daemon.error is None
        post(house.store, f"/{name}/_open?wait_for_active_shards=1")
        daemon.wait_ready()
        house.settle()
    finally:
        daemon.stop()


def test_a_search_says_that_the_index_is_closed_and_how_to_open_it(
    house: House, settings: Settings
):
    name = concrete(house.store, house.store.index)
    with ImageSearch(settings=settings, encoder=house.encoder) as search:
        assert not search.search_text("a cat")
        post(house.store, f"/{name}/_close")
        for _ in range(2):
            with pytest.raises(StoreBusy, match=f"{name!r} is closed.* POST /{name}/_open") as e:
                search.search_text("a cat")
            assert e.value.exit_code == EXIT_UNREACHABLE
            search.reload()
        post(house.store, f"/{name}/_open?wait_for_active_shards=1")
        assert not search.search_text("a cat")


def test_one_search_of_several_says_it_too(house: House):
    """`_msearch` answers with the error of each search."""
    name = concrete(house.store, house.store.index)
    post(house.store, f"/{name}/_close")
    lines = b'{"index": "%s"}\n{}\n' % house.store.index.encode()
    answer = house.store.connection.request("POST", "/_msearch", lines, headers=NDJSON)
    error = search_error(answer["responses"][0])
    assert isinstance(error, StoreBusy)
    assert f"POST /{name}/_open" in str(error)
