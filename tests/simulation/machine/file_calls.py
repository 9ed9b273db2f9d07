"""Stand-ins for `os` and for the inotify reader, on the simulated file system."""

from __future__ import annotations

import errno
import io
import os
import posixpath
import stat
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, Self

from es_imgsearch.watch import inotify
from tests.simulation.machine.file_system import FileSystem
from tests.simulation.machine.inodes import Inode, Status, failed
from tests.simulation.machine.scheduler import Places, Scheduler, SimulatedProcess

# Bytes of one read: a file of several parts can change between them.
_READ_BYTES = 16

# What needs no file system.
_PURE = (
    "fspath", "fsencode", "fsdecode", "strerror", "sep", "pathsep", "PathLike", "stat_result",
    "R_OK", "W_OK", "X_OK", "F_OK", "O_RDONLY", "O_NONBLOCK", "O_CLOEXEC", "O_NOFOLLOW",
    "O_NOATIME", "environ",
)  # fmt: skip
_PURE_PATH = (
    "join", "split", "splitext", "basename", "dirname", "abspath", "expanduser", "normpath",
    "relpath", "commonpath", "isabs", "sep",
)  # fmt: skip

# An inotify instance keeps this many events and drops the others.
QUEUED_EVENTS = 64


class SimulatedEntry:
    """What `os.scandir` yields."""

    def __init__(self, calls: FileCalls, folder: str, name: str, inode: Inode) -> None:
        self._calls = calls
        self.name = name
        self.path = posixpath.join(folder, name)
        self._inode = inode

    def inode(self) -> int:
        return self._inode.number

    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self._inode.mode)

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._is(stat.S_ISDIR, follow_symlinks)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._is(stat.S_ISREG, follow_symlinks)

    def _is(self, check: Callable[[int], bool], follow: bool) -> bool:
        if not (follow and self.is_symlink()):
            return check(self._inode.mode)
        try:
            return check(self._calls.stat(self.path).st_mode)
        except OSError:
            return False

    def stat(self, *, follow_symlinks: bool = True) -> Status:
        return self._calls.stat(self.path, follow_symlinks=follow_symlinks)


