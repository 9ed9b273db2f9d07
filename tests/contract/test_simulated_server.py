"""The simulated server answers as the real one: random sequences of requests, sent to both."""

from __future__ import annotations

import math
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.settings import Settings
from es_imgsearch.testing import remove_index
from tests.simulation.server import SimulatedElasticsearch
from tests.support.conformance import Both, Exchange, recording
from tests.support.document_requests import DocumentRequests
from tests.support.house import House
from tests.support.index_requests import IndexRequests
from tests.support.odd_documents import odd_values
from tests.support.other_encoders import LOADERS, encoders_by_name
from tests.support.reindexing import synced, to
from tests.support.selection import OF_ANOTHER_LINE

# 100 examples, or as many as 20 s allow for; IMGSEARCH_TEST_TIMES=10 makes them 1,000.
TIMES = int(os.environ.get("IMGSEARCH_TEST_TIMES", "1"))
BUDGET_SECONDS = 20 / 3 if TIMES == 1 else math.inf


def few(number: int) -> examples:
    """So many examples, times the factor of the environment."""
    return examples(
        max_examples=number * TIMES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # The same ones in each run; more of them are others.
        derandomize=TIMES == 1,
    )


@pytest.fixture(scope="module")
def both(es_url: str) -> Iterator[Both]:
    both = Both(es_url)
    if not both.version.startswith("8."):
        both.close()
        pytest.skip(f"{OF_ANOTHER_LINE}, this is {both.version}")
    yield both
    both.close()


@pytest.fixture
def in_time(both: Both) -> InTime:
    return InTime(both)


class InTime:
    """Context of an example: once the time is over it sends nothing, unless one has failed.

    It still draws, since what Hypothesis draws must not depend on the time.
    """

    def __init__(self, both: Both) -> None:
        self._both = both
        self._ends_at = time.monotonic() + BUDGET_SECONDS
        self._failed = False

    def __enter__(self) -> None:
        self._both.is_idle = not self._failed and time.monotonic() > self._ends_at

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._failed |= kind is not None and issubclass(kind, AssertionError)
        self._both.is_idle = False


@pytest.fixture(scope="module")
def documents(both: Both) -> Iterator[DocumentRequests]:
    """An index with an alias on both servers; its documents have equal numbers on both."""
    made = DocumentRequests(both, f"t-{uuid.uuid4().hex[:12]}")
    made.create()
    yield made
    made.drop()


@few(40)
@given(data=st.data())
def test_documents_and_searches_are_answered_alike(
    in_time: InTime, documents: DocumentRequests, data: st.DataObject
):
    with in_time, documents.emptied():
        documents.run(data, steps=15)


@few(50)
@given(values=st.lists(odd_values, min_size=10, max_size=20))
def test_values_are_taken_and_refused_alike(
    in_time: InTime, documents: DocumentRequests, values: list
):
    with in_time, documents.emptied():
        documents.try_values(values)


@few(10)
@given(data=st.data())
def test_indices_and_aliases_are_answered_alike(in_time: InTime, both: Both, data: st.DataObject):
    indices = IndexRequests(both, f"t-{uuid.uuid4().hex[:12]}")
    with in_time:
        try:
            indices.run(data, steps=12)
        finally:
            indices.clean()


def test_the_requests_of_real_runs_are_answered_alike(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`sync`, a daemon that sees changes, and `reindex`, recorded and sent again."""
    exchanges: list[Exchange] = []
    monkeypatch.setattr("es_imgsearch.elastic.client.HttpNode", recording(exchanges))
    encoders = encoders_by_name()
    for module in LOADERS:
        monkeypatch.setattr(f"es_imgsearch.{module}.load_encoder", lambda name, **_: encoders[name])
    store = Store(connect(settings), settings.index)
    house = House(store, settings.model_copy(update={"poll_seconds": 0.3}), tmp_path)
    house.encoder = encoders["fake"]
    try:
        pictures = house.pictures(8)
        (house.folder / "broken.png").write_bytes(b"no picture")
        synced(house)
        pictures[0].unlink()
        pictures[1].rename(house.folder / "renamed.png")
        with house.watched():
            house.picture("002.png", 20)
            house.picture("folder/copy.png", 3)
            house.settle()
        assert to(house, "other").switched
        assert house.store.listings.count() == 8
    finally:
        remove_index(store)
        store.connection.client.close()
    simulated = SimulatedElasticsearch()
    # The memory of a machine is no one else's.
    sent = [each for each in exchanges if not each.target.startswith("/_nodes")]
    assert [each for each in (one.differs(simulated) for one in sent) if each] == []
    assert len(exchanges) > 100
