"""What becomes of one file, or of many of a kind, on a real folder and a real Elasticsearch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from es_imgsearch.elastic.bulk import action_line, bulk_results, json_line
from es_imgsearch.elastic.store import Store
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.records import image_id
from es_imgsearch.settings import Settings
from tests.support.house import House

pytestmark = pytest.mark.process

BROKEN = b"\x89PNG\r\n\x1a\nno more"


@pytest.fixture
def house(real_store: Store, settings: Settings, tmp_path: Path) -> House:
    return House(real_store, settings.model_copy(update={"poll_seconds": 0.3}), tmp_path)


@contextmanager
def synced(house: House, **given) -> Iterator[Indexer]:
    """An indexer that has run `sync`."""
    indexer = house.indexer(**given)
    try:
        sync(indexer)
        yield indexer
    finally:
        indexer.pipeline.close()


def put_by_hand(house: House, index: str, name: str, document: dict) -> None:
    """Write one action of a bulk, as if the process had ended before the others."""
    key = image_id("r", name)
    body = action_line("index", index, key) + json_line({**document, "image_id": key})
    ((_, error),) = bulk_results(house.store.connection, body)
    assert error is None
    house.store.refresh()


# -- two states of one path ----------------------------------------------------------------------


@pytest.mark.parametrize("is_good", [True, False])
def test_a_half_applied_bulk_leaves_no_second_state(house: House, is_good: bool):
    """The index action of a bulk was applied, its delete was not, and the process was killed."""
    house.picture("000.png", 0)
    broken = house.folder / "001.png"
    broken.write_bytes(BROKEN)
    with synced(house):
        assert house.differing() == []
    documents = {each["relative_path"]: each for each in house.store.listings.failures()}
    failure = documents["001.png"]
    good = house.store.documents.get(image_id("r", "000.png"))
    if is_good:
        # The file was repaired; its failure should have been deleted.
        state = {name: good[name] for name in ("size_bytes", "mtime_ns")}
        half = {**failure, "relative_path": "000.png", "image_name": "000.png", **state}
        put_by_hand(house, house.store.connection.failures, "000.png", half)
    else:
        # The file was overwritten; its document should have been deleted.
        state = {name: failure[name] for name in ("size_bytes", "mtime_ns")}
        vector = house.store.documents.vector(image_id("r", "000.png"))
        half = {**good, "relative_path": "001.png", "image_embedding": vector, **state}
        put_by_hand(house, house.store.index, "001.png", half)
    assert house.differing() != []
    with synced(house):
        assert house.differing() == []
