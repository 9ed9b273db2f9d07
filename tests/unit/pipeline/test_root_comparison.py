"""What a comparison of a root counts as left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from es_imgsearch.pipeline.jobs import PATTERN, RootComparison
from es_imgsearch.pipeline.queues import LeftoverQueue
from es_imgsearch.read.file import Skipped
from es_imgsearch.records import Change, Root
from es_imgsearch.watch.excludes import HIDDEN, Excludes
from es_imgsearch.watch.places import NO_PICTURE, FileOnDisk, Unknown
from es_imgsearch.watch.walk import walk

ROOT = Root("r", Path("/pictures"))


def test_a_file_that_is_saved_a_hundred_times_is_one_file():
    counts = RootComparison()
    pending: Any = {"r": set()}
    settler: Any = None
    leftovers = LeftoverQueue(settler, pending, {"r": counts})
    for _ in range(100):
        leftovers.put(Change(ROOT, "notes.txt", 0.0), Skipped.NOT_A_PICTURE)
    leftovers.put(Change(ROOT, "other.txt", 0.0), Skipped.NOT_A_PICTURE)
    assert counts.left_out == {NO_PICTURE: 2}


def test_what_a_comparison_met_is_not_counted_again_by_an_event():
    counts = RootComparison()
    counts.count_no_picture("notes.txt")
    counts.count_no_picture("notes.txt")
    assert counts.left_out == {NO_PICTURE: 1}
    assert set(counts.to_dict()) == {
        "new", "changed", "lost", "unknown", "unreadable", "seconds", "ended_at", "left_out",
        "left_out_by",
    }  # fmt: skip


def test_a_pattern_with_the_name_of_a_reason_is_a_pattern(tmp_path: Path):
    """With --exclude hidden each file with a leading dot counted as left out by that pattern."""
    for name in (".a", ".b", "hidden", "Thumbs.db", "usual", "pattern"):
        (tmp_path / name).touch()
    (tmp_path / "nothing").symlink_to(tmp_path / "away")
    patterns = ["hidden", "usual", "pattern", "link to nothing", "library"]
    excludes = Excludes(patterns, tmp_path)
    counts = RootComparison()
    counts.left_out_by.update(dict.fromkeys(excludes.leaving_out, 0))
    found: list[FileOnDisk | Unknown] = list(
        walk(Root("r", tmp_path), excludes.left_out, on_left_out=counts.count_left_out)
    )
    assert not [each for each in found if isinstance(each, FileOnDisk)]
    assert counts.left_out == {HIDDEN: 2, "usual": 1, "link to nothing": 1, PATTERN: 3}
    assert counts.left_out_by == {
        "hidden": 1, "usual": 1, "pattern": 1, "link to nothing": 0, "library": 0
    }  # fmt: skip
    assert all(type(each) is str for each in counts.to_dict()["left_out_by"])
