"""What the deletion guard lets pass and holds back, on real folders and a real Elasticsearch."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from es_imgsearch.elastic.store import Store
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.settings import Settings
from es_imgsearch.watch import root_folders
from es_imgsearch.write import pending_deletions
from tests.support.house import PATIENCE_SECONDS, House, until
from tests.support.ignored_case import ignore_case


@pytest.fixture
def house(real_store: Store, settings: Settings, tmp_path: Path) -> House:
    return House(real_store, settings.model_copy(update={"poll_seconds": 0.3}), tmp_path)


def message(indexer: Indexer) -> str:
    return indexer.paused["r"].message(indexer.roots[0], "images")


# -- names -----------------------------------------------------------------------------------


def test_a_rename_of_case_only_leaves_nothing_of_the_old_name(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    house.picture("Photo.png", 101)
    house.picture("Album/a.png", 102)
    house.pictures(20)
    ignore_case(monkeypatch, house.folder)
    house.synced()
    (house.folder / "Photo.png").rename(house.folder / "photo.png")
    (house.folder / "Album").rename(house.folder / "album")
    assert house.synced().counts.deleted == 2
    assert house.differing() == []
    again = house.synced()
    assert (again.counts.stored, again.counts.deleted) == (0, 0)
    with house.watched() as daemon:
        submitted: list[str] = []
        submit = daemon.indexer.pipeline.submit

        def listen(change, **options):
            submitted.append(change.relative_path)
            return submit(change, **options)

        monkeypatch.setattr(daemon.indexer.pipeline, "submit", listen)
        (house.folder / "photo.png").rename(house.folder / "PHOTO.png")
        house.settle()
        # The old name is not read again, which would find the file.
        assert set(submitted) == {"PHOTO.png"}
    assert house.encoder.pictures_embedded == 22


# -- the share -------------------------------------------------------------------------------


def test_new_pictures_do_not_dilute_the_share(house: House):
    """Another disk is mounted: all that was there is gone, more than four times as much is new."""
    house.pictures(40, "mine")
    house.synced()
    (house.folder / "mine").rename(house.folder.parent / "away")
    for n in range(180):
        house.picture(f"another/{n:03}.png", 1000 + n)
    told = house.synced()
    assert "40 of its 40 pictures" in told.paused["r"].reason
    assert "Nothing was removed from the index" in message(told)
    assert len(house.indexed()) == 220
    # A second look does not find the new ones part of what was there.
    assert house.synced().paused
    assert len(house.indexed()) == 220
    assert not house.synced(allow_deletes=True).paused
    assert house.differing() == []


def test_repeated_runs_delete_no_more_than_one(house: House):
    paths = house.pictures(40)
    house.synced()
    for path in paths[:7]:
        path.unlink()
    assert house.synced().counts.deleted == 7
    for path in paths[7:13]:
        path.unlink()
    told = house.synced()
    assert "6 of its 40 pictures" in told.paused["r"].reason
    assert "7 pictures were removed from the index before" in message(told)
    assert "Nothing was" not in message(told)
    assert "(with 7 removed within two days 13 of 40, 32%, more than" in message(told)
    assert len(house.indexed()) == 33
    # What is permitted counts no more.
    house.synced(allow_deletes=True)
    for path in paths[13:18]:
        path.unlink()
    assert not house.synced().paused
    assert house.differing() == []


@pytest.mark.parametrize("is_paused", [True, False], ids=["paused", "not yet"])
def test_a_comparison_of_before_says_nothing_of_another_disk(house: House, is_paused: bool):
    """It neither ends the pause of another process nor counts what came since it began."""
    house.pictures(40, "mine")
    house.synced()
    late = house.indexer()
    try:
        late.reconcile(late.roots[0])
        (house.folder / "mine").rename(house.folder.parent / "away")
        for n in range(180):
            house.picture(f"another/{n:03}.png", 1000 + n)
        if is_paused:
            assert house.synced().paused
        else:
            # Another process stores what it finds by events.
            other = house.indexer()
            other.reconcile(other.roots[0], "another")
            other.pipeline.close(within_seconds=PATIENCE_SECONDS)
        late.delete_missing(at_once=True)
    finally:
        late.pipeline.close()
    assert bool(house.paused()) == is_paused
    told = house.synced()
    assert "40 of its 40 pictures" in told.paused["r"].reason
    assert len(house.indexed()) == 220


def test_what_one_process_knows_of_another_disk_holds_for_all(house: House):
    """`sync` begins when the other disk is mounted, and has seen no other."""
    paths = house.pictures(30)
    house.synced()
    first = house.indexer()
    try:
        guard, root = first._deletion_guard, first.roots[0]
        guard.remember_device(root)
        guard._devices["r"] += 1
        paths[0].unlink()
        first.reconcile(root)
        first.delete_missing(at_once=True)
        assert "another file system" in first.paused["r"].reason
        for _ in range(2):
            assert "another file system" in house.synced().paused["r"].reason
        assert len(house.indexed()) == 30
        # The first one is mounted again.
        guard._devices["r"] -= 1
        first.reconcile(root)
        first.delete_missing(at_once=True)
        assert house.paused() is None
    finally:
        first.pipeline.close()
    paths[1].unlink()
    assert not house.synced().paused
    assert house.differing() == []


@pytest.fixture
def held_walk(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Each walk sets the first event and waits for the second."""
    begun, released = threading.Event(), threading.Event()
    walk = root_folders.walk

    def slow(*arguments, **options):
        begun.set()
        assert released.wait(30)
        yield from walk(*arguments, **options)

    monkeypatch.setattr(root_folders, "walk", slow)
    yield begun, released
    released.set()


