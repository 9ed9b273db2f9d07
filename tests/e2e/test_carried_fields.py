"""Fields that nothing computes stay with their content, whatever happens at the same time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from es_imgsearch.elastic.store import Store
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.records import image_id
from es_imgsearch.settings import Settings
from tests.support.house import House, paint, until


@pytest.fixture
def house(real_store: Store, settings: Settings, tmp_path: Path) -> House:
    made = House(real_store, settings, tmp_path)
    real_store.generations.map_fields({"shelf": {"type": "keyword"}})
    # Nothing becomes searchable by itself, as within the second after a write.
    real_store.connection.request(
        "PUT", f"/{real_store.index}/_settings", {"index.refresh_interval": "600s"}
    )
    return made


def give(house: House, name: str, shelf: str) -> None:
    key = image_id("r", name)
    result = house.store.rewrites.rewrite([key], lambda document: {**document, "shelf": shelf})
    assert result.written == [key]


def shelf(house: House, name: str) -> str | None:
    return house.store.documents.get(image_id("r", name)).get("shelf")


def is_stored(house: House, name: str) -> bool:
    return bool(house.store.documents.existing([image_id("r", name)]))


def test_a_move_at_once_after_a_rewrite_that_no_search_sees_yet(house: House):
    path = house.picture("a.png", 1)
    house.synced()
    with house.watched():
        give(house, "a.png", "A1")
        path.rename(house.folder / "b.png")
        until(lambda: is_stored(house, "b.png"))
        assert shelf(house, "b.png") == "A1"
        house.settle()


@pytest.mark.parametrize("name", ["0.png", "z.png"])
def test_a_picture_that_is_moved_and_replaced_at_once(house: House, name: str):
    path = house.picture("a.png", 1)
    house.synced()
    give(house, "a.png", "A1")
    path.rename(house.folder / name)
    paint(path, 2)
    # One file in flight: the first is stored before the other is read.
    house.synced(queue_size=1)
    assert house.differing() == []
    assert shelf(house, name) == "A1"
    assert shelf(house, "a.png") is None


def test_the_fields_are_those_of_the_moved_one_of_two_copies(house: House):
    path = house.picture("b.png", 1)
    for name in "ac":
        (house.folder / f"{name}.png").write_bytes(path.read_bytes())
    house.synced()
    for name in "abc":
        give(house, f"{name}.png", name.upper())
    path.rename(house.folder / "d.png")
    paint(path, 2)
    house.synced()
    assert house.differing() == []
    assert [shelf(house, f"{name}.png") for name in "acd"] == ["A", "C", "B"]


@pytest.mark.parametrize("seconds", [0, 60])
@pytest.mark.parametrize(("old", "new"), [("a.png", "b.png"), ("b.png", "a.png")])
@pytest.mark.parametrize("replaced", [None, "theirs"])
def test_a_picture_that_is_moved_over_an_equal_one(
    house: House, old: str, new: str, seconds: int, replaced: str | None
):
    """The document of the same path was taken, so the fields of the moved one went with it."""
    path, other = house.picture(old, 1), house.folder / new
    other.write_bytes(path.read_bytes())
    for each, at in ((path, 1_700_000_000), (other, 1_700_000_000 + seconds)):
        os.utime(each, (at, at))
    house.synced()
    give(house, old, "A1")
    if replaced is not None:
        give(house, new, replaced)
    house.store.refresh()
    path.rename(other)
    house.synced()
    assert house.differing() == []
    # Of files of one content and time nobody can say which one it is.
    is_known = seconds or replaced is None
    assert shelf(house, new) == ("A1" if is_known else replaced)


def test_a_field_given_after_a_move_stays_at_a_chmod(house: House):
    path, other = house.picture("a.png", 1), house.folder / "b.png"
    house.synced()
    give(house, "a.png", "A1")
    path.rename(other)
    house.synced()
    give(house, "b.png", "B2")
    before = house.store.documents.get(image_id("r", "b.png"))["ctime_ns"]
    other.chmod(0o600)
    house.synced()
    assert house.store.documents.get(image_id("r", "b.png"))["ctime_ns"] != before
    assert shelf(house, "b.png") == "B2"


def test_a_touched_picture_takes_nothing_of_an_equal_one_that_was_deleted(house: House):
    path, other = house.picture("a.png", 1), house.folder / "b.png"
    other.write_bytes(path.read_bytes())
    os.utime(other, (1, 1))
    house.synced()
    give(house, "b.png", "B1")
    house.store.refresh()
    other.unlink()
    os.utime(path, (2, 2))
    house.synced()
    assert shelf(house, "a.png") is None


def test_a_picture_that_is_found_after_its_old_document_was_deleted(house: House):
    """As when it was moved to a folder that no event told of."""
    path = house.picture("a.png", 1)
    house.synced()
    give(house, "a.png", "A1")
    path.rename(house.folder / "b.png")
    indexer = house.indexer()
    indexer._pending["r"].add("a.png")
    indexer.delete_missing(at_once=True)
    assert not is_stored(house, "a.png")
    sync(indexer)
    indexer.pipeline.close()
    assert house.differing() == []
    assert shelf(house, "b.png") == "A1"


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_picture_that_is_found_by_another_process_after_its_old_document_went(
    house: House, is_replaced: bool
):
    """As after a crash, or in a folder that another daemon watches."""
    path = house.picture("a.png", 1)
    house.picture("other.png", 3)
    house.synced()
    give(house, "a.png", "A1")
    path.rename(house.folder.parent / "away.png")
    if is_replaced:
        paint(path, 2)
    house.synced()
    assert is_stored(house, "a.png") is is_replaced
    (house.folder.parent / "away.png").rename(house.folder / "b.png")
    house.synced()
    assert house.differing() == []
    assert shelf(house, "b.png") == "A1"
    if is_replaced:
        assert shelf(house, "a.png") is None


@pytest.mark.parametrize("before", [None, "A1"])
def test_a_rewrite_between_the_copy_and_the_deletion_of_a_moved_picture(
    house: House, before: str | None
):
    path = house.picture("a.png", 1)
    house.synced()
    if before is not None:
        give(house, "a.png", before)
    path.rename(house.folder / "b.png")
    indexer = house.indexer()
    delete = indexer._deletion_guard.delete

    def late(*arguments):
        give(house, "a.png", "A2")
        return delete(*arguments)

    indexer._deletion_guard.delete = late  # type: ignore[method-assign]
    sync(indexer)
    indexer.pipeline.close()
    assert house.differing() == []
    assert shelf(house, "b.png") == "A2"


def take(house: House, name: str) -> None:
    """Remove the field of a picture."""

    def without(document: dict[str, Any]) -> dict[str, Any]:
        return {field: value for field, value in document.items() if field != "shelf"}

    house.store.rewrites.rewrite([image_id("r", name)], without)


def move(house: House, old: str, new: str, indexer: Indexer, *, is_found_late: bool) -> None:
    """Move a file; on request its old document is deleted before the new path is found."""
    (house.folder / old).rename(house.folder / new)
    if is_found_late:
        indexer._pending["r"].add(old)
        indexer.delete_missing(at_once=True)
        assert not is_stored(house, old)
    sync(indexer)
    assert house.differing() == []


@pytest.mark.parametrize("is_found_late", [False, True])
@pytest.mark.parametrize("has_restarted", [False, True])
@pytest.mark.parametrize("given", ["B2", None])
@pytest.mark.parametrize("before", [None, "A1"])
def test_a_picture_that_is_moved_there_and_back_keeps_what_it_had_in_between(
    house: House, before: str | None, given: str | None, has_restarted: bool, is_found_late: bool
):
    """The document that went at the first move is of the same name, and out of date."""
    house.picture("a.png", 1)
    house.synced()
    if before is not None:
        give(house, "a.png", before)
    indexer = house.indexer()
    move(house, "a.png", "A.PNG", indexer, is_found_late=is_found_late)
    assert shelf(house, "A.PNG") == before
    if has_restarted:
        indexer.pipeline.close()
        indexer = house.indexer()
    give(house, "A.PNG", given) if given is not None else take(house, "A.PNG")
    move(house, "A.PNG", "a.png", indexer, is_found_late=False)
    indexer.pipeline.close()
    assert shelf(house, "a.png") == given


def test_a_picture_that_comes_back_from_elsewhere_has_the_fields_that_it_left_with(house: House):
    """Its copy has fields of its own; its document, which was deleted, was moved nowhere."""
    path, copy = house.picture("a.png", 1), house.folder / "b.png"
    house.synced()
    give(house, "a.png", "A1")
    copy.write_bytes(path.read_bytes())
    house.synced()
    give(house, "b.png", "B2")
    away = house.folder.parent / "away.png"
    path.rename(away)
    house.synced()
    away.rename(house.folder / "c.png")
    house.synced()
    assert house.differing() == []
    assert [shelf(house, name) for name in ("b.png", "c.png")] == ["B2", "A1"]
