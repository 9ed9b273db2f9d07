"""A real Elasticsearch that has memory for small bulks only: it answers 429 to larger ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from es_imgsearch.elastic import retry
from es_imgsearch.elastic.bulk import BulkWriter
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.retry import Outage
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import StoreBusy, StoreRejected
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import FakeEncoder, remove_index
from tests.contract.test_store import document
from tests.e2e.test_away import Server

pytestmark = [pytest.mark.slow, pytest.mark.process]

LIMIT_KB = 64
DOCUMENTS = 200
MOST_REQUESTS = 150


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    given = {"indexing_pressure.memory.limit": f"{LIMIT_KB}kb"}
    made = Server(tmp_path_factory.mktemp("server"), **given)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def store(server: Server, index_name: str, fake_encoder: FakeEncoder) -> Iterator[Store]:
    settings = load_settings({"es_url": server.url, "index": index_name}, environment={})
    store = Store(connect(settings), index_name)
    store.generations.create(new_meta(seal_of(fake_encoder), "exact", "cosine"))
    yield store
    remove_index(store)
    store.connection.client.close()


def picture(number: int, words: int) -> Write:
    return Write(str(number), document=document(str(number), caption="word " * words))


def test_bulks_shrink_until_they_fit_and_a_document_that_never_fits_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(retry, "LONGEST_WAIT_SECONDS", 0.2)
    writes = [picture(number, 200) for number in range(DOCUMENTS)]
    largest = picture(DOCUMENTS, 50_000)
    requests = []

    def send(items):
        requests.append(len(items))
        assert len(requests) < MOST_REQUESTS, "the same bulks are sent for ever"
        return store.documents.write_each(items)

    with pytest.raises(StoreBusy, match="coordinating"):
        store.documents.write(writes)
    with pytest.raises(StoreBusy, match="coordinating"):
        store.documents.write([largest])
    writer = BulkWriter(send, outage=Outage(), stopping=threading.Event())
    errors = {write.image_id: error for write, error in writer.write([largest, *writes])}
    refusal = errors.pop(largest.image_id)
    assert isinstance(refusal, StoreRejected)
    assert "coordinating" in str(refusal)
    assert errors == {str(number): None for number in range(DOCUMENTS)}
    assert max(requests[-20:]) > 1
    store.refresh()
    assert store.listings.count() == DOCUMENTS
