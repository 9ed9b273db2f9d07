"""Walk a root: yield its files and unknown places, sorted by stored path."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping

from es_imgsearch.records import FileState, Root, stored_ns, stored_path
from es_imgsearch.watch.mounts import is_mounted, own_mount
from es_imgsearch.watch.places import (
    ABSENT,
    LINK_INTO_ROOT,
    LINK_TO_FOLDER,
    LINK_TO_NOTHING,
    SPECIAL,
    FileOnDisk,
    Prunes,
    Unknown,
    UnknownKind,
    broken_link,
    folders_of,
    is_below,
    is_link,
    linked_folder,
    reached_tops,
)

Seen = Iterator[FileOnDisk | Unknown]


def walk(
    root: Root,
    prunes: Prunes,
    folder: str = "",
    *,
    mounts: Mapping[str, str] | None = None,
    on_mount: Callable[[str], None] = lambda _folder: None,
    on_left_out: Callable[[str], None] = lambda _reason: None,
    concerns: Callable[[str], bool] | None = None,
) -> Seen:
    """Yield every regular file below a folder of a root, sorted by stored path.

    `prunes(name, relative_folder, is_folder)` is true for entries to leave out, perhaps the reason,
    which `on_left_out` gets; it gets one of `places`, too, for what is no file.
    Links to files are files; links to folders are entered if the root follows them, see
    `linked_folder`.
    `mounts` are the known mount points by folder, as `KnownMounts` has them; one where nothing is
    mounted is unknown, and what is in the folder beneath it follows.  `on_mount` gets each folder
    on another device than its parent, or than the root if it is a link.  Files that `concerns`
    refuses by their path are passed over, without a look at them.
    """
    yield from _Walk(root, prunes, mounts or {}, on_mount, on_left_out, concerns).below(folder)


class _Walk:
    def __init__(
        self,
        root: Root,
        prunes: Prunes,
        mounts: Mapping[str, str],
        on_mount: Callable[[str], None],
        on_left_out: Callable[[str], None],
        concerns: Callable[[str], bool] | None,
    ) -> None:
        self._root = root
        self._base = os.fspath(root.path)
        self._prunes = prunes
        self._mounts = mounts
        self._on_mount = on_mount
        self._on_left_out = on_left_out
        self._concerns = concerns

    def below(self, folder: str) -> Seen:
        if (link := broken_link(self._root, folder)) is not None:
            yield _dangling(stored_path(link))
            return
        for above in folders_of(folder):
            is_followed = self._root.follows_links and is_link(self._root.absolute(above))
            if (
                own_mount(self._root, above)
                if is_followed
                else is_mounted(self._root.absolute(above))
            ):
                self._on_mount(above)
            elif self._is_unmounted(above):
                yield _unmounted(above)
                break
        tops = reached_tops(self._root, self._prunes, folder)
        if tops is not None:
            yield from self._down(folder, tops)

    def _is_unmounted(self, folder: str) -> bool:
        """Return True if a known mount point has nothing mounted."""
        if folder not in self._mounts:
            return False
        return not is_mounted(self._mounts[folder] or self._root.absolute(folder))

    def _down(self, folder: str, tops: tuple[str, ...]) -> Seen:
        # A stack of iterators, one a level: a list of (sort key, name) each.
        try:
            entries, device = self._listed(folder, tops)
        except OSError as error:
            yield from _unlisted(stored_path(folder), error)
            return
        stack = [(folder, stored_path(folder), iter(entries), device, tops)]
        while stack:
            relative, stored, rest, device, tops = stack[-1]
            entry = next(rest, None)
            if entry is None:
                stack.pop()
                continue
            key, name = entry
            path = f"{relative}/{name}" if relative else name
            where = f"{stored}/{key}" if stored else key
            if not key.endswith("/"):
                if self._concerns is None or self._concerns(path):
                    yield from self._look(path, where)
                continue
            try:
                below_tops = self._entered(path, tops)
                below, below_device = self._listed(path, below_tops)
            except OSError as error:
                yield from self._not_entered(path, where[:-1], error)
                continue
            is_followed = below_tops is not tops
            if own_mount(self._root, path) if is_followed else below_device != device:
                self._on_mount(path)
            elif self._is_unmounted(path):
                yield _unmounted(path)
            stack.append((path, where[:-1], iter(below), below_device, below_tops))

    def _entered(self, path: str, tops: tuple[str, ...]) -> tuple[str, ...]:
        """Return the tops of a folder or link that is entered."""
        absolute = f"{self._base}/{path}"
        if not self._root.follows_links or not is_link(absolute):
            return tops
        real = linked_folder(absolute, tops, self._root)
        if real is None:  # it changed since it was listed
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), absolute)
        return (*tops, real)

    def _not_entered(self, path: str, stored: str, error: OSError) -> Seen:
        is_followed = self._root.follows_links and is_link(f"{self._base}/{path}")
        if error.errno in ABSENT and is_followed:
            yield _dangling(stored)
        else:
            yield from _unlisted(stored, error, self._mounts)

    def _look(self, path: str, where: str) -> Seen:
        """Look at an entry that is no folder; nothing if it is gone or no file."""
        absolute = f"{self._base}/{path}"
        try:
            status = os.stat(absolute)
        except OSError as error:
            if error.errno not in ABSENT:
                yield Unknown(where, error.strerror or str(error))
            elif is_link(absolute):
                self._on_left_out(LINK_TO_NOTHING)
                yield Unknown(where, "it is a link to nothing", UnknownKind.DANGLING)
            return
        if stat.S_ISREG(status.st_mode):
            yield FileOnDisk(where, FileState.of(status), stored_ns(status.st_ctime_ns))
        elif stat.S_ISDIR(status.st_mode):
            self._on_left_out(LINK_INTO_ROOT if self._root.follows_links else LINK_TO_FOLDER)
        else:
            self._on_left_out(SPECIAL)

    def _listed(self, folder: str, tops: tuple[str, ...]) -> tuple[list[tuple[str, str]], int]:
        """List (sort key, name) of a folder, sorted, and its device.

        A sub-folder's key ends in a slash.  A followed link to nothing is in it twice, as a file
        and as a folder.  Folders above known mounts are listed if they are missing, too.
        """
        found: list[tuple[str, str]] = []
        links = set()
        path = f"{self._base}/{folder}" if folder else self._base
        with os.scandir(path) as entries:
            for entry in entries:
                kinds: tuple[bool, ...] = (entry.is_dir(follow_symlinks=False),)
                if entry.is_symlink():
                    links.add(entry.name)
                    kinds = self._kinds_of_link(f"{path}/{entry.name}", tops)
                if reason := self._prunes(entry.name, folder, kinds[0]):
                    self._on_left_out(reason if isinstance(reason, str) else str(reason))
                    continue
                key = stored_path(entry.name)
                found += [(f"{key}/" if is_folder else key, entry.name) for is_folder in kinds]
        folders = {name for key, name in found if key.endswith("/")} if self._mounts else ()
        # After the listing, which mounts what an automounter has there.
        status = os.stat(path) if not folder or len(tops) > 1 else os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        for name in {_component_below(each, folder) for each in self._mounts} - {"", *folders}:
            # A link that was followed before is no mount point any more.
            was_followed = name in links and self._mounts.get(f"{folder}/{name}".lstrip("/"))
            if not was_followed and not self._prunes(name, folder, True):
                found.append((f"{stored_path(name)}/", name))
        found.sort()
        return found, status.st_dev

    def _kinds_of_link(self, path: str, tops: tuple[str, ...]) -> tuple[bool, ...]:
        """Return whether a link is taken for a folder; both if that cannot be found out."""
        if not self._root.follows_links:
            return (False,)
        try:
            return (linked_folder(path, tops, self._root) is not None,)
        except OSError:
            return (False, True)


def _dangling(stored: str) -> Unknown:
    return Unknown(stored, "it is a link to nothing", UnknownKind.DANGLING_FOLDER)


def _unmounted(folder: str) -> Unknown:
    return Unknown(stored_path(folder), "it is not mounted any more", UnknownKind.UNMOUNTED)


def _unlisted(stored: str, error: OSError, mounts: Mapping[str, str] | None = None) -> Seen:
    if error.errno in ABSENT:
        # Many who unmount a file system remove its folder.
        mounted = (each for each in mounts or () if is_below(stored_path(each), stored))
        yield from map(_unmounted, sorted(mounted, key=stored_path))
    # A folder that vanished between its parent's listing and its own is no longer there.
    if error.errno not in {errno.ENOENT, errno.ENOTDIR} or not stored:
        yield Unknown(stored, error.strerror or str(error))


def _component_below(path: str, folder: str) -> str:
    """Return the first component of a path below a folder, "" if it is not below it."""
    start = f"{folder}/" if folder else ""
    return path[len(start) :].partition("/")[0] if path.startswith(start) else ""
