"""Compare a folder with the index by merging two sorted streams.

Memory is one folder's names and one page of the index, however many files there are.  Both
streams are sorted by the stored path; its UTF-8 bytes and Python's strings sort alike.
"""

from __future__ import annotations

import errno
import heapq
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from operator import itemgetter

from es_imgsearch.elastic.listings import IndexedFile
from es_imgsearch.records import FileState, Root, disk_path, stored_ns, stored_path
from es_imgsearch.watch.mounts import is_mounted

Prunes = Callable[[str, str, bool], bool]

# Errors of paths that do not exist; any other says nothing.
ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


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


@dataclass(frozen=True, slots=True)
class Unknown:
    """A folder that cannot be listed, or a file that cannot be stat'ed.

    What the index holds below it is left alone: unknown is not empty.
    """

    stored_path: str
    reason: str
    kind: UnknownKind = UnknownKind.UNREADABLE


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


def walk(
    root: Root,
    prunes: Prunes,
    folder: str = "",
    *,
    mounts: Collection[str] = (),
    on_mount: Callable[[str], None] = lambda _folder: None,
) -> Iterator[FileOnDisk | Unknown]:
    """Yield every regular file below a folder of a root, sorted by stored path.

    `prunes(name, relative_folder, is_folder)` returns True for excluded entries.
    Links to files are files; links to folders are not followed, so there are no loops.
    `mounts` are the known mount points; one where nothing is mounted is unknown, and what is in the
    folder beneath it follows.  `on_mount` gets each folder on another device than its parent.
    """
    for above in _folders_of(folder):
        if is_mounted(root, above):
            on_mount(above)
        elif above in mounts:
            yield _unmounted(above)
            break
    if is_reached(root, prunes, folder):
        yield from _walk_down(os.fspath(root.path), prunes, folder, mounts, on_mount)


def _walk_down(
    base: str,
    prunes: Prunes,
    folder: str,
    mounts: Collection[str],
    on_mount: Callable[[str], None],
) -> Iterator[FileOnDisk | Unknown]:
    # A stack of iterators, one a level: a list of (sort key, name) each.
    try:
        entries, device = _listed(base, folder, prunes, mounts)
    except OSError as error:
        yield from _unlisted(stored_path(folder), error)
        return
    stack = [(folder, stored_path(folder), iter(entries), device)]
    while stack:
        relative, stored, rest, device = stack[-1]
        entry = next(rest, None)
        if entry is None:
            stack.pop()
            continue
        key, name = entry
        path = f"{relative}/{name}" if relative else name
        where = f"{stored}/{key}" if stored else key
        if not key.endswith("/"):
            yield from _look(f"{base}/{path}", where)
            continue
        try:
            below, below_device = _listed(base, path, prunes, mounts)
        except OSError as error:
            yield from _unlisted(where[:-1], error, mounts)
            continue
        if below_device != device:
            on_mount(path)
        elif path in mounts:
            yield _unmounted(path)
        stack.append((path, where[:-1], iter(below), below_device))


def _folders_of(path: str) -> Iterator[str]:
    """Yield the folders of a path from the root's on, the path included."""
    for position, letter in enumerate(f"{path}/"):
        if letter == "/" and position:
            yield path[:position]


def _look(path: str, where: str) -> Iterator[FileOnDisk | Unknown]:
    """Look at an entry that is no folder; nothing if it is gone or no file."""
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno not in ABSENT:
            yield Unknown(where, error.strerror or str(error))
        elif is_link(path):
            yield Unknown(where, "it is a link to nothing", UnknownKind.DANGLING)
        return
    if stat.S_ISREG(status.st_mode):
        yield FileOnDisk(where, FileState.of(status), stored_ns(status.st_ctime_ns))


def is_link(path: str) -> bool:
    """Return True for a link, whatever it points to."""
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError as error:
        return error.errno not in ABSENT


def _unmounted(folder: str) -> Unknown:
    return Unknown(stored_path(folder), "it is not mounted any more", UnknownKind.UNMOUNTED)


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


def _unlisted(
    stored: str, error: OSError, mounts: Collection[str] = ()
) -> Iterator[FileOnDisk | Unknown]:
    if error.errno in ABSENT:
        # Many who unmount a file system remove its folder.
        mounted = (each for each in mounts if is_below(stored_path(each), stored))
        yield from map(_unmounted, sorted(mounted, key=stored_path))
    # A folder that vanished between its parent's listing and its own is no longer there.
    if error.errno not in {errno.ENOENT, errno.ENOTDIR} or not stored:
        yield Unknown(stored, error.strerror or str(error))


def _listed(
    base: str, folder: str, prunes: Prunes, mounts: Collection[str]
) -> tuple[list[tuple[str, str]], int]:
    """List (sort key, name) of a folder, sorted, and its device.

    A sub-folder's key ends in a slash.  Folders above `mounts` are listed if they are missing, too.
    """
    found = []
    path = f"{base}/{folder}" if folder else base
    with os.scandir(path) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if prunes(entry.name, folder, is_folder):
                continue
            key = stored_path(entry.name)
            found.append((f"{key}/" if is_folder else key, entry.name))
    folders = {name for key, name in found if key.endswith("/")} if mounts else ()
    # After the listing, which mounts what an automounter has there.
    status = os.lstat(path) if folder else os.stat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    missing = {_component_below(each, folder) for each in mounts} - {"", *folders}
    found += [(f"{stored_path(each)}/", each) for each in missing if not prunes(each, folder, True)]
    found.sort()
    return found, status.st_dev


def _component_below(path: str, folder: str) -> str:
    """Return the first component of a path below a folder, "" if it is not below it."""
    start = f"{folder}/" if folder else ""
    return path[len(start) :].partition("/")[0] if path.startswith(start) else ""


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
    `on_unknown` gets what is unknown; links to nothing only if something is stored of them.
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
            is_stored = stored is not None and stored[0] == seen.stored_path
            if is_stored or seen.kind is not UnknownKind.DANGLING:
                on_unknown(seen)
            # The outer one holds for what is unknown in it.
            if unknown_below is None or not is_below(seen.stored_path, unknown_below):
                unknown_below = seen.stored_path
            continue
        if stored is not None and stored[0] == seen.stored_path:
            entries = stored[1]
            stored = next(known, None)
            if (kind := _kind_of(seen, entries, compares_ctime)) is not None:
                yield FileDifference(kind, disk_path(seen.stored_path), seen.state)
        else:
            yield FileDifference(DifferenceKind.NEW, disk_path(seen.stored_path), seen.state)
    yield from lost_before(None)


def _kind_of(
    seen: FileOnDisk, entries: Sequence[IndexedFile], compares_ctime: bool
) -> DifferenceKind | None:
    """Return how a file differs from its document or failure; None if it does not."""
    stored = entries[0]
    if len(entries) > 1 or seen.state != stored.state:
        return DifferenceKind.CHANGED
    if not compares_ctime or seen.ctime_ns is None:
        return None
    if stored.failed_at_ns is not None:
        is_touched = seen.ctime_ns > stored.failed_at_ns
    else:
        is_touched = stored.ctime_ns not in {None, seen.ctime_ns}
    return DifferenceKind.TOUCHED if is_touched else None


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
