"""Tell whether files of a root are present, gone or unknown."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto

from es_imgsearch.records import FileState, Root
from es_imgsearch.watch.mounts import is_mounted, without_unlinked
from es_imgsearch.watch.places import (
    ABSENT,
    Prunes,
    broken_link,
    is_below,
    is_link,
    is_looked_at,
    why_left_out,
)
from es_imgsearch.watch.root_disk import RootDisk
from es_imgsearch.watch.sources.opened import status_at

IsNonPicture = Callable[[FileState], bool]

_LOOKS_AT_ONCE = 16


class Presence(Enum):
    """What is known of a file.

    GONE: a walk would not yield it.  UNKNOWN: that cannot be found out, so its document stays.
    """

    PRESENT = auto()
    GONE = auto()
    UNKNOWN = auto()


class RootFiles:
    """The files of a root, for one batch of paths; listings are kept."""

    def __init__(
        self, root: Root, prunes: Prunes, mounts: Mapping[str, str], disk: RootDisk
    ) -> None:
        """`mounts` are the known mount points of the root."""
        self._disk = disk
        self._root = root
        self._prunes = prunes
        self._listings: dict[str, frozenset[str]] = {}
        with disk.calling():
            self._unmounted = [
                each
                for each, at in without_unlinked(root, mounts).items()
                if not is_mounted(at or root.absolute(each))
            ]

    def presences(
        self, paths: Sequence[str], is_non_picture: Callable[[str], IsNonPicture]
    ) -> Iterator[tuple[str, Presence]]:
        """Look at files; `is_non_picture` gives what `presence` takes, by path.

        At a URL several at once: a look takes 0.1 s.
        """

        def look(path: str) -> Presence:
            return self.presence(path, is_non_picture(path))

        if not self._root.is_url:
            yield from ((path, look(path)) for path in paths)
            return
        with ThreadPoolExecutor(_LOOKS_AT_ONCE, thread_name_prefix="presence") as pool:
            yield from zip(paths, pool.map(look, paths), strict=True)

    def presence(self, path: str, is_non_picture: IsNonPicture = lambda _state: False) -> Presence:
        """Look at a file; one that is no picture in its state is gone."""
        with self._disk.calling():
            return self._presence(path, is_non_picture)

    def _presence(self, path: str, is_non_picture: Callable[[FileState], bool]) -> Presence:
        if why_left_out(self._prunes, path):
            return Presence.GONE
        if self._root.is_url:
            return self._presence_at_url(path, is_non_picture)
        if any(is_below(path, each) for each in self._unmounted):
            return self._look(path, is_non_picture, absent=Presence.UNKNOWN)
        if broken_link(self._root, path.rpartition("/")[0]) is not None:
            return Presence.UNKNOWN
        if not is_looked_at(self._root, self._prunes, path):
            return Presence.GONE
        return self._look(path, is_non_picture, absent=Presence.GONE)

    def _look(self, path: str, is_non_picture: IsNonPicture, absent: Presence) -> Presence:
        absolute = self._root.absolute(path)
        try:
            status = os.stat(absolute)
        except OSError as error:
            # The target of a link may be on a disk that is not mounted.
            if error.errno not in ABSENT or is_link(absolute):
                return Presence.UNKNOWN
            return absent
        if not stat.S_ISREG(status.st_mode) or is_non_picture(FileState.of(status)):
            # In the folder under a mount point that is not mounted, it says nothing of the other.
            return absent
        try:
            return Presence.PRESENT if self._is_listed(path) else absent
        except OSError:
            return Presence.UNKNOWN

    def _presence_at_url(self, path: str, is_non_picture: IsNonPicture) -> Presence:
        # That the whole bucket is there is checked before anything is deleted.
        try:
            state = FileState.of(status_at(self._root.absolute(path)))
        except FileNotFoundError:
            return Presence.GONE
        except OSError:
            return Presence.UNKNOWN
        return Presence.GONE if is_non_picture(state) else Presence.PRESENT

    def has_other_case(self, path: str) -> bool:
        """Return True if a look at a path finds a file of another name."""
        if self._root.is_url:
            return False
        try:
            with self._disk.calling():
                os.stat(self._root.absolute(path))
                return not self._is_listed(path)
        except OSError:
            return False

    def _is_listed(self, path: str) -> bool:
        """Check each component of a path: a file system may ignore case.

        A look at the old name then succeeds after a rename of case only.
        """
        folder, _, name = path.rpartition("/")
        if (names := self._listings.get(folder)) is None:
            if folder and not self._is_listed(folder):
                return False
            names = self._listings[folder] = frozenset(os.listdir(self._root.absolute(folder)))
        return name in names
