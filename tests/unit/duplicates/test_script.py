"""The shell script removes what it says and nothing else: run by sh."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from es_imgsearch.duplicates.groups import DuplicateGroup, DuplicatePair, IndexedPicture
from es_imgsearch.duplicates.script import removal_script
from es_imgsearch.records import FileState, stored_path

NAMES = [
    "plain.jpg", "two words.jpg", "-rf.jpg", "--", "it's.jpg", '"double".jpg', "$HOME.jpg",
    "`touch pwned`.jpg", "$(touch pwned).jpg", "line\nend.jpg", "\nrm -rf x\n", "end\n",
    "\x1b[31mred.jpg", "back\\slash\\n.jpg", "star*.jpg", "a;b&c|d.jpg", "#comment.jpg", "~",
    "tab\t.jpg", "\u00fc.jpg", "\u202egpj.exe", "!bang.jpg", "'", "''\\''", " lead and trail ",
]  # fmt: skip
BYTES = [b"latin-\xff\xfe.jpg", b"\x80", b"quote'\xe9\n.jpg"]


def indexed(path: Path, root: Path, **given: object) -> IndexedPicture:
    relative = stored_path(os.fsdecode(os.fsencode(path)[len(os.fsencode(root)) + 1 :]))
    state = FileState.of(path.stat())
    picture = IndexedPicture(relative, "r", relative, "c", state, 10, 10, path)
    return replace(picture, **given)


def group(*pictures: IndexedPicture) -> DuplicateGroup:
    first, *others = pictures
    pairs = tuple(DuplicatePair(first.image_id, each.image_id, "bytes") for each in others)
    return DuplicateGroup("same", pictures, pairs)


def script(*groups: DuplicateGroup) -> bytes:
    def shown(path: bytes) -> str:
        return path.decode("utf-8", "backslashreplace").encode("unicode_escape").decode()

    return b"".join(removal_script(groups, shown, str))


def run(content: bytes, folder: Path) -> subprocess.CompletedProcess[bytes]:
    # In another folder: no path may be relative.
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    done = subprocess.run(["sh"], input=content, cwd=elsewhere, capture_output=True, check=False)
    assert list(elsewhere.iterdir()) == []
    return done


def left(folder: Path) -> set[bytes]:
    return set(os.listdir(os.fsencode(folder)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures $x'").mkdir()
    return tmp_path / "pictures $x'"


def written(folder: Path, name: str | bytes, content: str = "c") -> Path:
    path = Path(os.fsdecode(os.path.join(os.fsencode(folder), os.fsencode(name))))
    path.write_text(content)
    return path


@pytest.mark.parametrize("name", [*NAMES, *BYTES], ids=ascii)
def test_any_name_is_removed_or_kept(folder: Path, name: str | bytes):
    other = written(folder, "bystander.jpg")
    odd, plain = written(folder, name), written(folder, "another.jpg")
    pictures = [indexed(each, folder) for each in (odd, plain)]
    assert run(script(group(*pictures)), folder).returncode == 0
    assert left(folder) == {os.fsencode(odd.name), os.fsencode(other.name)}
    plain.write_text("c")
    pictures = [indexed(each, folder) for each in (plain, odd)]
    assert run(script(group(*pictures)), folder).returncode == 0
    assert left(folder) == {b"another.jpg", b"bystander.jpg"}


def test_every_line_is_a_comment_the_kept_file_or_one_removal(folder: Path):
    paths = [written(folder, name) for name in ("a", "b", "c", "d")]
    pictures = [indexed(each, folder) for each in paths]
    lines = script(group(*pictures[:3]), group(*pictures[2:])).decode().splitlines()
    assert lines[0] == "#!/bin/sh"
    removed = [line for line in lines if line.startswith('[ -f "$keep" ] && rm -- ')]
    assert len(removed) == 3
    assert sum(line.startswith("keep='/") for line in lines) == 2
    assert sum(line.startswith("# keep /") for line in lines) == 2
    assert all(line.startswith(("#", "keep='")) or not line or line in removed for line in lines)


def test_nothing_is_removed_once_the_kept_file_is_gone(folder: Path):
    kept, *others = (written(folder, name) for name in ("a", "b", "c"))
    content = script(group(*(indexed(each, folder) for each in (kept, *others))))
    kept.unlink()
    run(content, folder)
    assert left(folder) == {b"b", b"c"}


def test_links_to_the_kept_file_are_left(folder: Path):
    kept, copy = written(folder, "a"), written(folder, "copy")
    (folder / "hard").hardlink_to(kept)
    (folder / "soft").symlink_to(kept)
    pictures = [indexed(folder / n, folder) for n in ("soft", "a", "hard", "copy")]
    run(script(group(*pictures)), folder)
    assert left(folder) == {b"a", b"soft", b"hard"}
    assert (folder / "soft").read_text() == copy.name[:1]


def test_what_changed_is_gone_or_elsewhere_is_left_and_said(folder: Path):
    pictures = [indexed(written(folder, n), folder) for n in ("a", "b", "c", "d", "e")]
    (folder / "a").write_text("changed")
    (folder / "c").write_text("changed")
    (folder / "d").unlink()
    pictures.append(replace(pictures[4], relative_path="far/away", path=None))
    content = script(group(*pictures))
    run(content, folder)
    # The first that is as it was indexed is kept.
    assert left(folder) == {b"a", b"b", b"c"}
    text = content.decode()
    assert "# keep" in text
    assert text.count("# left, changed since it was indexed: ") == 2
    assert text.count("# left, gone: ") == 1
    assert "# left, not on this host: r/far/away" in text


def test_a_group_that_is_elsewhere_removes_nothing(folder: Path):
    away = [replace(indexed(written(folder, n), folder), path=None) for n in ("a", "b")]
    content = script(group(*away))
    assert b"rm" not in content.replace(b"Removes", b"").replace(b"removed", b"")
    assert run(content, folder).returncode == 0
    assert left(folder) == {b"a", b"b"}


SIZES = [(4000, 3000), (11, 10), (10, 11), (101, 1), (3000, 4000), (1000, 1000)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_file_with_more_pixels_than_the_kept_one_is_left(folder: Path, width: int, height: int):
    kept, small = (indexed(written(folder, n), folder) for n in ("kept", "small"))
    large = indexed(written(folder, "large"), folder, width=width, height=height)
    content = script(group(kept, large, small))
    run(content, folder)
    assert left(folder) == {b"kept", b"large"}
    assert b"# left, has more pixels than the file that is kept: " in content


def test_a_file_that_was_not_compared_with_the_kept_one_is_left(folder: Path):
    pictures = [indexed(written(folder, n), folder, content_id=n) for n in ("a", "b", "c")]
    # The first one, with which the others were compared, changes.
    (folder / "a").write_text("changed")
    content = script(group(*pictures))
    run(content, folder)
    assert left(folder) == {b"a", b"b", b"c"}
    assert b"# left, not compared with the file that is kept: " in content