def test_what_goes_during_a_long_comparison_is_judged_with_it(
    house: House, held_walk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING, logger="es_imgsearch")
    monkeypatch.setattr(pending_deletions, "_COLLECT_SECONDS", 0.05)
    begun, released = held_walk
    paths = house.pictures(40)
    released.set()
    with house.watched() as daemon:
        house.settle()
        until(lambda: not any(daemon.indexer._pending.values()))
        released.clear()
        begun.clear()
        daemon.daemon._watched[0].request_comparison()
        assert begun.wait(30)
        for path in paths[:7]:
            path.unlink()
        pending = daemon.indexer._pending["r"]
        until(lambda: pending._waiting is not None and len(pending._waiting.paths) == 7)
        for path in paths[7:15]:
            path.unlink()
        released.set()
        until(lambda: daemon.indexer.paused)
        assert daemon.indexer.paused["r"].pictures == 15
        assert len(house.indexed()) == 40
        assert "Nothing was removed from the index" in caplog.text


# -- the end of a pause ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["copied", "moved back", "moved elsewhere", "some copied"])
def test_a_pause_ends_when_what_was_missing_is_back(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
):
    """Without a periodic comparison, which is due after an hour only."""
    caplog.set_level(logging.INFO)
    house.pictures(43)
    for n in range(14):
        house.picture(f"sub/{n:03}.png", 500 + n)
    sub, away = house.folder / "sub", tmp_path / "away"
    with house.watched():
        house.settle()
        shutil.copytree(sub, away)
        shutil.rmtree(sub)
        until(house.paused)
        if how == "copied":
            shutil.copytree(away, sub, copy_function=shutil.copyfile)
        elif how == "moved back":
            away.rename(sub)
        elif how == "moved elsewhere":
            away.rename(house.folder / "elsewhere")
        else:
            sub.mkdir()
            for path in sorted(away.iterdir())[:10]:
                shutil.copy(path, sub)
        until(lambda: not house.paused())
        # What goes now, goes from the index.
        (house.folder / "000.png").unlink()
        until(lambda: house.differing() == [])
    (line,) = [each for each in caplog.records if "no longer paused" in each.getMessage()]
    assert line.getMessage() == "Deletions in 'r' are no longer paused."
    assert line.levelno == logging.INFO
