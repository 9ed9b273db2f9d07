"""A disk that does not answer any more, as of a dead network share, next to one that does."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from es_imgsearch.cli.watch import _check_absent, check_folders, open_indexer
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import RootError
from es_imgsearch.manage.status import index_status
from es_imgsearch.pipeline.daemon import Daemon
from es_imgsearch.settings import Settings
from es_imgsearch.watch import bounded_looks, root_disk
from es_imgsearch.watch.given_roots import parse_roots
from tests.support.house import PATIENCE_SECONDS, House, Running, compare_again, paint, until


class DeadShare:
    """Calls that look at paths below a folder do not return while it is dead.

    The thread of the test may look.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._folder = folder
        self._answers = threading.Event()
        self._answers.set()
        self._exempt = threading.current_thread()
        self.waiting: set[str] = set()
        for name in ("stat", "lstat", "scandir", "listdir"):
            monkeypatch.setattr(os, name, self._waiting(getattr(os, name)))

    def die(self) -> None:
        self._answers.clear()

    def answer(self) -> None:
        self._answers.set()

    def _waiting(self, real):
        def call(path=".", *arguments, **options):
            here = threading.current_thread()
            is_below = not isinstance(path, int) and Path(path).is_relative_to(self._folder)
            if is_below and here is not self._exempt and not self._answers.is_set():
                self.waiting.add(here.name)
                self._answers.wait()
            return real(path, *arguments, **options)

        return call


@pytest.fixture
def house(
    real_store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> House:
    monkeypatch.setattr(root_disk, "HANGS_AFTER_SECONDS", 0.5, raising=False)
    given = settings.model_copy(update={"poll_seconds": 0.3, "shutdown_seconds": 3.0})
    made = House(real_store, given, tmp_path, "good", "dead")
    for n in range(6):
        for folder in made.folders:
            paint(folder / f"{n}.png", n)
    return made


@pytest.fixture
def share(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeadShare]:
    made = DeadShare(monkeypatch, house.folders[1])
    yield made
    made.answer()


def indexed(house: House, root: str) -> set[str]:
    return {path for name, path in house.indexed() if name == root}


def test_a_disk_that_hangs_keeps_no_other_waiting(
    house: House, share: DeadShare, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING, logger="es_imgsearch")
    good, dead = house.folders
    with house.watched() as daemon:
        house.settle()
        share.die()
        paint(dead / "new.png", 100)
        daemon.daemon._watched[1].request_comparison()
        until(lambda: share.waiting)
        # Events, comparisons and deletions of the other root.
        paint(good / "event.png", 101)
        (good / "0.png").unlink()
        (good / "1.png").rename(good / "moved.png")
        expected = {"2.png", "3.png", "4.png", "5.png", "event.png", "moved.png"}
        until(lambda: indexed(house, "good") == expected)
        compare_again(daemon)
        (good / "2.png").unlink()
        until(lambda: indexed(house, "good") == expected - {"2.png"})
        assert len(indexed(house, "dead")) >= 6
        told = [each for each in caplog.messages if "has not answered" in each]
        assert len(told) == 1
        assert str(dead) in told[0]

        def hung_seconds() -> dict[str, int | None]:
            roots = index_status(house.store)["roots"]
            return {name: root["disk_hung_seconds"] for name, root in roots.items()}

        until(lambda: hung_seconds()["dead"])
        assert hung_seconds()["good"] is None
        share.answer()
        (dead / "5.png").unlink()
        house.settle()
        until(lambda: "The disk of 'dead' answers again." in caplog.messages)
        until(lambda: hung_seconds()["dead"] is None)


def test_a_file_in_flight_when_its_disk_hangs_keeps_no_deletion_waiting(
    house: House, share: DeadShare
):
    good, dead = house.folders
    embeds, goes_on = threading.Event(), threading.Event()

    def held(_pixels: object) -> None:
        embeds.set()
        assert goes_on.wait(PATIENCE_SECONDS)

    with house.watched():
        house.settle()
        house.encoder.before_batch = held
        paint(dead / "new.png", 100)
        assert embeds.wait(PATIENCE_SECONDS)
        share.die()
        goes_on.set()
        until(lambda: "disk" in share.waiting)
        (good / "2.png").unlink()
        until(lambda: "2.png" not in indexed(house, "good"))
        share.answer()
        (dead / "new.png").unlink()
        house.settle()


def test_a_daemon_stops_and_starts_though_a_disk_hangs(house: House, share: DeadShare):
    good, dead = house.folders
    with house.watched() as daemon:
        house.settle()
        share.die()
        paint(dead / "new.png", 100)
        compare_again(daemon)
        assert {"compare dead", "loop dead"} <= share.waiting
        began = time.monotonic()
        daemon.stop()
        assert time.monotonic() - began < 20
    # A process whose shares are dead from the start; a folder given to it was looked at before.
    indexer = house.indexer()
    again = Running(indexer)
    again.wait_ready()
    paint(good / "event.png", 101)
    until(lambda: "event.png" in indexed(house, "good"))
    again.stop()


@pytest.mark.usefixtures("encoders")
@pytest.mark.parametrize("is_linked", [False, True])
@pytest.mark.parametrize("is_registered", [False, True])
def test_a_daemon_whose_disk_hangs_before_its_start_watches_the_others(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    is_linked: bool,
    is_registered: bool,
):
    """The command looked at its folders in the main thread, which hung."""
    monkeypatch.setattr(bounded_looks.LOOKS, "_hanging", {})
    good, dead = house.folders
    given = [f"good={good}", f"dead={dead}"]
    if is_linked:
        (tmp_path / "links").mkdir()
        (tmp_path / "links" / "dead").symlink_to(dead)
        given[1] = str(tmp_path / "links" / "dead")
    if is_registered:
        house.synced()
    share = DeadShare(monkeypatch, dead)
    share.die()
    outcome: list[object] = []

    def run() -> None:
        """What `watch` does; no call of this thread may hang."""
        try:
            check_folders(house.settings, tuple(given), may_come=True)
            _check_absent(house.settings, tuple(given))
            with open_indexer(house.settings, tuple(given), False, warm_up=True) as indexer:
                daemon = Daemon(indexer, house.settings)
                outcome.append(daemon)
                daemon.run()
        except BaseException as error:
            outcome.append(error)
            raise

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: outcome)
    paint(good / "event.png", 101)
    until(lambda: "event.png" in indexed(house, "good"))
    assert any("does not answer" in each and "dead" in each for each in caplog.messages)
    share.answer()
    house.settle()
    assert house.store.info().meta.roots["dead"]["path"] == str(dead)
    assert isinstance(outcome[0], Daemon)
    outcome[0].stop()
    thread.join(20)
    assert not thread.is_alive()
    assert len(outcome) == 1


@pytest.mark.parametrize("options", [{}, {"may_be_gone": True}])
def test_a_command_that_needs_a_folder_says_that_its_disk_hangs(
    house: House, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
):
    monkeypatch.setattr(bounded_looks.LOOKS, "_hanging", {})
    share = DeadShare(monkeypatch, house.folders[1])
    share.die()
    given = [str(each) for each in house.folders]
    for _ in range(2):
        with pytest.raises(RootError, match=f"{given[1]!r} does not answer: .*, or leave this"):
            parse_roots(given, **options)
    share.answer()

    def is_parsed() -> bool:
        try:
            return len(parse_roots(given, **options)) == 2
        except RootError:  # the look that hung has not ended yet
            return False

    until(is_parsed)
