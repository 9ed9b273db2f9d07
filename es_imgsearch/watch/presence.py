"""Tell whether files of a root are present, gone or unknown."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection
from enum import Enum, auto

from es_imgsearch.records import FileState, Root
from es_imgsearch.watch.mounts import is_mounted
from es_imgsearch.watch.reconcile import ABSENT, Prunes, is_below, is_link, is_looked_at

IsNonPicture = Callable[[FileState], bool]


class Presence(Enum):
    """What is known of a file.

    GONE: a walk would not yield it.  UNKNOWN: that cannot be found out, so its document stays.
    """

    PRESENT = auto()
    GONE = auto()
    UNKNOWN = auto()


class RootFiles:
    """The files of a root at one time; for one batch of paths, since it keeps what it saw."""

    def __init__(self, root: Root, prunes: Prunes, mounts: Collection[str]) -> None:
        """`mounts` are the known mount points of the root."""
        self._root = root
        self._prunes = prunes
        self._unmounted = [each for each in mounts if not is_mounted(root, each)]

    def presence(self, path: str, is_non_picture: IsNonPicture = lambda _state: False) -> Presence:
        """Look at a file; one that is no picture in its state is gone."""
        if self._is_excluded(path):
            return Presence.GONE
        if any(is_below(path, each) for each in self._unmounted):
            return self._look(path, is_non_picture, absent=Presence.UNKNOWN)
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
            return Presence.GONE
        return Presence.PRESENT

    def _is_excluded(self, path: str) -> bool:
        *folders, name = path.split("/")
        above = ""
        for each in folders:
            if self._prunes(each, above, True):
                return True
            above = f"{above}/{each}" if above else each
        return self._prunes(name, above, False)
