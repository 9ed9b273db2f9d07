"""A service in this process, as a client at another address sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi.testclient import TestClient

from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.serve.traffic.served_search import ServedSearch
from es_imgsearch.testing import FakeEncoder
from tests.support.house import House, until

ADDRESS = "http://127.0.0.1:8080"
OTHER = ("192.0.2.7", 5000)


@contextmanager
def served(
    house: House,
    encoder: FakeEncoder,
    tmp_path: Path,
    *,
    client: tuple[str, int] = OTHER,
    search: ServedSearch | None = None,
    follow_redirects: bool = True,
    **options: Any,
) -> Iterator[TestClient]:
    """The service when it is ready; `options` are those of `create_app`."""
    service = SearchService(house.settings, search or ServedSearch(house.settings, encoder))
    app = create_app(PictureFiles(house.store, house.settings, tmp_path), service, **options)
    with TestClient(
        app,
        base_url=ADDRESS,
        client=client,
        follow_redirects=follow_redirects,
        raise_server_exceptions=False,
    ) as each:
        until(lambda: each.get("/readyz").status_code == 200)
        yield each


def problem(answer: httpx.Response, status: int) -> str:
    """The detail of an answer that is a problem of this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["detail"])
