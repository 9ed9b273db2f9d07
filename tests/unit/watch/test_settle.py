"""When a file is finished."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from es_imgsearch.records import Root
from es_imgsearch.watch.settle import Arrivals, Settler
from es_imgsearch.watch.watcher import Hint, HintKind

ROOT = Root("photos", Path("/photos"))
OTHER = Root("scans", Path("/scans"))


class Disk:
    """What `stat` answers, by relative path below /photos."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[int, int]] = {}
        self.calls = 0

    def stat(self, path: str) -> os.stat_result:
        self.calls += 1
        size_bytes, mtime_seconds = self.files[path] if path in self.files else self._missing(path)
        fields = (0o100644, 1, 1, 1, 0, 0, size_bytes, 0, mtime_seconds, 0)
        return os.stat_result(fields, {"st_mtime_ns": mtime_seconds * 10**9})

    def _missing(self, path: str) -> tuple[int, int]:
        raise FileNotFoundError(path)

    def put(self, name: str, size_bytes: int, mtime_seconds: int = 1000) -> None:
        self.files[f"/photos/{name}"] = (size_bytes, mtime_seconds)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def settler(disk: Disk) -> Settler:
    return Settler(settle_seconds=2.0, max_waiting=10, stat=disk.stat)


def hint(kind: HintKind, path: str = "a.jpg", root: Root = ROOT) -> Hint:
    return Hint(root, path, kind)


def test_a_file_closed_after_writing_is_due_at_once(settler: Settler, disk: Disk) -> None:
    settler.offer(hint(HintKind.WRITTEN), now=5.0)
    assert settler.next_due_at() == 5.0
    assert settler.due(5.0) == [(ROOT, "a.jpg", 5.0)]
    assert settler.due(100.0) == []
    assert settler.next_due_at() is None
    assert disk.calls == 0


def test_a_touched_file_is_due_when_it_has_not_changed(settler: Settler, disk: Disk) -> None:
    disk.put("a.jpg", 10)
    settler.offer(hint(HintKind.TOUCHED), now=5.0)
    assert disk.calls == 0  # offering is quick
    assert settler.next_due_at() == 5.0  # the first look
    assert settler.due(5.0) == []
    assert settler.next_due_at() == 7.0
    assert settler.due(6.9) == []
    assert settler.due(7.0) == [(ROOT, "a.jpg", 5.0)]
    assert len(settler) == 0


@pytest.mark.parametrize("by_size", [True, False])
def test_a_growing_file_keeps_waiting(settler: Settler, disk: Disk, by_size: bool) -> None:
    disk.put("a.jpg", 10)
    settler.offer(hint(HintKind.TOUCHED), now=0.0)
    settler.due(0.0)
    now = 0.0
    for step in range(1, 20):
        now = step * 2.0
        disk.put("a.jpg", 10 + step if by_size else 10, 1000 if by_size else 1000 + step)
        settler.offer(hint(HintKind.TOUCHED), now)
        assert settler.due(now) == []
    assert settler.due(now + 2.0) == [(ROOT, "a.jpg", now)]


def test_written_ends_the_wait_and_is_given_once(settler: Settler, disk: Disk) -> None:
    disk.put("a.jpg", 10)
    settler.offer(hint(HintKind.TOUCHED), 0.0)
    settler.due(0.0)
    settler.offer(hint(HintKind.WRITTEN), 0.5)
    settler.offer(hint(HintKind.TOUCHED), 0.6)
    assert settler.due(0.7) == [(ROOT, "a.jpg", 0.5)]
    assert settler.due(50.0) == []


def test_gone_passes_through_and_ends_the_wait(settler: Settler) -> None:
    settler.offer(hint(HintKind.TOUCHED), 0.0)
    settler.due(0.0)
    settler.offer(hint(HintKind.GONE), 1.0)
    assert settler.due(1.0) == [(ROOT, "a.jpg", 1.0)]
    assert len(settler) == 0


def test_a_file_that_vanished_without_a_word_is_given(settler: Settler, disk: Disk) -> None:
    settler.offer(hint(HintKind.TOUCHED), 0.0)
    settler.due(0.0)
    assert settler.due(2.0) == [(ROOT, "a.jpg", 0.0)]


def test_attributes_changed_again_and_again_do_not_keep_it_waiting(
    settler: Settler, disk: Disk
) -> None:
    disk.put("a.jpg", 10)
    settler.offer(hint(HintKind.TOUCHED), 0.0)
    settler.due(0.0)
    for now in (0.5, 1.0, 1.5, 1.9):
        settler.offer(hint(HintKind.TOUCHED), now)
        assert settler.due(now) == []
    assert settler.due(2.0) == [(ROOT, "a.jpg", 1.9)]


def test_a_modification_time_in_the_future_does_not_matter(settler: Settler, disk: Disk) -> None:
    disk.put("a.jpg", 10, mtime_seconds=4_000_000_000)
    settler.offer(hint(HintKind.TOUCHED), 0.0)
    settler.due(0.0)
    assert settler.due(2.0) == [(ROOT, "a.jpg", 0.0)]


