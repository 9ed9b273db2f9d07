"""A file system in memory: inodes, devices, permissions, links, and events for watchers.

Its methods are what users do; `file_calls` has what the product calls.
"""

from __future__ import annotations

import errno
import posixpath
import stat
from collections.abc import Callable, Iterator

from es_imgsearch.watch import inotify
from tests.simulation.machine.inodes import Device, EventSink, Inode, Status, failed
from tests.simulation.machine.scheduler import Scheduler

_MOST_LINKS = 8


class FileSystem:
    """Folders and files of all hosts, whose paths differ.

    With `ignores_case` names that differ in case only are the same.  `is_silent` drops the events
    of changes, as of another machine on a network share.  `on_change` is called after each change.
    """

    def __init__(self, scheduler: Scheduler, *, ignores_case: bool = False) -> None:
        self._scheduler = scheduler
        self._ignores_case = ignores_case
        self._numbers = 1
        self._devices = 1
        self.is_silent = False
        self.sinks: list[EventSink] = []
        self.on_change: Callable[[], None] = lambda: None
        self.main = Device(1)
        self.top = self._new(self.main, stat.S_IFDIR | 0o755)
        self.mounts: dict[int, Inode] = {}
        # Of each folder whose file system was dropped, what it showed before.
        self.dropped: dict[int, Inode] = {}

    # -- looking things up (no switch points) ---------------------------------------------------

    def find(self, path: str, *, follow: bool = True) -> Inode:
        """Return the inode of a path.  Raises OSError as `os.stat` does."""
        return self._find(path, follow, 0)

    def _find(self, path: str, follow: bool, links: int) -> Inode:
        if links > _MOST_LINKS:
            raise failed(errno.ELOOP, path)
        inode = self.top
        parts = [part for part in path.split("/") if part]
        for position, part in enumerate(parts):
            if not inode.is_folder:
                raise failed(errno.ENOTDIR, path)
            if inode.device.error:
                raise failed(inode.device.error, path)
            if not inode.is_readable:
                raise failed(errno.EACCES, path)
            child = inode.entries.get(self.entry(inode, part) or "")
            if child is None:
                raise failed(errno.ENOENT, path)
            child = self.mounted(child)
            is_last = position == len(parts) - 1
            if stat.S_ISLNK(child.mode) and (follow or not is_last):
                folder = "/" + "/".join(parts[:position])
                target = posixpath.normpath(posixpath.join(folder, child.target))
                child = self._find(target, True, links + 1)
            inode = child
        if inode.device.error:
            raise failed(inode.device.error, path)
        return inode

    def entry(self, folder: Inode, name: str) -> str | None:
        """Return the name under which a folder has an entry, None without one."""
        if name in folder.entries:
            return name
        if self._ignores_case:
            for each in folder.entries:
                if each.casefold() == name.casefold():
                    return each
        return None

    def mounted(self, inode: Inode) -> Inode:
        while inode.number in self.mounts:
            inode = self.mounts[inode.number]
        return inode

    def status(self, inode: Inode) -> Status:
        size = len(inode.target or inode.content)
        return Status(
            inode.mode, inode.number, inode.device.number, size, inode.mtime_ns, inode.ctime_ns
        )

    def files(self, path: str) -> Iterator[tuple[str, Inode]]:
        """Yield every path below a folder that is no folder, as a walk that may do all would."""
        folder = self.mounted(self._plain(path))
        for name, child in sorted(folder.entries.items()):
            below = f"{path}/{name}"
            if self.mounted(child).is_folder:
                yield from self.files(below)
            else:
                yield below, child

    def folders(self, path: str) -> Iterator[str]:
        """Yield a folder and every folder below it."""
        yield path
        for name, child in sorted(self.mounted(self._plain(path)).entries.items()):
            if self.mounted(child).is_folder:
                yield from self.folders(f"{path}/{name}")

    def truth(self, path: str) -> tuple[Inode | None, bool]:
        """Return a path's inode whatever can be seen, and whether all of the way can be seen.

        The name must be exact.  Dropped file systems count as if they were mounted, and links are
        followed; a link without a target has no inode and cannot be seen.
        """
        return self._truth(path, 0)

    def _truth(self, path: str, links: int) -> tuple[Inode | None, bool]:
        inode, is_seen = self.top, True
        parts = [part for part in path.split("/") if part]
        for position, part in enumerate(parts):
            is_seen = is_seen and inode.is_readable and not inode.device.error
            child = inode.entries.get(part)
            if child is None:
                return None, is_seen
            if child.number in self.dropped:
                inode, is_seen = self.dropped[child.number], False
                continue
            inode = self.mounted(child)
            if stat.S_ISLNK(inode.mode):
                if position < len(parts) - 1 or links > _MOST_LINKS:
                    return None, is_seen
                target = posixpath.join("/" + "/".join(parts[:position]), inode.target)
                aim, aim_seen = self._truth(posixpath.normpath(target), links + 1)
                return aim, is_seen and aim_seen and aim is not None
        return inode, is_seen and inode.is_readable and not inode.device.error

    def _plain(self, path: str) -> Inode:
        """Return the inode of a path whatever the permissions are."""
        inode = self.top
        for part in [part for part in path.split("/") if part]:
            child = inode.entries.get(self.entry(inode, part) or "")
            if child is None:
                raise failed(errno.ENOENT, path)
            inode = self.mounted(child)
        return inode

    # -- what users do --------------------------------------------------------------------------

    def make_folders(self, path: str) -> None:
        """Make a folder and those above it that are missing."""
        above, name = posixpath.split(path)
        if above != "/":
            try:
                self._plain(above)
            except OSError:
                self.make_folders(above)
        parent = self._plain(above)
        if self.entry(parent, name) is None:
            folder = self._new(parent.device, stat.S_IFDIR | 0o755)
            parent.entries[name] = folder
            self._event(parent, inotify.IN_CREATE | inotify.IN_ISDIR, name)
        self.on_change()

    def write(self, path: str, parts: list[bytes], pause: Callable[[], None]) -> None:
        """Write a file in place, part by part, with `pause` between the steps."""
        parent, name = self._parent(path)
        inode = parent.entries.get(name)
        if inode is None:
            inode = parent.entries[name] = self._new(parent.device, stat.S_IFREG | 0o644)
            self._event(parent, inotify.IN_CREATE, name)
        elif inode.content:
            inode.content = b""
            self._touch(inode)
            self._event(parent, inotify.IN_MODIFY, name)
        self.on_change()
        for part in parts:
            pause()
            inode.content += part
            self._touch(inode)
            self._event(parent, inotify.IN_MODIFY, name)
            self.on_change()
        pause()
        self._event(parent, inotify.IN_CLOSE_WRITE, name)

    def put(self, path: str, content: bytes, *, mtime_ns: int | None = None) -> None:
        """Replace a file by a new inode, as by a rename of a temporary file."""
        parent, name = self._parent(path)
        inode = self._new(parent.device, stat.S_IFREG | 0o644)
        inode.content = content
        if mtime_ns is not None:
            inode.mtime_ns = mtime_ns
        parent.entries[name] = inode
        self._event(parent, inotify.IN_MOVED_TO, name)
        self.on_change()

    def open_mapped(self, path: str, content: bytes) -> None:
        """Make a file whose writer keeps it open."""
        parent, name = self._parent(path)
        inode = parent.entries[name] = self._new(parent.device, stat.S_IFREG | 0o644)
        inode.content = content
        self._event(parent, inotify.IN_CREATE, name)
        self._event(parent, inotify.IN_MODIFY, name)
        self.on_change()

    def poke(self, path: str, content: bytes) -> bool:
        """Change a file's content through a memory map: no time changes, one event.

        Returns False if nobody gets it.
        """
        parent, name = self._parent(path)
        parent.entries[name].content = content
        self.on_change()
        return self._event(parent, inotify.IN_CLOSE_WRITE, name)

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all it holds."""
        parent, name = self._parent(path)
        inode = parent.entries[name]
        if inode.is_folder:
            for below in sorted(inode.entries):
                self.remove(f"{path}/{below}")
        del parent.entries[name]
        if inode.is_folder:
            self._event(inode, inotify.IN_DELETE_SELF, "")
            self._event(inode, inotify.IN_IGNORED, "")
        self._event(parent, inotify.IN_DELETE | _folder_mask(inode), name)
        self.on_change()

    def rename(self, old: str, new: str) -> None:
        """Rename a file or folder, to another device as well; replaces what has the new name."""
        old_parent, old_name = self._parent(old)
        new_parent, new_name = self._parent(new, exact=True)
        inode = old_parent.entries.pop(old_name)
        if replaced := self.entry(new_parent, new_name):
            del new_parent.entries[replaced]
        new_parent.entries[new_name] = inode
        _put_on(inode, new_parent.device)
        inode.ctime_ns = self._scheduler.tick()
        mask = _folder_mask(inode)
        self._event(old_parent, inotify.IN_MOVED_FROM | mask, old_name)
        self._event(new_parent, inotify.IN_MOVED_TO | mask, new_name)
        if inode.is_folder:
            self._event(inode, inotify.IN_MOVE_SELF, "")
        self.on_change()

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        parent, name = self._parent(path)
        inode = self._new(parent.device, stat.S_IFLNK | 0o777)
        inode.target = target
        parent.entries[name] = inode
        self._event(parent, inotify.IN_CREATE, name)
        self.on_change()

    def permit(self, path: str, is_readable: bool) -> None:
        """Permit or forbid reading a file, or listing and entering a folder."""
        parent, name = self._parent(path)
        inode = parent.entries[name]
        inode.is_readable = is_readable
        inode.ctime_ns = self._scheduler.tick()
        self._event(parent, inotify.IN_ATTRIB | _folder_mask(inode), name)
        self.on_change()

    def touch(self, path: str) -> None:
        """Change the modification time only."""
        parent, name = self._parent(path)
        self._touch(parent.entries[name])
        self._event(parent, inotify.IN_ATTRIB, name)
        self.on_change()

    def change_owner(self, path: str) -> None:
        """Change a file's ctime only."""
        parent, name = self._parent(path)
        parent.entries[name].ctime_ns = self._scheduler.tick()
        self._event(parent, inotify.IN_ATTRIB, name)
        self.on_change()

    def new_device(self) -> Inode:
        """Make a file system to mount; returns its top folder."""
        self._devices += 1
        return self._new(Device(self._devices), stat.S_IFDIR | 0o755)

    def mount(self, path: str, top: Inode) -> None:
        """Mount a file system on a folder, or mount a dropped one again."""
        folder = self._covered(path)
        self.mounts[folder.number] = top
        if self.dropped.get(folder.number) is top:
            del self.dropped[folder.number]
        self.on_change()

    def drop(self, path: str) -> Inode:
        """Unmount a file system that is to come back, and return it; its watches end."""
        folder = self._covered(path)
        top = self.dropped[folder.number] = self.mounts.pop(folder.number)
        waiting = [top]
        while waiting:
            each = waiting.pop()
            waiting.extend(below for below in each.entries.values() if below.is_folder)
            self._event(each, inotify.IN_UNMOUNT, "")
            self._event(each, inotify.IN_IGNORED, "")
        self.on_change()
        return top

    def _covered(self, path: str) -> Inode:
        """Return the folder itself, not what is mounted on it."""
        parent, name = self._parent(path)
        return parent.entries[name]

    def fail(self, path: str, number: int) -> None:
        """Have every call on the file system of a folder fail with an errno, 0 for none."""
        self._plain(path).device.error = number
        self.on_change()

    def _parent(self, path: str, *, exact: bool = False) -> tuple[Inode, str]:
        above, name = posixpath.split(path)
        parent = self._plain(above)
        return parent, name if exact else self.entry(parent, name) or name

    def _new(self, device: Device, mode: int) -> Inode:
        self._numbers += 1
        now = self._scheduler.tick()
        return Inode(self._numbers, device, mode, mtime_ns=now, ctime_ns=now)

    def _touch(self, inode: Inode) -> None:
        inode.mtime_ns = inode.ctime_ns = self._scheduler.tick()

    def _event(self, inode: Inode, mask: int, name: str) -> bool:
        sinks = () if self.is_silent else self.sinks
        taken = [each.emit(inode, mask, name) for each in sinks]
        return any(taken)


def _folder_mask(inode: Inode) -> int:
    return inotify.IN_ISDIR if inode.is_folder else 0


def _put_on(inode: Inode, device: Device) -> None:
    """Move a file, or a folder with all in it, to a device."""
    inode.device = device
    for each in inode.entries.values():
        _put_on(each, device)
