"""Remember where other file systems are mounted below a root.

A folder on another device than its parent is a mount point.  If it is on the parent's device later,
or missing, the file system was unmounted: its files are unknown, not gone.

    document mounts:NAME, body
        folders     paths of the known mount points, relative to the root

In Elasticsearch, so that a `sync` after the unmount knows of it.  A root without mounts has no
document.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable

from es_imgsearch.elastic.state import Document, State, mounts_id
from es_imgsearch.errors import IndexMissing
from es_imgsearch.records import Root, disk_path, stored_path


class KnownMounts:
    """The known mount points of roots; relative paths as on the disk.

    `load` reads them, then `of` answers without a request.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._folders: dict[str, frozenset[str]] = {}

    def of(self, root: Root) -> frozenset[str]:
        """Return the mount points as last loaded or added."""
        return self._folders.get(root.name, frozenset())

    def load(self, root: Root) -> frozenset[str]:
        """Read the mount points; another process may have forgotten some."""
        try:
            read = self._state.read(mounts_id(root.name))
        except IndexMissing:
            # An index of schema 1, which only readers use as it is, remembers none.
            read = None
        paths = () if read is None else read.document["body"]["folders"]
        self._folders[root.name] = frozenset(map(disk_path, paths))
        return self._folders[root.name]

    def add(self, root: Root, folder: str) -> None:
        """Add a mount point, unless it is known."""
        if folder not in self.of(root):
            self._folders[root.name] = self.of(root) | {folder}
            self._change(root, lambda paths: {*paths, stored_path(folder)})

    def forget(self, root: Root) -> None:
        """Forget all mount points; a walk finds those that are mounted."""
        self._folders.pop(root.name, None)
        self._change(root, lambda _paths: ())

    def _change(self, root: Root, change: Callable[[Collection[str]], Iterable[str]]) -> None:
        def changed(document: Document | None) -> Document | None:
            before = () if document is None else document["body"]["folders"]
            after = sorted(change(before))
            if after == list(before):
                return None
            return {"kind": "mounts", "root": root.name, "body": {"folders": after}}

        self._state.update(mounts_id(root.name), changed)


def is_mounted(root: Root, folder: str) -> bool:
    """Return True if the folder of a root is on another device than its parent.

    False if that cannot be found out.
    """
    path = root.absolute(folder)
    try:
        status = os.lstat(path)
        return (
            stat.S_ISDIR(status.st_mode) and status.st_dev != os.stat(os.path.dirname(path)).st_dev
        )
    except OSError:
        return False
