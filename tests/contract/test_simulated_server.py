"""The simulated server answers as the real one: random sequences of requests, sent to both."""

from __future__ import annotations

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
from tests.support.document_requests import BODY, DocumentRequests, odd_values
from tests.support.house import House
from tests.support.index_requests import IndexRequests
from tests.support.other_encoders import LOADERS, encoders_by_name
from tests.support.reindexing import synced, to


@pytest.fixture(scope="module")
def both(es_url: str) -> Iterator[Both]:
    both = Both(es_url)
    yield both
    both.close()


@pytest.fixture(scope="module")
def documents(both: Both) -> Iterator[DocumentRequests]:
    """An index with an alias on both servers; its documents have equal numbers on both."""
    index = f"t-{uuid.uuid4().hex[:12]}"
    made = DocumentRequests(both, index)
    made.send("PUT", f"/{index}", {**BODY, "aliases": {f"{index}-alias": {"is_write_index": True}}})
    yield made
    made.send("DELETE", f"/{index}")


@examples(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_documents_and_searches_are_answered_alike(
    documents: DocumentRequests, data: st.DataObject
):
    try:
        documents.run(data, steps=15)
    finally:
        documents.clean()


@examples(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(odd_values, min_size=10, max_size=20))
def test_values_are_taken_and_refused_alike(documents: DocumentRequests, values: list):
    try:
        documents.try_values(values)
    finally:
        documents.clean()


@examples(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_indices_and_aliases_are_answered_alike(both: Both, data: st.DataObject):
    indices = IndexRequests(both, f"t-{uuid.uuid4().hex[:12]}")
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
    assert [each for each in (one.differs(simulated) for one in exchanges) if each] == []
    assert len(exchanges) > 100
