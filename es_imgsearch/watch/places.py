"""What is at a path of a root: a file, an unknown place, a link to follow."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from es_imgsearch.records import FileState, Root

# (name, relative folder, is a folder) of an entry; true, or the reason, if it is left out.
Prunes = Callable[[str, str, bool], str | bool]

# Errors of paths that do not exist; any other says nothing.
ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

# Reasons why a walk leaves out an entry, beside those of `excludes`.
LINK_TO_FOLDER: Final = "link to a folder"
LINK_INTO_ROOT: Final = "link to a folder that is watched anyway"
LINK_TO_NOTHING: Final = "link to nothing"
SPECIAL: Final = "no file"
NO_PICTURE: Final = "no picture"


@dataclass(frozen=True, slots=True)
class FileOnDisk:
    """A file on the disk."""

    stored_path: str
    state: FileState
    ctime_ns: int | None = None


class UnknownKind(Enum):
    """Why a path is unknown."""

    UNREADABLE = auto()
    UNMOUNTED = auto()
    DANGLING = auto()  # a link to nothing: its target may be on a disk that is not mounted
    DANGLING_FOLDER = auto()  # the same, for what is stored below it


@dataclass(frozen=True, slots=True)
class Unknown:
    """A folder that cannot be listed, or a file that cannot be stat'ed.

    What the index holds below it is left alone: unknown is not empty.
    """

    stored_path: str
    reason: str
    kind: UnknownKind = UnknownKind.UNREADABLE


def is_below(path: str, folder: str) -> bool:
    """Return True for the folder itself and paths below it; "" is the root."""
    return not folder or path == folder or path.startswith(f"{folder}/")


def folders_of(path: str) -> Iterator[str]:
    """Yield the folders of a path from the root's on, the path included."""
    for position, letter in enumerate(f"{path}/"):
        if letter == "/" and position:
            yield path[:position]


def is_link(path: str) -> bool:
    """Return True for a link, whatever it points to."""
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError as error:
        return error.errno not in ABSENT


def real_path(root: Root) -> str:
    """Return a root's path without links."""
    return os.path.realpath(root.path)


def linked_folder(path: str, tops: tuple[str, ...], root: Root) -> str | None:
    """Return the folder that a link leads to, None if it is not to be entered.

    `tops` are the real paths of the root and of the links that were followed to this one.  A folder
    in one of them, or above it, is not entered again: so there are no loops, and nothing in a root
    is indexed under two paths.  The other roots of the process count as well; they are compared by
    path, since a disk of theirs may hang.  Raises OSError for a link to nothing.
    """
    real = os.path.realpath(path)
    status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode):
        return None
    if any(is_inside(real, each) or is_inside(each, real) for each in root.other_paths):
        return None
    for top in tops:
        if is_inside(real, top) or is_inside(top, real) or os.path.samestat(status, os.stat(top)):
            return None
    return real


def is_inside(path: str, folder: str) -> bool:
    """Return True for the folder itself and absolute paths below it."""
    return is_below(path, folder.rstrip("/"))


def reached_tops(root: Root, prunes: Prunes, folder: str) -> tuple[str, ...] | None:
    """Return the tops (see `linked_folder`) of a folder that a walk enters.

    None if it does not: the folder does not exist, is left out, or is a link that is not followed.
    A folder of which that cannot be found out, for example without permission, is entered.
    """
    path, above = os.fspath(root.path), ""
    tops: tuple[str, ...] = (real_path(root),)
    for name in folder.split("/") if folder else ():
        if prunes(name, above, True):
            return None
        path = f"{path}/{name}"
        above = f"{above}/{name}" if above else name
        try:
            mode = os.lstat(path).st_mode
            if root.follows_links and stat.S_ISLNK(mode):
                if (real := linked_folder(path, tops, root)) is None:
                    return None
                tops = (*tops, real)
            elif not stat.S_ISDIR(mode):
                return None
        except OSError as error:
            return None if error.errno in {errno.ENOENT, errno.ENOTDIR} else tops
    return tops


def why_left_out(prunes: Prunes, relative_path: str) -> str:
    """Return why a path, or a folder above it, is left out; "" if it is not."""
    above = ""
    *folders, name = relative_path.split("/")
    for each in folders:
        if reason := prunes(each, above, True):
            return str(reason)
        above = f"{above}/{each}" if above else each
    return str(prunes(name, above, False) or "")


def is_looked_at(root: Root, prunes: Prunes, relative_path: str) -> bool:
    """Return True if a walk of the root would yield this file, if it exists."""
    if root.is_url:
        return not why_left_out(prunes, relative_path)
    folder, _, name = relative_path.rpartition("/")
    return not prunes(name, folder, False) and reached_tops(root, prunes, folder) is not None


def broken_link(root: Root, path: str) -> str | None:
    """Return the first folder of a path that is a followed link to nothing.

    None if there is none.

    Its target may be on a disk that is not mounted, so what lies below it is unknown.
    """
    for above in folders_of(path) if root.follows_links else ():
        absolute = root.absolute(above)
        try:
            os.stat(absolute)
        except OSError as error:
            return above if error.errno in ABSENT and is_link(absolute) else None
    return None
