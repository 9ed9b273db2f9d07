"""A daemon and `sync` with other excludes on one root would undo each other's work."""

from __future__ import annotations

import os

import pytest

from es_imgsearch.errors import AlreadyRunning
from tests.support.house import House, until

RAW = ("raw", "*.tif")


def paths(house: House) -> set[str]:
    return {path for _, path in house.indexed()}


def test_sync_without_the_excludes_of_the_daemon_is_refused(house: House):
    house.picture("shown.png", 1)
    house.picture("raw/1.png", 2)
    with house.watched(exclude=RAW) as daemon:
        until(lambda: paths(house) == {"shown.png"})
        said = (
            rf"Process {os.getpid()} on .* is watching 'r' with --exclude '\*.tif' --exclude raw,"
            r" and this run has no --exclude: .* Run it with --exclude '\*.tif' --exclude raw, or"
            r" stop the other process first"
        )
        with pytest.raises(AlreadyRunning, match=said):
            house.synced(exclude=())
        assert paths(house) == {"shown.png"}
        house.picture("new.png", 3)
        house.synced(exclude=tuple(reversed(RAW)))
        until(lambda: paths(house) == {"shown.png", "new.png"})
        assert daemon.error is None
    # One after the other is no conflict.
    house.synced(exclude=())
    assert paths(house) == {"shown.png", "new.png", "raw/1.png"}
    house.synced(exclude=("raw/",))
    assert paths(house) == {"shown.png", "new.png"}


def test_sync_with_excludes_that_the_daemon_has_not_is_refused(house: House):
    house.picture("shown.png", 1)
    house.picture("raw/1.png", 2)
    with house.watched():
        house.settle()
        with pytest.raises(AlreadyRunning, match=r"with no --exclude, .* Run it with no --exclude"):
            house.synced(exclude=("raw",))
        assert paths(house) == {"shown.png", "raw/1.png"}


def test_where_something_is_taken_back_in_the_order_of_the_excludes_counts(house: House):
    house.picture("raw/1.png", 2)
    with house.watched(exclude=("raw/*", "!raw/1.png")):
        house.settle()
        said = r"Run it with --exclude 'raw/\*' --exclude '!raw/1\.png', or"
        with pytest.raises(AlreadyRunning, match=said):
            house.synced(exclude=("!raw/1.png", "raw/*"))
        house.synced(exclude=("raw/*", "!raw/1.png"))
        assert paths(house) == {"raw/1.png"}


def test_sync_deletes_nothing_once_a_daemon_with_other_excludes_has_begun(house: House):
    house.pictures(5)
    house.synced(exclude=())
    daemon = house.indexer(exclude=RAW)
    heartbeat = daemon.heartbeat()
    house.encoder.before_batch = lambda _pixels: heartbeat.start()
    (house.folder / "000.png").unlink()
    house.picture("raw/1.png", 100)
    try:
        with pytest.raises(AlreadyRunning, match="is watching 'r'"):
            house.synced(exclude=())
        assert "000.png" in paths(house)
    finally:
        heartbeat.release()
        heartbeat.join(30.0)
        daemon.pipeline.close()
