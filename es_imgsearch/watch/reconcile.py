"""Compare a folder with the index by merging two sorted streams.

Memory is one folder's names and one page of the index, however many files there are.  Both
streams are sorted by the stored path; its UTF-8 bytes and Python's strings sort alike.
"""

from __future__ import annotations

import errno
import heapq
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from operator import itemgetter

from es_imgsearch.elastic.listings import IndexedFile
from es_imgsearch.records import FileState, Root, disk_path, stored_path

Prunes = Callable[[str, str, bool], bool]


@dataclass(frozen=True, slots=True)
class FileOnDisk:
    """A file on the disk."""

    stored_path: str
    state: FileState
    ctime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """A folder that cannot be listed, or a file that cannot be stat'ed.

    What the index holds below it is left alone: unknown is not empty.
    """

    stored_path: str
    reason: str


class DifferenceKind(Enum):
    """How a file differs from the index; LOST: only the index has it.

    TOUCHED: its ctime alone differs, so its content may have changed.
    """

    NEW = auto()
    CHANGED = auto()
    LOST = auto()
    TOUCHED = auto()


@dataclass(frozen=True, slots=True)
class FileDifference:
    """A file to read, or a path to delete if it is LOST (then without a state)."""

    kind: DifferenceKind
    relative_path: str
    state: FileState | None = None


def walk(root: Root, prunes: Prunes, folder: str = "") -> Iterator[FileOnDisk | Unknown]:
    """Yield every regular file below a folder of a root, sorted by stored path.

    `prunes(name, relative_folder, is_folder)` returns True for excluded entries.
    Links to files are files; links to folders are not followed, so there are no loops.
    """
    if not is_reached(root, prunes, folder):
        return
    base = os.fspath(root.path)
    # A stack of iterators, one a level: a list of (sort key, name) each.
    try:
        stack = [(folder, stored_path(folder), iter(_entries(base, folder, prunes)))]
    except OSError as error:
        yield from _unlisted(stored_path(folder), error)
        return
    while stack:
        relative, stored, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        key, name = entry
        path = f"{relative}/{name}" if relative else name
        where = f"{stored}/{key}" if stored else key
        if key.endswith("/"):
            try:
                below = _entries(base, path, prunes)
            except OSError as error:
                yield from _unlisted(where[:-1], error)
                continue
            stack.append((path, where[:-1], iter(below)))
            continue
        try:
            status = os.stat(f"{base}/{path}")
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                yield Unknown(where, error.strerror or str(error))
            continue
        if stat.S_ISREG(status.st_mode):
            yield FileOnDisk(where, FileState.of(status), status.st_ctime_ns)


def is_reached(root: Root, prunes: Prunes, folder: str) -> bool:
    """Return True if a walk enters this folder: it exists, is no link, not excluded.

    Also True if that cannot be found out, for example without permission.
    """
    path, above = os.fspath(root.path), ""
    for name in folder.split("/") if folder else ():
        if prunes(name, above, True):
            return False
        path = f"{path}/{name}"
        above = f"{above}/{name}" if above else name
        try:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                return False
        except OSError as error:
            return error.errno not in {errno.ENOENT, errno.ENOTDIR}
    return True


def is_looked_at(root: Root, prunes: Prunes, relative_path: str) -> bool:
    """Return True if a walk of the root would yield this file, if it exists."""
    folder, _, name = relative_path.rpartition("/")
    return not prunes(name, folder, False) and is_reached(root, prunes, folder)


def _unlisted(stored: str, error: OSError) -> Iterator[Unknown]:
    # A folder that vanished between its parent's listing and its own is no longer there.
    if error.errno not in {errno.ENOENT, errno.ENOTDIR} or not stored:
        yield Unknown(stored, error.strerror or str(error))


def _entries(base: str, folder: str, prunes: Prunes) -> list[tuple[str, str]]:
    """List (sort key, name) of a folder, sorted; a sub-folder's key ends in a slash."""
    found = []
    with os.scandir(f"{base}/{folder}" if folder else base) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if prunes(entry.name, folder, is_folder):
                continue
            key = stored_path(entry.name)
            found.append((f"{key}/" if is_folder else key, entry.name))
    found.sort()
    return found


def differences(
    disk: Iterable[FileOnDisk | Unknown],
    documents: Iterable[IndexedFile],
    failures: Iterable[IndexedFile],
    on_unknown: Callable[[Unknown], None] = lambda _unknown: None,
    *,
    compares_ctime: bool = False,
) -> Iterator[FileDifference]:
    """Yield the changes that bring the index to the state of the disk.

    A file is accounted for by a document or a failure of the same size and modification time; by
    both it is CHANGED, since no path may have both.  Only with `compares_ctime` it may be TOUCHED.
    """
    known = _grouped(heapq.merge(documents, failures, key=itemgetter(0)))
    stored = next(known, None)
    unknown_below: str | None = None

    def lost_before(limit: str | None) -> Iterator[FileDifference]:
        nonlocal stored
        while stored is not None and (limit is None or stored[0] < limit):
            path = stored[0]
            stored = next(known, None)
            if unknown_below is not None and is_below(path, unknown_below):
                continue
            yield FileDifference(DifferenceKind.LOST, disk_path(path))

    for seen in disk:
        yield from lost_before(seen.stored_path)
        if isinstance(seen, Unknown):
            on_unknown(seen)
            unknown_below = seen.stored_path
            continue
        if stored is not None and stored[0] == seen.stored_path:
            entries = stored[1]
            stored = next(known, None)
            kind: DifferenceKind | None = None
            if len(entries) > 1 or seen.state != entries[0].state:
                kind = DifferenceKind.CHANGED
            elif compares_ctime and _is_touched(seen, entries[0]):
                kind = DifferenceKind.TOUCHED
            if kind is not None:
                yield FileDifference(kind, disk_path(seen.stored_path), seen.state)
        else:
            yield FileDifference(DifferenceKind.NEW, disk_path(seen.stored_path), seen.state)
    yield from lost_before(None)


def _is_touched(seen: FileOnDisk, stored: IndexedFile) -> bool:
    if seen.ctime_ns is None:
        return False
    if stored.failed_at_ns is not None:
        return seen.ctime_ns > stored.failed_at_ns
    return stored.ctime_ns not in {None, seen.ctime_ns}


def _grouped(merged: Iterable[IndexedFile]) -> Iterator[tuple[str, list[IndexedFile]]]:
    """Group files by path; a path in both the index and the failures has two."""
    current: tuple[str, list[IndexedFile]] | None = None
    for each in merged:
        if current is not None and current[0] == each.stored_path:
            current[1].append(each)
            continue
        if current is not None:
            yield current
        current = (each.stored_path, [each])
    if current is not None:
        yield current


def is_below(path: str, folder: str) -> bool:
    """Return True for the folder itself and paths below it; "" is the root."""
    return not folder or path == folder or path.startswith(f"{folder}/")