def test_beyond_the_bound_it_asks_for_a_comparison(settler: Settler) -> None:
    for number in range(15):
        kind = HintKind.TOUCHED if number % 2 else HintKind.WRITTEN
        settler.offer(hint(kind, f"{number}.jpg"), 0.0)
    assert len(settler) == 10
    assert settler.take_overflowed() == {ROOT}
    assert settler.take_overflowed() == frozenset()
    settler.offer(hint(HintKind.WRITTEN, "1.jpg"), 1.0)  # known already: needs no room
    assert settler.take_overflowed() == frozenset()
    assert (ROOT, "1.jpg", 1.0) in settler.due(1.0)


def test_a_root_that_is_gone_is_forgotten(settler: Settler, disk: Disk) -> None:
    for kind in (HintKind.TOUCHED, HintKind.WRITTEN):
        settler.offer(hint(kind, f"{kind}1"), 0.0)
    settler.due(0.0)
    for kind in (HintKind.TOUCHED, HintKind.WRITTEN):
        settler.offer(hint(kind, f"{kind}2"), 0.0)
        settler.offer(hint(kind, str(kind), OTHER), 0.0)
    settler.offer(hint(HintKind.ROOT_GONE, ""), 1.0)
    assert len(settler) == 2
    assert settler.due(1.0) == [(OTHER, "written", 0.0)]


@pytest.mark.parametrize("kind", [HintKind.SUBTREE, HintKind.OVERFLOW])
def test_hints_about_folders_change_nothing(settler: Settler, kind: HintKind) -> None:
    settler.offer(hint(kind, "folder"), 0.0)
    assert len(settler) == 0


def test_what_is_offered_while_stat_runs_is_not_lost(disk: Disk) -> None:
    """`stat` may take long; the reading thread goes on offering meanwhile."""
    arriving: list[Hint] = []

    def slow_stat(path: str) -> os.stat_result:
        while arriving:
            slow.offer(arriving.pop(0), 3.0)
        return disk.stat(path)

    slow = Settler(settle_seconds=2.0, stat=slow_stat)
    disk.put("a.jpg", 10)
    disk.put("b.jpg", 10)
    slow.offer(hint(HintKind.TOUCHED, "a.jpg"), 0.0)
    arriving += [hint(HintKind.WRITTEN, "a.jpg"), hint(HintKind.TOUCHED, "b.jpg")]
    assert slow.due(0.0) == []
    assert slow.due(3.0) == [(ROOT, "a.jpg", 3.0)]
    arriving += [hint(HintKind.WRITTEN, "b.jpg")]
    assert slow.due(5.0) == []
    assert slow.due(5.0) == [(ROOT, "b.jpg", 3.0)]
    assert len(slow) == 0


STEP = st.tuples(
    st.sampled_from([HintKind.TOUCHED, HintKind.WRITTEN, HintKind.GONE, "grow", "due"]),
    st.sampled_from(["a", "b", "c"]),
    st.floats(min_value=0.0, max_value=3.0),
)


@given(steps=st.lists(STEP, max_size=40))
def test_every_path_comes_out_once(
    steps: list[tuple[HintKind | str, str, float]],
) -> None:
    disk = Disk()
    settler = Settler(settle_seconds=2.0, stat=disk.stat)
    now, open_paths = 100.0, set()
    for step, name, seconds in steps:
        now += seconds
        if step == "grow":
            size_bytes = disk.files.get(f"/photos/{name}", (0, 0))[0]
            disk.put(name, size_bytes + 1)
            settler.offer(hint(HintKind.TOUCHED, name), now)
            open_paths.add(name)
        elif isinstance(step, HintKind):
            settler.offer(hint(step, name), now)
            open_paths.add(name)
        else:
            for _, path, _ in settler.due(now):
                assert path in open_paths  # given once
                open_paths.remove(path)
    given = [path for seconds in (0.0, 2.0, 4.0) for _, path, _ in settler.due(now + seconds)]
    assert len(settler) == 0
    assert settler.next_due_at() is None
    assert sorted(given) == sorted(open_paths)


def test_a_paused_root_is_due_when_no_more_files_come_and_then_ever_more_rarely():
    now = [0.0]
    arrivals = Arrivals(2.0, lambda: now[0])

    def due_at(arrived: int) -> float:
        """When it is due after so many files came in all; -1 for not within an hour."""
        began = now[0]
        while now[0] < began + 3600:
            if arrivals.is_due(arrived, is_paused=True):
                return now[0] - began
            now[0] += 1.0
        return -1

    assert not arrivals.is_due(5, is_paused=False)
    assert due_at(5) == -1  # these came before the pause
    assert not arrivals.is_due(6, is_paused=True)
    now[0] += 1.0
    assert due_at(7) == 2  # the last one counts
    assert [due_at(8), due_at(9), due_at(10)] == [10, 20, 40]
    assert not arrivals.is_due(11, is_paused=False)
    assert due_at(12) == 2  # another pause
