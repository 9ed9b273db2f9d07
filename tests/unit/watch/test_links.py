"""Links to folders, followed on request and without loops."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from es_imgsearch.elastic.listings import IndexedFile
from es_imgsearch.records import FileState, Root
from es_imgsearch.watch.excludes import Excludes
from es_imgsearch.watch.places import (
    LINK_INTO_ROOT,
    LINK_TO_FOLDER,
    LINK_TO_NOTHING,
    SPECIAL,
    Unknown,
    is_looked_at,
)
from es_imgsearch.watch.presence import Presence, RootFiles
from es_imgsearch.watch.reconcile import DifferenceKind, differences
from es_imgsearch.watch.root_disk import RootDisk
from es_imgsearch.watch.roots import parse_roots
from es_imgsearch.watch.walk import walk

excludes = Excludes(("*.psd", "raw/"))
STATE = FileState(1, 1)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root("r", files(tmp_path / "root", "a.jpg"), follows_links=True)


def files(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode())
    return folder


def seen(root: Root, folder: str = "") -> list[str]:
    return [each.stored_path for each in walk(root, excludes.left_out, folder)]


def left_out(root: Root) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in walk(root, excludes.left_out, on_left_out=lambda reason: found.update([reason])):
        pass
    return found


def lost(root: Root, *paths: str) -> list[str]:
    documents = [IndexedFile(path, STATE) for path in sorted(paths)]
    found = differences(walk(root, excludes.left_out), documents, ())
    return [each.relative_path for each in found if each.kind is DifferenceKind.LOST]


def presence(root: Root, path: str) -> Presence:
    return RootFiles(root, excludes.left_out, {}, RootDisk()).presence(path)


def test_what_is_left_out_is_counted_by_reason(root: Root, tmp_path: Path) -> None:
    folder = files(root.path, "b.psd", "raw/c.jpg", "raw/d.jpg", ".git/e", "f.jpg_original")
    (folder / "link").symlink_to(files(tmp_path / "outside", "g.jpg"))
    (folder / "file.jpg").symlink_to(tmp_path / "outside/g.jpg")
    (folder / "nothing").symlink_to(tmp_path / "away")
    os.mkfifo(folder / "pipe.jpg")
    plain = Root("r", folder)
    expected = {"*.psd": 1, "raw/": 1, "hidden": 1, "usual": 1, LINK_TO_NOTHING: 1, SPECIAL: 1}
    assert left_out(plain) == {**expected, LINK_TO_FOLDER: 1}
    (folder / "again").symlink_to(folder / "raw")
    assert left_out(root) == {**expected, LINK_INTO_ROOT: 1}


def test_links_to_folders_are_followed_on_request(root: Root, tmp_path: Path) -> None:
    outside = files(tmp_path / "outside", "b.jpg", "raw/c.jpg", "d/e.jpg", "d/.hidden.jpg")
    (root.path / "link").symlink_to(outside)
    (root.path / "d").symlink_to("link/d")
    assert seen(Root("r", root.path)) == ["a.jpg"]
    # Each link leads to a folder outside, so its pictures are indexed under both.
    assert seen(root) == ["a.jpg", "d/e.jpg", "link/b.jpg", "link/d/e.jpg"]
    assert seen(root, "link/d") == ["link/d/e.jpg"]
    assert is_looked_at(root, excludes.left_out, "link/d/e.jpg")
    assert presence(root, "link/d/e.jpg") is Presence.PRESENT
    assert presence(root, "link/d/f.jpg") is Presence.GONE
    assert presence(Root("r", root.path), "link/d/e.jpg") is Presence.GONE


def test_loops_end(root: Root, tmp_path: Path) -> None:
    outside = files(tmp_path / "outside", "b.jpg", "c/d.jpg")
    other = files(tmp_path / "other", "e.jpg")
    for link, target in {
        root.path / "self": root.path,
        root.path / "above": tmp_path,
        root.path / "x/up": "..",
        root.path / "x/y/inside": root.path / "x",
        root.path / "out": outside,
        outside / "back": root.path,
        outside / "own": outside,
        outside / "c/up": "..",
        outside / "c/other": other,
        other / "out": outside,
        root.path / "round": "round",
        root.path / "one": "two",
        root.path / "two": "one",
    }.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    found = [each for each in walk(root, excludes.left_out) if not isinstance(each, Unknown)]
    assert [each.stored_path for each in found] == [
        "a.jpg", "out/b.jpg", "out/c/d.jpg", "out/c/other/e.jpg",
    ]  # fmt: skip
    for path in ("self/a.jpg", "above/root/a.jpg", "out/back/a.jpg", "out/c/other/out/b.jpg"):
        assert not is_looked_at(root, excludes.left_out, path)


def test_the_root_may_be_reached_through_a_link(root: Root, tmp_path: Path) -> None:
    (tmp_path / "to-root").symlink_to(root.path)
    by_link = Root("r", tmp_path / "to-root", follows_links=True)
    (root.path / "self").symlink_to(root.path)
    assert seen(by_link) == ["a.jpg"]


def test_a_link_into_another_root_of_the_process_is_not_followed(tmp_path: Path) -> None:
    one = files(tmp_path / "one", "a.jpg")
    two = files(tmp_path / "two", "b.jpg", "sub/c.jpg")
    outside = files(tmp_path / "outside", "d.jpg")
    for link, target in {
        one / "other": two,
        one / "inner": two / "sub",
        one / "above": tmp_path,
        one / "out": outside,
        outside / "deep": two,
        two / "sub/back": one,
    }.items():
        link.symlink_to(target)
    first, second = parse_roots([str(one), str(two)], follow_links=True)
    assert seen(first) == ["a.jpg", "out/d.jpg"]
    assert seen(second) == ["b.jpg", "sub/c.jpg"]
    assert left_out(first) == {LINK_INTO_ROOT: 4}
    assert seen(first, "out/deep") == []
    for path in ("other/b.jpg", "inner/c.jpg", "out/deep/b.jpg"):
        assert not is_looked_at(first, excludes.left_out, path)
        assert presence(first, path) is Presence.GONE
    # Alone, a root is entered from anywhere.
    (alone,) = parse_roots([str(one)], follow_links=True)
    assert seen(alone) == ["a.jpg", "inner/c.jpg", "other/b.jpg", "other/sub/c.jpg", "out/d.jpg",
                           "out/deep/b.jpg", "out/deep/sub/c.jpg"]  # fmt: skip


def test_below_a_link_to_nothing_everything_is_unknown(root: Root, tmp_path: Path) -> None:
    outside = files(tmp_path / "outside", "b.jpg", "c/d.jpg")
    (root.path / "link").symlink_to(outside)
    (root.path / "link.old").symlink_to(tmp_path / "nothing")  # sorts before `link/`
    paths = ("a.jpg", "link-gone.jpg", "link/b.jpg", "link/c/d.jpg", "link/gone.jpg")
    assert lost(root, *paths) == ["link-gone.jpg", "link/gone.jpg"]
    outside.rename(tmp_path / "away")
    assert lost(root, *paths) == ["link-gone.jpg"]
    assert [type(each) for each in walk(root, excludes.left_out, "link/c")] == [Unknown]
    for path in ("link/b.jpg", "link/c/d.jpg", "link/gone.jpg"):
        assert presence(root, path) is Presence.UNKNOWN
    # The link itself was removed: that says it all.
    (root.path / "link").unlink()
    assert lost(root, *paths) == ["link-gone.jpg", "link/b.jpg", "link/c/d.jpg", "link/gone.jpg"]
    assert presence(root, "link/b.jpg") is Presence.GONE


def test_what_is_below_a_link_to_nothing_is_reported_once(root: Root, tmp_path: Path) -> None:
    (root.path / "link").symlink_to(tmp_path / "nothing")
    unknown: list[Unknown] = []
    documents = [IndexedFile("link/b.jpg", STATE)]
    list(differences(walk(root, excludes.left_out), documents, (), unknown.append))
    assert [each.stored_path for each in unknown] == ["link"]
    unknown.clear()
    list(differences(walk(root, excludes.left_out), [], (), unknown.append))
    assert unknown == []


def test_a_mount_whose_link_is_not_followed_any_more_is_no_mount(
    root: Root, tmp_path: Path
) -> None:
    (root.path / "link").symlink_to(files(tmp_path / "outside", "b.jpg"))
    (root.path / "usb").symlink_to(tmp_path / "away")
    plain = Root("r", root.path)
    mounts = {"link": str(tmp_path / "outside"), "usb": ""}
    found = list(walk(plain, excludes.left_out, mounts=mounts))
    # The other one was a mount point of its own, which a link has replaced.
    assert [each.stored_path for each in found] == ["a.jpg", "usb", "usb"]