class SimulatedListing:
    """The entries of a folder; a context manager and an iterator."""

    def __init__(self, entries: list[SimulatedEntry]) -> None:
        self._entries = iter(entries)

    def __iter__(self) -> Iterator[SimulatedEntry]:
        return self._entries

    def __next__(self) -> SimulatedEntry:
        return next(self._entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is open."""


class SimulatedFile(io.RawIOBase):
    """An open file; a read returns what the inode holds at that moment."""

    def __init__(self, calls: FileCalls, descriptor: int, inode: Inode) -> None:
        super().__init__()
        self._calls, self._descriptor, self._inode = calls, descriptor, inode
        self._position = 0

    def fileno(self) -> int:
        return self._descriptor

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        start = (0, self._position, len(self._inode.content))[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        self._calls.scheduler.switch()
        end = self._position + min(_READ_BYTES, len(buffer))
        part = self._inode.content[self._position : end]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)


class FileCalls:
    """What the product calls of `os`; each call is a switch point."""

    def __init__(self, scheduler: Scheduler, files: FileSystem) -> None:
        self.scheduler = scheduler
        self.files = files
        self._open: dict[int, Inode] = {}
        self._descriptors = 100
        for name in _PURE:
            if hasattr(os, name):
                setattr(self, name, getattr(os, name))
        self.path = SimpleNamespace(
            **{name: getattr(posixpath, name) for name in _PURE_PATH},
            exists=lambda path: self._has(path, lambda _mode: True),
            lexists=lambda path: self._has(path, lambda _mode: True, follow=False),
            isdir=lambda path: self._has(path, stat.S_ISDIR),
            isfile=lambda path: self._has(path, stat.S_ISREG),
            islink=lambda path: self._has(path, stat.S_ISLNK, follow=False),
            realpath=posixpath.normpath,
        )

    def _reached(self, path: Any, *, follow: bool = True) -> Inode:
        self.scheduler.switch()
        self.scheduler.tick()
        return self.files.find(os.fspath(path), follow=follow)

    def _has(self, path: Any, check: Callable[[int], bool], *, follow: bool = True) -> bool:
        try:
            return check(self._reached(path, follow=follow).mode)
        except OSError:
            return False

    def stat(self, path: Any, *, follow_symlinks: bool = True) -> Status:
        if isinstance(path, int):
            return self.fstat(path)
        return self.files.status(self._reached(path, follow=follow_symlinks))

    def lstat(self, path: Any) -> Status:
        return self.stat(path, follow_symlinks=False)

    def access(self, path: Any, mode: int) -> bool:
        _ = mode
        try:
            return self._reached(path).is_readable
        except OSError:
            return False

    def scandir(self, path: Any = ".") -> SimulatedListing:
        inode = self._listed(path)
        entries = [
            SimulatedEntry(self, os.fspath(path), name, self.files.mounted(each))
            for name, each in inode.entries.items()
        ]
        self.scheduler.random.shuffle(entries)
        return SimulatedListing(entries)

    def listdir(self, path: Any = ".") -> list[str]:
        return list(self._listed(path).entries)

    def _listed(self, path: Any) -> Inode:
        inode = self._reached(path)
        if not inode.is_folder:
            raise failed(errno.ENOTDIR, os.fspath(path))
        if not inode.is_readable:
            raise failed(errno.EACCES, os.fspath(path))
        return inode

    def open(self, path: Any, flags: int = 0, mode: int = 0o777) -> int:
        _ = flags, mode
        inode = self._reached(path)
        if not inode.is_readable:
            raise failed(errno.EACCES, os.fspath(path))
        self._descriptors += 1
        self._open[self._descriptors] = inode
        return self._descriptors

    def fstat(self, descriptor: int) -> Status:
        self.scheduler.switch()
        inode = self._open[descriptor]
        if inode.device.error:
            raise failed(inode.device.error, "")
        return self.files.status(inode)

    def fdopen(self, descriptor: int, _mode: str = "rb", *_: Any, **__: Any) -> SimulatedFile:
        return SimulatedFile(self, descriptor, self._open[descriptor])

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)

    def getpid(self) -> int:
        task = self.scheduler.current
        return 1 if task is None else task.process.number


class SimulatedReader:
    """An inotify instance with the thread that reads it, as `InotifyReader`."""

    def __init__(
        self,
        calls: FileCalls,
        start: Callable[[Callable[[], None]], Any],
        on_event: Callable[[Any], None],
        process: SimulatedProcess,
    ) -> None:
        self._calls = calls
        self._files = calls.files
        self._process = process
        self._scheduler = calls.scheduler
        self._on_event = on_event
        self._watches: dict[int, int] = {}
        self._queue: deque[SimpleNamespace] = deque()
        self._places = Places()
        self._is_closed = False
        self._descriptors = 0
        self._files.sinks.append(self)
        process.on_end.append(self._close)
        self._thread = start(self._run)

    def add(self, path: str, follow: bool = False) -> int:
        inode = self._calls._reached(path, follow=follow)
        if not inode.is_folder:
            raise failed(errno.ENOTDIR, path)
        if not inode.is_readable:
            raise failed(errno.EACCES, path)
        if inode.number not in self._watches:
            self._descriptors += 1
            self._watches[inode.number] = self._descriptors
        return self._watches[inode.number]

    def remove(self, wd: int) -> bool:
        for number, each in list(self._watches.items()):
            if each == wd:
                del self._watches[number]
                self._put(wd, inotify.IN_IGNORED, "")
                return True
        return False

    def stop(self) -> None:
        self._close()

    def join(self) -> None:
        if self._scheduler.current is not None:
            self._thread.join()

    def emit(self, inode: Inode, mask: int, name: str) -> bool:
        """Queue an event of a watched folder; called by the file system."""
        wd = self._watches.get(inode.number)
        if wd is None:
            return False
        self._put(wd, mask, name)
        if mask & inotify.IN_IGNORED:
            del self._watches[inode.number]
        return len(self._queue) <= QUEUED_EVENTS

    def _put(self, wd: int, mask: int, name: str) -> None:
        if len(self._queue) > QUEUED_EVENTS:
            return
        if len(self._queue) == QUEUED_EVENTS:
            wd, mask, name = -1, inotify.IN_Q_OVERFLOW, ""
        self._queue.append(SimpleNamespace(wd=wd, mask=mask, name=os.fsencode(name)))
        self._scheduler.wake_all(self._places)

    def _close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._files.sinks.remove(self)
            self._scheduler.wake_all(self._places)

    def _run(self) -> None:
        while True:
            self._scheduler.wait(self._places, lambda: self._is_closed or bool(self._queue))
            if self._is_closed:
                return
            self._on_event(self._queue.popleft())
