"""Files that are being written are left to the next run, and the command says so."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from itertools import count
from threading import Event

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from es_imgsearch.pipeline import sync as sync_module
from es_imgsearch.records import Change, FileState, image_id
from tests.support.house import PATIENCE_SECONDS, House, paint

SETTINGS = {
    "ES_IMGSEARCH_READ_WORKERS": "1",
    "ES_IMGSEARCH_SETTLE_SECONDS": "0.1",
    "ES_IMGSEARCH_DESCRIBERS": "-text_in_image",
}
BROKEN = b"\x89PNG\r\n\x1a\nno more"


@pytest.fixture
def run(house: House, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setattr(sync_module, "_UNSETTLED_SECONDS", 1.0)
    given = ["--index", house.settings.index, "--es-url", house.settings.es_url]
    return lambda *arguments: CliRunner(env=SETTINGS).invoke(main, [*arguments, *given])


def test_sync_ends_with_1_and_counts_them(
    house: House, run: Callable[..., Result], caplog: pytest.LogCaptureFixture
):
    still, seeds = house.picture("still.png", 999), count(1000)
    house.encoder.before_batch = lambda _pixels: paint(still, next(seeds))
    unsettled = run("sync", str(house.folder))
    assert unsettled.exit_code == 1, unsettled.stderr
    assert "1 file is still being written: run `sync` again later." in caplog.text
    as_json = run("sync", str(house.folder), "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["unsettled"] == 1

    house.encoder.before_batch = lambda _pixels: None
    settled = run("sync", str(house.folder), "--json")
    assert settled.exit_code == 0, settled.stderr
    assert json.loads(settled.stdout) == {
        "embedded": 1,
        "reused": 0,
        "failed": 0,
        "unreadable": 0,
        "deleted": 0,
        "moved": 0,
        "not_pictures": 0,
        "unsettled": 0,
        "unstored": 0,
        "left_out": {"r": {}},
        "paused": [],
    }
    assert house.differing() == []


def test_retry_waits_for_them(house: House, run: Callable[..., Result]):
    """Before, `failures retry` left them out and ended with 0."""
    path, readers = house.folder / "a.png", 0
    path.write_bytes(BROKEN)
    assert run("sync", str(house.folder)).exit_code == 1
    descriptor = os.open(path, os.O_RDWR)

    def finish(_number: int, _frame: object) -> None:
        nonlocal readers
        readers += 1
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        paint(path, 1)

    before = signal.signal(signal.SIGIO, finish)
    try:
        # A reader that may not wait is refused, as by Samba while a client writes.
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        retried = run("failures", "retry")
    finally:
        signal.signal(signal.SIGIO, before)
        os.close(descriptor)
    assert readers == 1
    assert retried.exit_code == 0, retried.stderr
    assert "1 embedded" in retried.stderr
    assert house.differing() == []


def test_retry_ends_with_1_if_one_is_never_finished(
    house: House, run: Callable[..., Result], caplog: pytest.LogCaptureFixture
):
    path, seeds = house.folder / "a.png", count(1000)
    path.write_bytes(BROKEN)
    assert run("sync", str(house.folder)).exit_code == 1
    paint(path, next(seeds))
    house.encoder.before_batch = lambda _pixels: paint(path, next(seeds))
    retried = run("failures", "retry")
    assert retried.exit_code == 1, retried.stderr
    assert "1 file is still being written: run `failures retry` again later." in caplog.text


@pytest.mark.parametrize("is_stored", [False, True], ids=["in flight", "stored"])
def test_a_new_file_that_an_event_and_a_comparison_show_is_written_once(
    house: House, is_stored: bool
):
    """As in a folder that was just made: it is compared while its files' events come."""
    with house.watched(settle_seconds=120.0) as daemon:
        indexer = daemon.indexer
        write, is_open, waits = indexer._store.documents.write, Event(), Event()

        def held(writes, **_):
            waits.set()
            assert is_open.wait(PATIENCE_SECONDS)
            return write(writes)

        indexer._store.documents.write = held  # type: ignore[method-assign]
        house.picture("a.png", 1)
        assert waits.wait(PATIENCE_SECONDS)
        if is_stored:
            is_open.set()
            assert indexer.pipeline.wait_idle(PATIENCE_SECONDS)
        # What the index held before it was acknowledged.
        change = Change(indexer.roots[0], "a.png", time.time())
        state = FileState.of((house.folder / "a.png").stat())
        indexer._submit_compared(change, state, 0.0)
        # It does not settle to be read once more.
        assert not len(indexer.settler)
        is_open.set()
        assert indexer.pipeline.wait_idle(PATIENCE_SECONDS)
        key = image_id("r", "a.png")
        answer = house.store.connection.request("GET", f"/{house.store.index}/_doc/{key}")
        assert answer["_version"] == 1
