"""Map watch descriptors to the paths of watched folders.

A tree, not two dictionaries of paths: renaming or forgetting a folder costs what lies below
it, not a look at every path.  Measured: 225 bytes a folder here; what the kernel keeps for
a watch comes on top.

A folder that moved keeps its descriptor.  `forget` puts descriptors aside, `arm` and
`appear` take back those that turn up again, `release` gives up the rest.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from es_imgsearch.watch.places import linked_folder, real_path

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from es_imgsearch.records import Root
    from es_imgsearch.watch.excludes import Excludes
    from es_imgsearch.watch.inotify import InotifyReader
    from es_imgsearch.watch.root_disk import RootDisk


# Each watch given up answers with one IN_IGNORED. A whole tree at once would fill the
# kernel's queue (16,384 events) by itself; so the answers pace it.
_RELEASES_IN_FLIGHT: Final = 1000

_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


class Folder:
    """A folder of the tree; `wd` is -1 while it has no watch.

    `real` is the path that a followed link leads to, "" for any other folder.
    """

    __slots__ = ("_children", "name", "parent", "real", "wd")

    def __init__(self, parent: Folder | None, name: str, real: str = "") -> None:
        self.parent = parent
        self.name = name
        self.real = real
        self.wd = -1
        self._children: dict[str, Folder] | None = None  # most folders hold no other

    def child(self, name: str) -> Folder | None:
        return None if self._children is None else self._children.get(name)

    def top_root(self) -> Root:
        """Return the root that the folder belongs to."""
        folder = self
        while folder.parent is not None:
            folder = folder.parent
        assert isinstance(folder, Top)  # noqa: S101 - only a Top has no parent
        return folder.root

    def path(self, name: str = "") -> str:
        """Return the path relative to the root, of the folder or its entry `name`."""
        parts = [name] if name else []
        folder = self
        while folder.parent is not None:
            parts.append(folder.name)
            folder = folder.parent
        return "/".join(reversed(parts))

    def tops(self) -> tuple[str, ...]:
        """Return the real paths of the root and the followed links, see `linked_folder`."""
        found, folder = [], self
        while folder.parent is not None:
            if folder.real:
                found.append(folder.real)
            folder = folder.parent
        return (real_path(folder.top_root()), *found)

    def link(self) -> None:
        """Enter the folder in its parent."""
        if self.parent is not None:
            if self.parent._children is None:
                self.parent._children = {}
            self.parent._children[self.name] = self

    def unlink(self) -> None:
        """Remove the folder from its parent, unless another took its name."""
        if self.parent is not None and self.parent.child(self.name) is self:
            assert self.parent._children is not None  # noqa: S101 - it has this child
            del self.parent._children[self.name]
            if not self.parent._children:
                self.parent._children = None

    def subtree(self) -> Iterator[Folder]:
        """This folder and everything below it."""
        waiting = [self]
        while waiting:
            folder = waiting.pop()
            if folder._children is not None:
                waiting.extend(folder._children.values())
            yield folder


class Top(Folder):
    """The folder of a root itself."""

    __slots__ = ("root",)

    def __init__(self, root: Root) -> None:
        super().__init__(None, "")
        self.root = root


class WatchTable:
    """The watched folders as a tree; `len()` is their number.

    Not thread-safe: its owner holds a lock. `on_top_lost` is called for a
    root found as a folder of another one.
    """

    def __init__(
        self,
        reader: InotifyReader,
        excludes: Excludes,
        stopping: threading.Event,
        on_top_lost: Callable[[Root], None],
        disk: RootDisk,
    ) -> None:
        self.tops: dict[Root, Top] = {}
        self._reader = reader
        self._excludes = excludes
        self._stopping = stopping
        self._on_top_lost = on_top_lost
        self._disk = disk
        self._by_wd: dict[int, Folder] = {}
        self._refused: dict[Folder, int] = {}  # and the errno
        self._new_refusals: list[tuple[Folder, int]] = []
        self._aside: set[int] = set()
        self._releasing: set[int] = set()

    def __len__(self) -> int:
        return len(self._by_wd)

    def folder(self, wd: int) -> Folder | None:
        return self._by_wd.get(wd)

    def is_refused(self, folder: Folder) -> bool:
        return folder in self._refused

    def refused_below(self, root: Root) -> frozenset[str]:
        """The relative paths of the root's folders that got no watch."""
        return frozenset(folder.path() for folder in self._refused if folder.top_root() == root)

    def take_refusals(self) -> list[tuple[Folder, int]]:
        """Folders refused since the last call, with the errno."""
        taken, self._new_refusals = self._new_refusals, []
        return taken

    def arm(self, root: Root) -> bool:
        """Watch the root and all below it, afresh; whether the root itself is watched."""
        if root in self.tops:
            self.forget(self.tops[root])
        top = Top(root)
        self.tops[root] = top
        self._watch(top)
        if top.wd < 0:
            self.forget(top)
        return self.tops.get(root) is top

    def appear(self, parent: Folder, name: str) -> bool:
        """Watch the folder `name` of `parent` and all below it; False if it was known."""
        known = parent.child(name)
        if known is not None:
            # By the inode, not by the name: a rename may replace an empty folder, which
            # says nothing of its deletion to the parent.
            if not self.is_refused(known) and self._is_still(known):
                return False
            self.forget(known)
        folder = Folder(parent, name)
        folder.link()
        absolute = self._absolute(folder)
        if folder.top_root().follows_links and os.path.islink(absolute):
            try:
                folder.real = linked_folder(absolute, parent.tops(), parent.top_root()) or ""
            except OSError:
                folder.real = absolute  # to nothing: it is polled
            if not folder.real:
                folder.unlink()
                return True
        self._watch(folder)
        return True

    def forget(self, folder: Folder) -> None:
        """Take a folder and all below it out of the tree, its watches aside."""
        folder.unlink()
        if isinstance(folder, Top) and self.tops.get(folder.root) is folder:
            del self.tops[folder.root]
        for below in folder.subtree():
            self._refused.pop(below, None)
            if self._by_wd.get(below.wd) is below:
                del self._by_wd[below.wd]
                self._aside.add(below.wd)

    def release(self) -> None:
        """Give up watches put aside; the rest follows with each `released`."""
        while self._aside and len(self._releasing) < _RELEASES_IN_FLIGHT:
            wd = self._aside.pop()
            if self._reader.remove(wd):
                self._releasing.add(wd)

    def released(self, wd: int) -> None:
        """The kernel has ended this watch."""
        self._releasing.discard(wd)
        self._aside.discard(wd)

    # -- one folder -------------------------------------------------------------------------

    def _is_still(self, known: Folder) -> bool:
        try:
            return self._reader.add(self._absolute(known), follow=bool(known.real)) == known.wd
        except OSError:
            return False

    def _absolute(self, folder: Folder) -> str:
        return folder.top_root().absolute(folder.path())

    def _watch(self, top: Folder) -> None:
        waiting = [(top, self._absolute(top), top.path())]
        while waiting and not self._stopping.is_set():
            folder, path, relative_path = waiting.pop()
            try:
                with self._disk.calling():
                    is_link = folder.parent is None or bool(folder.real)
                    wd = self._reader.add(path, follow=is_link)
                    if not self._take(folder, wd, path):
                        continue
                    found = self._folders_in(folder, path, relative_path)
            except OSError as error:
                self._fail(folder, error.errno or errno.EIO)
                continue
            for name, real in found:
                below = Folder(folder, name, real)
                below.link()
                waiting.append(
                    (
                        below,
                        f"{path}/{name}",
                        f"{relative_path}/{name}" if relative_path else name,
                    )
                )

    def _folders_in(self, folder: Folder, path: str, relative_path: str) -> list[tuple[str, str]]:
        """Return the folders to watch, with the paths that followed links lead to."""
        prunes, follows = self._excludes.prunes, folder.top_root().follows_links
        found = []
        with os.scandir(path) as entries:
            for entry in entries:
                real: str | None = "" if entry.is_dir(follow_symlinks=False) else None
                if follows and entry.is_symlink():
                    try:
                        real = linked_folder(entry.path, folder.tops(), folder.top_root())
                    except OSError:
                        real = entry.path  # to nothing: it is polled
                if real is not None and not prunes(entry.name, relative_path, True):
                    found.append((entry.name, real))
        return found

    def _take(self, folder: Folder, wd: int, path: str) -> bool:
        """Assign the descriptor to `folder`; False if another path owns it."""
        other = self._by_wd.get(wd)
        if other is not None and other is not folder:
            other_path = self._absolute(other)
            if other_path != path and _same_folder(other_path, path):
                self._refuse(folder, errno.EEXIST)  # a bind mount: one inode, two places
                return False
            if other.parent is None:
                self._on_top_lost(other.top_root())
            self.forget(other)  # it moved here, and the event of the move is still to come
        self._aside.discard(wd)
        folder.wd = wd
        self._by_wd[wd] = folder
        return True

    def _fail(self, folder: Folder, number: int) -> None:
        if number == errno.ENOENT and folder.real and os.path.islink(self._absolute(folder)):
            # No event shows that the target of a link is back.
            self._refused[folder] = number
        elif number in _GONE:
            self.forget(folder)  # deleted meanwhile; if it returns, its parent has an event
        else:
            self._refuse(folder, number)

    def _refuse(self, folder: Folder, number: int) -> None:
        self._refused[folder] = number
        self._new_refusals.append((folder, number))


def _same_folder(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:
        return False
