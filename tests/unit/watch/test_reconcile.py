"""Two sorted streams and what differs between them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from es_imgsearch.elastic.listings import IndexedFile
from es_imgsearch.records import FileState, Root, stored_path
from es_imgsearch.watch.excludes import Excludes
from es_imgsearch.watch.places import FileOnDisk, Unknown
from es_imgsearch.watch.reconcile import DifferenceKind, FileDifference, differences
from es_imgsearch.watch.walk import walk

prunes = Excludes().prunes


def tree(folder: Path, *paths: str) -> Root:
    for path in paths:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.encode())
    return Root("r", folder)


def walked(root: Root, folder: str = "") -> list[str]:
    return [each.stored_path for each in walk(root, prunes, folder)]


def test_a_walk_is_in_the_order_of_the_whole_paths_bytes(tmp_path: Path):
    paths = ["a b.jpg", "a/b.jpg", "a.jpg", "a/b/c.jpg", "B.jpg", "é/1.jpg", "z", "a0"]
    assert walked(tree(tmp_path, *paths)) == sorted(paths, key=str.encode)


_component = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=6
).filter(lambda name: name not in {".", ".."})


@given(st.sets(st.lists(_component, min_size=1, max_size=3).map("/".join), max_size=12))
def test_any_tree_is_walked_in_order(tmp_path_factory: pytest.TempPathFactory, paths: set[str]):
    folder = tmp_path_factory.mktemp("tree")
    # A name cannot be a file and a folder at once.
    files = {p for p in paths if not any(other.startswith(f"{p}/") for other in paths)}
    seen = walk(tree(folder, *files), lambda *_: False)
    assert [each.stored_path for each in seen] == sorted(map(stored_path, files))


def test_names_that_are_not_utf8_are_walked_escaped(tmp_path: Path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"x")
    assert walked(Root("r", tmp_path)) == [r"caf\xe9.jpg"]


def test_links_to_files_are_files_and_links_to_folders_are_not_followed(tmp_path: Path):
    root = tree(tmp_path / "root", "a.jpg")
    outside = tree(tmp_path / "outside", "b.jpg").path
    (root.path / "file-link.jpg").symlink_to(outside / "b.jpg")
    (root.path / "folder-link").symlink_to(outside)
    (root.path / "loop").symlink_to(root.path)
    (root.path / "broken.jpg").symlink_to(outside / "nothing")
    (root.path / "own-loop.jpg").symlink_to(root.path / "own-loop.jpg")
    found = {each.stored_path: each for each in walk(root, prunes)}
    unknown = [each.stored_path for each in found.values() if isinstance(each, Unknown)]
    assert unknown == ["broken.jpg", "own-loop.jpg"]
    assert found.keys() - set(unknown) == {"a.jpg", "file-link.jpg"}


def test_what_is_neither_file_nor_folder_is_left_out(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert walked(tree(tmp_path, "a.jpg")) == ["a.jpg"]


def test_excluded_folders_are_not_entered(tmp_path: Path):
    root = tree(tmp_path, "a.jpg", ".git/b.jpg", "@eaDir/c.jpg", "d/.hidden.jpg", "e.jpg.part")
    assert walked(root) == ["a.jpg"]


def test_a_part_of_the_tree_can_be_walked(tmp_path: Path):
    root = tree(tmp_path, "a/1.jpg", "a/b/2.jpg", "c/3.jpg")
    assert walked(root, "a") == ["a/1.jpg", "a/b/2.jpg"]
    assert walked(root, "gone") == []


def test_a_missing_root_is_unknown_not_empty(tmp_path: Path):
    (unknown,) = walk(Root("r", tmp_path / "gone"), prunes)
    assert isinstance(unknown, Unknown)


# -- mounts --------------------------------------------------------------------------------


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Folders that are on a device of their own, with all below them."""
    folders: set[Path] = set()

    def on_its_device(real):
        def look(path, **options):
            status = real(path, **options)
            given = Path(path)
            depth = sum(each == given or each in given.parents for each in folders)
            fields = {name: getattr(status, name) for name in dir(status) if name[:3] == "st_"}
            return SimpleNamespace(**fields | {"st_dev": status.st_dev + depth})

        return look

    for name in ("stat", "lstat"):
        monkeypatch.setattr(os, name, on_its_device(getattr(os, name)))
    return folders


def test_a_walk_finds_where_file_systems_are_mounted(tmp_path: Path, mounted: set[Path]):
    root = tree(tmp_path, "a/1.jpg", "a/b/2.jpg", "a/b/c/3.jpg", "d/4.jpg")
    mounted |= {tmp_path / "a/b", tmp_path / "d", tmp_path}
    for folder, expected in {
        "": ["a/b", "d"],
        "a": ["a/b"],
        "a/b": ["a/b"],
        "a/b/c": ["a/b"],
    }.items():
        found: list[str] = []
        list(walk(root, prunes, folder, on_mount=found.append))
        assert found == expected


