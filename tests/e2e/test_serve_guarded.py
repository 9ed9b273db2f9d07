"""A service under attack and in trouble: probes, tokens, costs, uploads that wait."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.serve.tokens import new_token
from es_imgsearch.serve.traffic.served_search import ServedSearch
from es_imgsearch.testing import FakeEncoder
from tests.support.house import House, Proxy, house_of_module, until

pytestmark = [pytest.mark.es, pytest.mark.process]

ADDRESS = "http://127.0.0.1:8080"
OTHER = ("192.0.2.7", 5000)


@pytest.fixture(scope="module")
def house(es_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of_module(es_url, tmp_path_factory.mktemp("guarded")) as house:
        house.pictures(3)
        house.synced()
        house.store.refresh()
        yield house


@contextmanager
def served(
    house: House, tmp_path: Path, *, client: tuple[str, int] = OTHER, **options: Any
) -> Iterator[TestClient]:
    """The service as a client at another address sees it."""
    service = SearchService(house.settings, ServedSearch(house.settings, FakeEncoder()))
    app = create_app(PictureFiles(house.store, house.settings, tmp_path), service, **options)
    with TestClient(
        app, base_url=ADDRESS, client=client, follow_redirects=False, raise_server_exceptions=False
    ) as each:
        until(lambda: each.get("/readyz").status_code == 200)
        yield each


def problem(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["detail"])


# -- Probes


def test_probes_of_a_hung_elasticsearch_take_no_thread_of_searches(
    house: House, tmp_path: Path, proxy: Proxy
) -> None:
    """120 probes held all 100 threads, and no search was answered."""
    settings = house.settings.model_copy(
        update={"es_url": f"http://127.0.0.1:{proxy.port}", "request_timeout_seconds": 20.0}
    )
    near = ServedSearch(house.settings, FakeEncoder())
    service = SearchService(house.settings, near)
    away = SearchService(settings, ServedSearch(settings, FakeEncoder()))
    service.is_ready = away.is_ready  # type: ignore[method-assign]
    app = create_app(PictureFiles(house.store, house.settings, tmp_path), service)
    with (
        TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as client,
        ThreadPoolExecutor(121) as threads,
    ):
        client.get("/readyz")
        proxy.hold()
        probes = [threads.submit(client.get, "/readyz") for _ in range(120)]
        search = threads.submit(client.get, "/api/v1/search?q=red&k=1")
        until(lambda: search.done(), 15)
        assert search.result().status_code == 200
        # Before the request to Elasticsearch itself is given up.
        for each in probes:
            answer = each.result(15)
            assert "Elasticsearch has not answered for 5 s" in problem(answer, 503)
            assert int(answer.headers["retry-after"]) > 0
        proxy.let_go()
        until(lambda: client.get("/readyz").status_code == 200)
    away.close()
