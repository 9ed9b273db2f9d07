"""Remember where other file systems are mounted below a root.

A folder on another device than its parent is a mount point.  If it is on the parent's device later,
or missing, the file system was unmounted: its files are unknown, not gone.  A followed link to a
folder on a file system that the root is not on is remembered with that one's mount point; so is a
mount point that is reached through a link.  Where the link is surely gone, nothing is unknown.

    document mounts:NAME, body
        folders     paths of the known mount points, relative to the root
        points      absolute mount points, by folder, where they lie elsewhere

In Elasticsearch, so that a `sync` after the unmount knows of it.  A root without mounts has no
document.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from typing import Any

from es_imgsearch.elastic.state import Document, State, mounts_id
from es_imgsearch.errors import IndexMissing
from es_imgsearch.records import Root, disk_path, stored_path
from es_imgsearch.watch.places import folders_of, is_inside, is_link, real_path


class KnownMounts:
    """The known mount points of roots, by relative path as on the disk.

    The values are absolute where a link leads to the mount point, else empty.
    `load` reads them, then `of` answers without a request.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._folders: dict[str, Mapping[str, str]] = {}

    def of(self, root: Root) -> Mapping[str, str]:
        """Return the mount points as last loaded or added."""
        return self._folders.get(root.name, {})

    def load(self, root: Root) -> Mapping[str, str]:
        """Read the mount points; another process may have forgotten some."""
        try:
            read = self._state.read(mounts_id(root.name))
        except IndexMissing:
            # An index of schema 1, which only readers use as it is, remembers none.
            read = None
        body: Mapping[str, Any] = {"folders": ()} if read is None else read.document["body"]
        points = body.get("points", {})
        found = {disk_path(each): disk_path(points.get(each, "")) for each in body["folders"]}
        self._folders[root.name] = found
        return found

    def add(self, root: Root, folder: str) -> None:
        """Add a mount point, unless it is known."""
        is_followed = root.follows_links and any(
            is_link(root.absolute(each)) for each in folders_of(folder)
        )
        point = own_mount(root, folder) if is_followed else ""
        if self.of(root).get(folder) != point:
            self._folders[root.name] = {**self.of(root), folder: point}
            self._change(root, lambda found: {**found, stored_path(folder): stored_path(point)})

    def forget(self, root: Root) -> None:
        """Forget all mount points; a walk finds those that are mounted."""
        self._folders.pop(root.name, None)
        self._change(root, lambda _found: {})

    def keep(self, root: Root, kept: Mapping[str, str]) -> None:
        """Forget the mount points but these."""
        if gone := {stored_path(each) for each in self.of(root).keys() - kept.keys()}:
            self._folders[root.name] = kept
            self._change(
                root, lambda found: {each: at for each, at in found.items() if each not in gone}
            )

    def _change(self, root: Root, change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
        def changed(document: Document | None) -> Document | None:
            body: Mapping[str, Any] = {"folders": []} if document is None else document["body"]
            points = body.get("points", {})
            before = {each: points.get(each, "") for each in body["folders"]}
            after = change(before)
            if after == before:
                return None
            body = {"folders": sorted(after)}
            if elsewhere := {each: point for each, point in after.items() if point}:
                body = {**body, "points": elsewhere}
            return {"kind": "mounts", "root": root.name, "body": body}

        self._state.update(mounts_id(root.name), changed)


def is_mounted(path: str) -> bool:
    """Return True if a folder is on another device than its parent.

    False if that cannot be found out.
    """
    try:
        status = os.lstat(path)
        return (
            stat.S_ISDIR(status.st_mode) and status.st_dev != os.stat(os.path.dirname(path)).st_dev
        )
    except OSError:
        return False


def without_unlinked(root: Root, mounts: Mapping[str, str]) -> Mapping[str, str]:
    """Return the mount points but those that were reached by a link that is gone."""
    return {each: at for each, at in mounts.items() if not (at and _is_unlinked(root, each, at))}


def _is_unlinked(root: Root, folder: str, point: str) -> bool:
    """Return True if surely no link leads from a folder to its mount point any more."""
    is_linked = False
    for each in folders_of(folder):
        path = root.absolute(each)
        try:
            is_linked |= stat.S_ISLNK(os.lstat(path).st_mode)
        except FileNotFoundError:
            # A mount point that was removed is no link; below the target of a link that is away
            # nothing is certain.
            is_at_point = is_inside(os.path.realpath(root.absolute(folder)), point)
            return not is_at_point and _can_be_listed(os.path.dirname(path))
        except OSError as error:
            return error.errno == errno.ENOTDIR
    return not is_linked


def _can_be_listed(folder: str) -> bool:
    try:
        with os.scandir(folder):
            return True
    except OSError:
        return False


def own_mount(root: Root, folder: str) -> str:
    """Return the mount point that a link leads to, "" if the root is below it."""
    path = os.path.realpath(root.absolute(folder))
    try:
        while path != "/" and not is_mounted(path):
            path = os.path.dirname(path)
    except OSError:
        return ""
    return "" if is_inside(real_path(root), path) else path
