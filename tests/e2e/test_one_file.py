"""What becomes of one file, or of many of a kind, on a real folder and a real Elasticsearch."""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from es_imgsearch.elastic.bulk import action_line, bulk_results, json_line
from es_imgsearch.elastic.store import Store
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.records import Change, image_id
from es_imgsearch.settings import Settings
from tests.support.house import PATIENCE_SECONDS, House, paint, until

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


# -- changes behind an equal size and time -------------------------------------------------------


def bitmap(house: House, name: str, seed: int, like: Path | None = None) -> Path:
    """Make an uncompressed picture: all have one size; with the time of the file `like`."""
    path = house.folder / name
    paint(path, seed, "bmp")
    if like is not None:
        os.utime(path, ns=(0, like.stat().st_mtime_ns))
    return path


def test_a_file_replaced_while_its_write_waited_ends_with_the_new_content(house: House):
    path = bitmap(house, "a.bmp", 1)
    indexer = house.indexer()
    waits, goes_on = threading.Event(), threading.Event()
    write = indexer._store.documents.write

    def held(writes):
        waits.set()
        assert goes_on.wait(PATIENCE_SECONDS)
        return write(writes)

    indexer._store.documents.write = held  # type: ignore[method-assign]
    try:
        indexer.pipeline.submit(Change(indexer.roots[0], "a.bmp", time.time()))
        assert waits.wait(PATIENCE_SECONDS)
        bitmap(house, ".other.bmp", 2, like=path).rename(path)
        indexer.pipeline.submit(Change(indexer.roots[0], "a.bmp", time.time()))
        goes_on.set()
        assert indexer.pipeline.wait_idle(PATIENCE_SECONDS)
    finally:
        indexer.pipeline.close()
    assert house.differing() == []


def test_what_a_mapped_file_was_given_after_its_first_read_is_stored_when_it_is_closed(
    house: House,
):
    """The page is writable since before the read: the system notes no time of the second write."""
    other = bitmap(house, ".other.bmp", 2).read_bytes()
    with house.watched() as running:
        path = bitmap(house, "a.bmp", 1)
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[:] = mapped[:]
            house.settle()
            running.turn()
            assert running.indexer.pipeline.wait_idle(PATIENCE_SECONDS)
            mapped[:] = other
        # The house takes equal signatures for equal contents.
        house._expected.clear()
        house.settle()


# -- fields that nothing computes ----------------------------------------------------------------

GIVEN = {"shelf": "A3", "caption": "by hand", "title": "Sea", "attributes": {"sku": "17"}}


def give_fields(house: House, name: str, **fields: object) -> None:
    house.store.generations.map_fields({"shelf": {"type": "keyword"}})
    key = image_id("r", name)
    result = house.store.rewrites.rewrite([key], lambda document: {**document, **fields})
    assert result.written == [key]


def given_fields(house: House, name: str) -> dict:
    document = house.store.documents.get(image_id("r", name))
    return {field: document[field] for field in GIVEN if field in document}


@pytest.mark.parametrize("change", ["chmod", "touch", "rename", "folder"])
def test_fields_that_nothing_computes_stay_with_their_content(house: House, change: str):
    path = house.picture("a/000.png", 0)
    name = "a/000.png"
    with synced(house):
        give_fields(house, name, **GIVEN)
    with house.watched() as running:
        running.turn()
        match change:
            case "chmod":
                before = house.store.documents.get(image_id("r", name))["indexed_at"]
                path.chmod(0o600)
                until(lambda: house.store.documents.get(image_id("r", name))["indexed_at"] > before)
            case "touch":
                os.utime(path)
            case "rename":
                name = "a/other.png"
                path.rename(house.folder / name)
            case "folder":
                name = "b/000.png"
                path.parent.rename(house.folder / "b")
        house.settle()
        assert running.indexer.counts.embedded == 0
    assert given_fields(house, name) == GIVEN


def test_fields_that_nothing_computes_go_with_their_content(house: House):
    path = house.picture("000.png", 0)
    with synced(house):
        give_fields(house, "000.png", **GIVEN)
    paint(path, 1)
    with synced(house):
        assert house.differing() == []
    assert given_fields(house, "000.png") == {}


def test_fields_of_a_sidecar_go_with_it_and_others_stay(house: House):
    house.picture("000.png", 0)
    sidecar = house.folder / "000.png.json"
    sidecar.write_text('{"title": "Sea"}')
    with synced(house):
        give_fields(house, "000.png", shelf="A3")
    assert given_fields(house, "000.png") == {"shelf": "A3", "title": "Sea"}
    sidecar.unlink()
    with synced(house):
        assert given_fields(house, "000.png") == {"shelf": "A3"}
