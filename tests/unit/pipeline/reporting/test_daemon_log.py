"""The lines of a daemon: a line a batch, in a long run one a minute, failures summed."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from es_imgsearch.pipeline.jobs import RootComparison
from es_imgsearch.pipeline.reporting.daemon_log import DaemonLog, Pacing
from es_imgsearch.records import Change, Root
from es_imgsearch.watch.reconcile import DifferenceKind
from es_imgsearch.write.activity import Activity

ROOT = Root("photos", Path("/srv/photos"))


class World:
    """An indexer's numbers and a clock, set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.activity = Activity()
        self.indexer = SimpleNamespace(
            waiting=0, comparing={}, pipeline=SimpleNamespace(activity=self.activity)
        )
        self.log = DaemonLog(cast(Any, self.indexer), "images", lambda: self.now)

    def store(self, *names: str) -> None:
        for name in names:
            self.activity.note_stored(Change(ROOT, name, 0.0))

    def fail(self, *names: str, message: str = "It ends too early.") -> None:
        for name in names:
            self.activity.note_failed(Change(ROOT, name, 0.0), message)

    def pass_time(self, seconds: float) -> None:
        """Tick once a second."""
        for _ in range(round(seconds)):
            self.now += 1.0
            self.log.tick()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO, logger="es_imgsearch")

    def take() -> list[str]:
        lines = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return lines

    return take


@pytest.mark.parametrize(
    ("stored", "line"),
    [(1, "Stored 1 picture."), (2, "Stored 2 pictures."), (1234, "Stored 1,234 pictures.")],
)
def test_a_batch_is_a_line(world: World, said: Any, stored: int, line: str):
    world.store(*map(str, range(stored)))
    world.pass_time(1)
    assert said() == [line]
    world.pass_time(300)
    assert said() == []


def test_a_batch_that_lasts_is_a_line_ever_more_rarely(world: World, said: Any):
    world.indexer.waiting = 12_345
    for _ in range(600):
        world.store("a", "b", "c")
        world.pass_time(1)
    lines = said()
    assert lines[0] == "Stored 9 pictures; 12,345 files waiting."
    # 2, 4, 8, 16, 32 and then 60 seconds apart.
    assert len(lines) == 14
    assert lines[-1] == "Stored 180 pictures; 12,345 files waiting."


def test_pictures_that_come_one_by_one_are_at_last_a_line_a_minute(world: World, said: Any):
    for _ in range(120):
        world.store("a")
        world.pass_time(5)
    assert len(said()) <= 16
    world.pass_time(200)
    said()
    world.store("a")
    world.pass_time(1)
    assert said() == ["Stored 1 picture."]


def test_moves_and_deletions(world: World, said: Any, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG, logger="es_imgsearch")
    world.activity.note_stored(Change(ROOT, "new name.jpg", 0.0), moved_from="old.jpg")
    world.activity.note_deleted(ROOT, ["old.jpg", "gone.jpg", "broken.jpg"], 2)
    world.store("sub/a.jpg")
    world.pass_time(1)
    assert said() == [
        "Moved: /srv/photos/old.jpg to '/srv/photos/new name.jpg'",
        "Removed from the index: /srv/photos/gone.jpg",
        "Removed from the index: /srv/photos/broken.jpg",
        "Stored: /srv/photos/sub/a.jpg",
        "Stored 1 picture, moved 1, removed 1 from the index.",
    ]


def test_names_break_no_line(world: World, said: Any, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG, logger="es_imgsearch")
    world.store("two\nlines.jpg", "\u202egpj.jpg", "caf\udce9.jpg")
    assert said() == [
        "Stored: $'/srv/photos/two\\x0alines.jpg'",
        "Stored: $'/srv/photos/\\xe2\\x80\\xaegpj.jpg'",
        "Stored: $'/srv/photos/caf\\xe9.jpg'",
    ]


