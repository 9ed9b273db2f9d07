"""Which file of a group is kept: by size, by date, by folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from es_imgsearch.duplicates.groups import DuplicateGroup, IndexedPicture, Keep
from es_imgsearch.records import FileState


def picture(place: str, mtime_ns: int, side: int = 100, host_has_it: bool = True) -> IndexedPicture:
    root, _, relative = place.partition("/")
    path = Path(f"/disk/{place}") if host_has_it else None
    return IndexedPicture(place, root, relative, "c", FileState(10, mtime_ns), side, side, path)


GROUP = DuplicateGroup(
    "same",
    (picture("a/new.png", 30), picture("b/sub/old.png", 10), picture("b/mid.png", 20)),
    (),
)


@pytest.mark.parametrize(
    ("keep", "folder", "first"),
    [
        ("oldest", "", "b/sub/old.png"),
        ("newest", "", "a/new.png"),
        ("newest", "b", "b/mid.png"),
        ("newest", "b/", "b/mid.png"),
        ("newest", "b/sub", "b/sub/old.png"),
        ("newest", "b/su", "a/new.png"),
        ("oldest", "a", "a/new.png"),
        ("oldest", "/disk/a", "a/new.png"),
        ("oldest", "/disk/a/", "a/new.png"),
        ("oldest", "/dis", "b/sub/old.png"),
        ("oldest", "nowhere", "b/sub/old.png"),
    ],
)
def test_the_first_is_kept(keep: Keep, folder: str, first: str):
    kept = GROUP.keeping(keep, folder)
    assert kept.pictures[0].image_id == first
    assert set(kept.pictures) == set(GROUP.pictures)


def test_a_folder_comes_before_pixels_and_a_file_here_before_a_folder():
    small, large = picture("a/1", 1, side=10), picture("b/2", 2, side=99)
    gone = picture("a/3", 3, side=999, host_has_it=False)
    group = DuplicateGroup("same", (large, gone, small), ())
    assert group.keeping("largest").pictures == (large, small, gone)
    assert group.keeping("largest", "a").pictures == (small, large, gone)