@pytest.mark.parametrize("folder", ["", "a"])
def test_what_is_below_an_unmounted_folder_is_unknown(
    tmp_path: Path, mounted: set[Path], folder: str
):
    root = tree(tmp_path, "a/0.jpg", "a/b/new.jpg", "a/usb", "a/d/5.jpg")
    mounted.add(tmp_path / "a/d")
    # One where the folder is left, one where a file has its name, two that are removed.
    known = ["a/b", "a/usb", "a/c/x", "a/c/y", "a/d"]
    paths = ["a/0.jpg", "a/b/1.jpg", "a/b/e/2.jpg", "a/b0.jpg", "a/c/x/3.jpg", "a/c/z.jpg",
             "a/d/6.jpg", "a/usb/4.jpg"]  # fmt: skip
    seen = list(walk(root, prunes, folder, mounts=dict.fromkeys(known, "")))
    assert [each.stored_path for each in seen] == [
        "a/0.jpg", "a/b", "a/b/new.jpg", "a/c/x", "a/c/y", "a/d/5.jpg", "a/usb", "a/usb",
    ]  # fmt: skip
    kinds = {
        each.relative_path: each.kind
        for each in differences(seen, [IndexedFile(path, STATE) for path in paths], ())
    }
    lost = [path for path, kind in kinds.items() if kind is DifferenceKind.LOST]
    assert lost == ["a/b0.jpg", "a/c/z.jpg", "a/d/6.jpg"]
    # In the folder itself, too.
    seen = list(walk(root, prunes, "a/b/e", mounts=dict.fromkeys(known, "")))
    assert [each.stored_path for each in seen] == ["a/b"]
    assert not list(differences(seen, [IndexedFile("a/b/e/2.jpg", STATE)], ()))


def test_an_excluded_mount_is_not_kept(tmp_path: Path):
    root = tree(tmp_path, "1.jpg")
    assert list(walk(root, Excludes(["usb/"]).prunes, mounts={"usb": ""})) == list(
        walk(root, prunes)
    )


def test_the_outer_of_two_unknown_folders_holds():
    seen = [Unknown("a", "no"), Unknown("a/b", "no"), FileOnDisk("a/c", STATE)]
    assert not list(
        differences(seen, [IndexedFile(path, STATE) for path in ("a/b/1", "a/c", "a/d")], ())
    )


STATE = FileState(1, 1)
OTHER = FileState(2, 2)


def found(disk: dict[str, FileState | None], stored: dict, failures: dict | None = None):
    """`None` as a state on the disk stands for a folder that cannot be listed."""
    seen = [
        Unknown(path, "no") if state is None else FileOnDisk(path, state)
        for path, state in sorted(disk.items(), key=lambda item: item[0])
    ]
    listings = (
        [IndexedFile(*each) for each in sorted(files.items())] for files in (stored, failures or {})
    )
    found = differences(seen, *listings)
    return {each.relative_path: each.kind for each in found}


def test_new_changed_and_lost():
    disk = {"same": STATE, "new": STATE, "changed": OTHER}
    stored = {"same": STATE, "changed": STATE, "lost": STATE}
    assert found(disk, stored) == {
        "new": DifferenceKind.NEW,
        "changed": DifferenceKind.CHANGED,
        "lost": DifferenceKind.LOST,
    }


def test_a_failure_accounts_for_its_file_until_that_changes():
    assert found({"bad": STATE}, {}, {"bad": STATE}) == {}
    assert found({"bad": OTHER}, {}, {"bad": STATE}) == {"bad": DifferenceKind.CHANGED}
    assert found({}, {}, {"bad": STATE}) == {"bad": DifferenceKind.LOST}


def test_what_lies_below_an_unlistable_folder_is_not_lost():
    stored = {"a/1": STATE, "b/1": STATE, "b/c/2": STATE, "b2": STATE, "z": STATE}
    assert found({"b": None}, stored) == {
        "a/1": DifferenceKind.LOST,
        "b2": DifferenceKind.LOST,
        "z": DifferenceKind.LOST,
    }


def test_nothing_is_lost_where_the_root_itself_is_unknown():
    assert found({"": None}, {"a": STATE, "b/c": STATE}, {"d": STATE}) == {}


def test_a_file_in_two_states_is_changed_whatever_they_are():
    assert found({"a": STATE}, {"a": STATE}, {"a": STATE}) == {"a": DifferenceKind.CHANGED}
    assert found({"a": STATE}, {"a": STATE}, {"a": OTHER}) == {"a": DifferenceKind.CHANGED}


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        (IndexedFile("a", STATE, 5), None),
        (IndexedFile("a", STATE, 4), DifferenceKind.TOUCHED),
        (IndexedFile("a", STATE), None),
        (IndexedFile("a", OTHER, 4), DifferenceKind.CHANGED),
        (IndexedFile("a", STATE, failed_at_ns=6), None),
        (IndexedFile("a", STATE, failed_at_ns=4), DifferenceKind.TOUCHED),
    ],
)
def test_a_ctime_alone_touches_a_file(stored: IndexedFile, kind: DifferenceKind | None):
    seen = FileOnDisk("a", STATE, 5)
    assert [each.kind for each in differences([seen], [stored], [], compares_ctime=True)] == (
        [] if kind is None else [kind]
    )
    if kind is DifferenceKind.TOUCHED:
        assert not list(differences([seen], [stored], []))


_paths = st.text("ab/ .é\U0001f600", min_size=1, max_size=4)
_states = st.sampled_from([FileState(1, 1), FileState(1, 2), FileState(2, 1)])


@given(st.dictionaries(_paths, _states), st.dictionaries(_paths, _states))
def test_any_two_listings_differ_by_what_sets_say(disk: dict, stored: dict):
    expected = dict.fromkeys(disk.keys() - stored.keys(), DifferenceKind.NEW)
    expected |= dict.fromkeys(stored.keys() - disk.keys(), DifferenceKind.LOST)
    expected |= {
        path: DifferenceKind.CHANGED
        for path in disk.keys() & stored.keys()
        if disk[path] != stored[path]
    }
    assert found(disk, stored) == expected


def test_a_difference_names_the_path_as_it_is_on_the_disk():
    name = os.fsdecode(b"caf\xe9")
    (difference,) = differences([FileOnDisk(stored_path(name), STATE)], [], [])
    assert difference == FileDifference(DifferenceKind.NEW, name, STATE)