def test_a_few_failures_are_named_and_many_are_summed(world: World, said: Any):
    world.fail("a.jpg")
    world.pass_time(1)
    command = "`es-imgsearch failures --index images` lists"
    assert said() == [
        f"Cannot be indexed: /srv/photos/a.jpg: It ends too early. {command} such files."
    ]
    world.fail(*(f"{n}.jpg" for n in range(1200)))
    world.pass_time(3)
    example = "/srv/photos/0.jpg: It ends too early."
    assert said() == [f"1,200 files cannot be indexed, such as {example} {command} them."]


def test_a_failure_that_is_tried_again_is_no_news_until_it_is_another(world: World, said: Any):
    for _ in range(3):
        world.fail("a.jpg")
        world.pass_time(200)
    assert len(said()) == 1
    world.fail("a.jpg", message="It may not be read.")
    world.pass_time(1)
    assert len(said()) == 1


def test_failures_of_the_last_second_are_not_lost(world: World, said: Any):
    world.fail("a.jpg")
    world.log.close()
    assert len(said()) == 1


def test_comparisons_with_differences(world: World, said: Any):
    running = world.indexer.comparing["photos"] = RootComparison()
    world.pass_time(2)
    assert said() == []
    running.new = 1
    world.pass_time(2)
    assert said() == ["Comparing 'photos' with the index, which differs from it."]
    world.indexer.waiting = 1
    world.store("a.jpg")
    world.pass_time(3)
    assert said() == ["Stored 1 picture; at least 1 file waiting, the comparison goes on."]
    running.ended_at, running.new, running.seconds = "now", 1234, 2.0
    world.log.compared(ROOT, running)
    world.indexer.waiting = 0
    world.pass_time(1)
    assert said() == ["Compared 'photos' with the index in 2.0 s: 1,234 new, 0 changed, 0 gone."]
    world.log.compared(ROOT, RootComparison())
    assert said() == []


@pytest.mark.parametrize(
    ("new", "no_pictures", "line"),
    [
        (("a.jpg", "notes.txt", "a.xmp"), ("notes.txt", "a.xmp", "a.xmp"), "1 new"),
        (("notes.txt", "a.xmp"), ("notes.txt", "a.xmp"), None),
        (("a.jpg",), ("a file that an event showed.txt",), "1 new"),
        (("a.jpg", "b.jpg"), (), "2 new"),
    ],
)
def test_what_is_found_to_be_no_picture_is_not_new(
    world: World, said: Any, new: tuple[str, ...], no_pictures: tuple[str, ...], line: str | None
):
    comparison = RootComparison(seconds=1.0)
    for path in new:
        comparison.count_submitted(path, DifferenceKind.NEW)
    world.indexer.waiting = len(new)
    world.log.compared(ROOT, comparison)
    world.pass_time(2)
    for path in no_pictures:
        comparison.count_no_picture(path)
    assert said() == []
    world.indexer.waiting = 0
    world.pass_time(1)
    words = f"Compared 'photos' with the index in 1.0 s: {line}, 0 changed, 0 gone."
    assert said() == ([words] if line else [])


def test_pictures_that_take_long_do_not_keep_a_comparison_from_the_log(world: World, said: Any):
    comparison = RootComparison()
    comparison.count_submitted("a.jpg", DifferenceKind.NEW)
    world.indexer.waiting = 1
    world.log.compared(ROOT, comparison)
    world.pass_time(30)
    assert len(said()) == 1
    world.log.compared(ROOT, comparison)
    world.log.close()
    assert len(said()) == 1


def test_pacing_never_waits_longer_than_a_minute():
    now = [0.0]
    pacing = Pacing(lambda: now[0])
    gaps = []
    for _ in range(10):
        begin = now[0]
        while not pacing.is_due():
            now[0] += 1.0
        gaps.append(now[0] - begin)
        pacing.note()
    assert gaps == [0, 2, 4, 8, 16, 32, 60, 60, 60, 60]
