"""A real Elasticsearch that has memory for small bulks only: it answers 429 to larger ones."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from es_imgsearch.elastic import retry
from es_imgsearch.elastic.bulk import BulkWriter
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.retry import Outage
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import RowInvalid, StoreBusy, StoreRejected
from es_imgsearch.manage.transfer import bulk_sender
from es_imgsearch.manage.transfer.importing import ImportOptions, ImportResult, import_pictures
from es_imgsearch.manage.transfer.rows import BadRow
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import FakeEncoder, remove_index
from tests.contract.test_store import document
from tests.e2e.test_away import Server
from tests.e2e.test_exchange import unit_vectors, vector_file
from tests.support.house import House

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


def writer_to(store: Store, send: Callable[[Sequence[Write]], Any]) -> BulkWriter[Write]:
    return BulkWriter(
        send,
        is_writable=lambda write: store.documents.is_writable(write.image_id),
        outage=Outage(),
        stopping=threading.Event(),
    )


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
    writer = writer_to(store, send)
    errors = {write.image_id: error for write, error in writer.write([largest, *writes])}
    refusal = errors.pop(largest.image_id)
    assert isinstance(refusal, StoreRejected)
    assert "coordinating" in str(refusal)
    assert errors == {str(number): None for number in range(DOCUMENTS)}
    assert max(requests[-20:]) > 1
    store.refresh()
    assert store.listings.count() == DOCUMENTS


@pytest.mark.parametrize("kilobytes", [65, 250, 5_000])
def test_a_document_that_never_fits_is_no_outage_though_nothing_else_is_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kilobytes: int
):
    monkeypatch.setattr(retry, "LONGEST_WAIT_SECONDS", 0.2)
    writer = writer_to(store, store.documents.write_each)
    ((_, error),) = writer.write([picture(0, kilobytes * 1000 // 5)])
    assert isinstance(error, StoreRejected)
    assert "coordinating" in str(error)
    assert not [each for each in caplog.records if each.name.startswith("es_imgsearch")]


def test_a_failure_that_never_fits_is_no_outage(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retry, "LONGEST_WAIT_SECONDS", 0.2)
    failure = {"image_id": "a", "message": "word " * 50_000}
    writer = writer_to(store, store.documents.write_each)
    ((_, error),) = writer.write([Write("a", failure=failure)])
    assert isinstance(error, StoreRejected)


def test_sync_ends_with_a_failure_of_the_only_picture_which_is_tried_again(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It never ended, and waited as in an outage."""
    monkeypatch.setattr(retry, "LONGEST_WAIT_SECONDS", 0.2)
    remove_index(store)
    given = {"es_url": server.url, "index": store.index, "read_workers": 1}
    house = House(store, load_settings(given, environment={}), tmp_path)
    large = house.picture("large.png", 1)
    sidecar = house.folder / "large.png.json"
    sidecar.write_text(json.dumps({"description": "word " * 50_000}))
    assert house.synced().counts.failed == 1
    (failure,) = house.store.listings.failures()
    assert failure["error_class"] == "rejected"
    assert "took small ones" in failure["message"]
    sidecar.unlink()
    # As 5 minutes later: one of the environment is tried again.
    large.chmod(0o600)
    assert house.synced().counts.embedded == 1
    assert house.differing() == []


@pytest.mark.parametrize("bad", [1, 8, 20])
@pytest.mark.parametrize("as_ndjson", [False, True], ids=["smile", "ndjson"])
def test_an_import_refuses_the_row_that_never_fits(
    store: Store,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bad: int,
    as_ndjson: bool,
):
    """It waited five minutes, and ended without the number of the row."""
    monkeypatch.setattr(retry, "LONGEST_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(bulk_sender, "_PATIENCE_SECONDS", 60.0)
    settings = load_settings({"es_url": server.url, "index": store.index}, environment={})
    captions = ["word " * (50_000 if row == bad else 3) for row in range(1, 21)]
    path = vector_file(tmp_path / "x.parquet", unit_vectors(20), caption=captions)
    options = ImportOptions(root="shop", as_ndjson=as_ndjson)
    with pytest.raises(RowInvalid, match=f"Row {bad} of .* alone, 8 times.*--on-error skip"):
        import_pictures(store, settings, path, options)
    refused: list[BadRow] = []
    skipping = replace(options, skip_bad_rows=True)
    done = import_pictures(store, settings, path, skipping, on_bad_row=refused.append)
    assert done == ImportResult(stored=19, bad=1)
    assert [each.number for each in refused] == [bad]
    assert "coordinating" in refused[0].reason
