"""Fixtures of several modules: encoders found by name, a server that goes away, the gallery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from es_imgsearch.elastic.store import Store
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder
from tests.support.gallery import Gallery, open_chromium
from tests.support.house import House, Proxy
from tests.support.other_encoders import LOADERS, encoders_by_name
from tests.support.secured import Secured


@pytest.fixture(autouse=True)
def _nothing_takes_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a command would print how far it is, beside what a test expects."""
    monkeypatch.setattr("es_imgsearch.cli.printing.progress._LINE_SECONDS", 3600.0)


@pytest.fixture
def encoders(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeEncoder]:
    """Found by name as installed ones are; one of each, so that tests can count."""
    made = encoders_by_name()

    def load(name: str, **_given: object) -> FakeEncoder:
        return made[name]

    for module in LOADERS:
        monkeypatch.setattr(f"es_imgsearch.{module}.load_encoder", load)
    return made


@pytest.fixture
def house(
    real_store: Store, settings: Settings, tmp_path: Path, encoders: dict[str, FakeEncoder]
) -> House:
    """A house whose encoder is found by name, `fake`; some modules have another of their own."""
    given = settings.model_copy(update={"poll_seconds": 0.3, "queue_size": 32})
    made = House(real_store, given, tmp_path)
    made.encoder = encoders["fake"]
    return made


@pytest.fixture
def proxy(es_url: str) -> Iterator[Proxy]:
    """A way to Elasticsearch that a test closes."""
    made = Proxy(int(es_url.rpartition(":")[2]))
    yield made
    made.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for the galleries of a module."""
    with open_chromium() as each:
        yield each


@pytest.fixture
def gallery(chromium: Browser, site: str) -> Iterator[Gallery]:
    """Pages of the module's `site`, the address of a service.

    Whatever the browser complains of fails the test: requests to other hosts, too.
    """
    made = Gallery(chromium, site)
    yield made
    made.close()
    assert made.complaints == []


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """An Elasticsearch with security and TLS, for all modules that need one."""
    made = Secured(tmp_path_factory.mktemp("secured"))
    try:
        made.start()
        yield made
    finally:
        made.stop()
