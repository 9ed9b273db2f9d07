"""Write a shell script that keeps one file of each group of duplicates.

The script is made to be read before it is run: every file that it removes stands on a line of its
own, below a comment that names the file that is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from es_imgsearch.duplicates.groups import (
    DuplicateGroup,
    IndexedPicture,
    Level,
    has_equal_content,
    why_left,
)
from es_imgsearch.duplicates.report import shown_bytes
from es_imgsearch.errors import UsageError, readable_bytes

_HEAD = b"""#!/bin/sh
# Removes duplicates of pictures; of each group one file is kept.  Read it, then run: sh FILE
# A file is removed only while the one that is kept is still there.
"""


def check_removable(level: Level, *, thorough: bool = False, unconfirmed: bool = False) -> None:
    """Raise UsageError for groups in which files may lie that nothing compared."""
    if level == "similar" or thorough or unconfirmed:
        raise UsageError(
            "A script removes only files whose bytes or pixels were compared: choose the level same"
            " or near, and leave out what nothing confirms."
        )


def removal_script(
    groups: Iterable[DuplicateGroup],
    shown: Callable[[bytes], str] = shown_bytes,
    readable: Callable[[int], str] = readable_bytes,
) -> Iterator[bytes]:
    """Yield the lines of a POSIX shell script; the first picture of a group is kept.

    `shown` formats a path in one line for comments, `readable` a number of bytes.  Files that are
    not on this host, that changed since they were indexed, that have more pixels than the kept one
    or were not compared with it, are left and named in a comment.
    """
    yield _HEAD
    for number, group in enumerate(groups, start=1):
        count = f"{len(group.pictures)} files, {readable(group.reclaimable_bytes)} to free"
        yield f"\n# Group {number}: {count}\n".encode()
        here = [each for each in group.pictures if why_left(each) is None]
        if not here:
            yield b"# None of them is on this host as it was indexed.\n"
            continue
        kept, path = here[0], _path(here[0])
        size = f"{kept.width} x {kept.height}, {readable(kept.state.size_bytes)}"
        yield f"# keep {shown(os.fsencode(path))} ({size})\n".encode()
        yield b"keep=" + shell_quoted(path) + b"\n"
        for each in group.pictures:
            if each is not kept:
                reason = why_left(each) or _why_no_copy(group, kept, each)
                yield from _removal(each, path, reason, shown)


def shell_quoted(path: Path) -> bytes:
    """Quote a path for sh: single quotes, in which only a single quote is special."""
    return b"'" + os.fsencode(path).replace(b"'", rb"'\''") + b"'"


def _why_no_copy(group: DuplicateGroup, kept: IndexedPicture, other: IndexedPicture) -> str | None:
    """Return why the kept file may show less than another one of its group."""
    if other.width * other.height > kept.width * kept.height:
        return "has more pixels than the file that is kept"
    both = {kept.image_id, other.image_id}
    is_compared = any({each.one, each.other} == both for each in group.pairs)
    if is_compared or has_equal_content(kept, other):
        return None
    return "not compared with the file that is kept"


def _removal(
    picture: IndexedPicture, kept: Path, reason: str | None, shown: Callable[[bytes], str]
) -> Iterator[bytes]:
    # Removing the file behind a link would remove the one that is kept.
    if reason is None and os.path.samefile(_path(picture), kept):
        reason = "another name of the file that is kept"
    name = os.fsencode(picture.path or f"{picture.root}/{picture.relative_path}")
    if reason is not None:
        yield f"# left, {reason}: {shown(name)}\n".encode()
        return
    if shown(name).encode() != name:
        # Of a name with line ends or other control characters.
        yield f"# remove {shown(name)}\n".encode()
    yield b'[ -f "$keep" ] && rm -- ' + shell_quoted(_path(picture)) + b"\n"


def _path(picture: IndexedPicture) -> Path:
    if picture.path is None:
        raise ValueError("the picture is not on this host")
    return picture.path
