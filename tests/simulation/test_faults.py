"""Faults of the simulated server, as the product sees them through its own client."""

from __future__ import annotations

import pytest

from es_imgsearch.elastic.client import new_client
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import StoreBusy, StoreUnreachable
from es_imgsearch.testing import FakeEncoder
from tests.simulation.elastic.faults import (
    Fault,
    answer_lost,
    cut_after,
    no_master,
    refused,
    timed_out,
    too_many_requests,
    unavailable,
)
from tests.simulation.elastic.refusals import Refusal
from tests.simulation.server import SimulatedElasticsearch, node_class

WRITES = [
    Write(each, {"image_id": each, "root": "r", "relative_path": f"{each}.jpg"}) for each in "abc"
]


@pytest.fixture
def server() -> SimulatedElasticsearch:
    return SimulatedElasticsearch()


@pytest.fixture
def store(server: SimulatedElasticsearch) -> Store:
    """A store whose client tries once: a fault happens to one request."""
    client = new_client("http://simulated:9200", node_class=node_class(server), max_retries=0)
    store = Store(client, "images")
    store.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine"))
    return store


def at_bulk(server: SimulatedElasticsearch, fault: Fault) -> None:
    server.before = lambda _method, path: fault if path == "/_bulk" else None


@pytest.mark.parametrize(
    ("fault", "applied"),
    [(refused(), 0), (timed_out(), 0), (answer_lost(), 3), (cut_after(2), 2)],
)
def test_a_write_without_an_answer_is_applied_in_part_or_not(
    server: SimulatedElasticsearch, store: Store, fault: Fault, applied: int
) -> None:
    at_bulk(server, fault)
    with pytest.raises(StoreUnreachable):
        store.documents.write(WRITES)
    assert store.documents.existing(["a", "b", "c"]) == set("abc"[:applied])


@pytest.mark.parametrize("answer", [too_many_requests(), unavailable(), no_master()])
def test_a_busy_server_applies_nothing(
    server: SimulatedElasticsearch, store: Store, answer: Refusal
) -> None:
    at_bulk(server, Fault(answer=answer))
    with pytest.raises(StoreBusy):
        store.documents.write(WRITES)
    assert store.documents.existing(["a", "b", "c"]) == set()


def test_single_items_are_refused_and_the_others_applied(
    server: SimulatedElasticsearch, store: Store
) -> None:
    at_bulk(server, Fault(items={1: too_many_requests()}))
    outcome = store.documents.write(WRITES)
    assert [each for each, error in outcome.items() if error is None] == ["a", "c"]
    assert isinstance(outcome["b"], StoreBusy)
    assert store.documents.existing(["a", "b", "c"]) == {"a", "c"}


def test_a_full_disk_blocks_writes_until_it_ends(
    server: SimulatedElasticsearch, store: Store
) -> None:
    server.set_disk_full(True)
    assert all(isinstance(each, StoreBusy) for each in store.documents.write(WRITES).values())
    server.set_disk_full(False)
    assert set(store.documents.write(WRITES).values()) == {None}


def test_documents_are_searchable_after_a_refresh_only(
    server: SimulatedElasticsearch, store: Store
) -> None:
    store.documents.write(WRITES)
    assert store.listings.count() == 0
    server.refresh()
    assert [each.stored_path for each in store.listings.stored("r")] == ["a.jpg", "b.jpg", "c.jpg"]


def test_an_unknown_request_is_no_guess(server: SimulatedElasticsearch) -> None:
    with pytest.raises(NotImplementedError, match="/_cat/indices"):
        server.handle("GET", "/_cat/indices")
    with pytest.raises(NotImplementedError, match="unknown"):
        server.handle("GET", "/images/_doc/a", {"unknown": "1"})
