"""Inodes of the simulated file system, and what `os.stat` says of them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(slots=True, eq=False)
class Device:
    """A mounted file system; `error` is the errno of every call below it, 0 for none."""

    number: int
    error: int = 0


@dataclass(slots=True, eq=False)
class Inode:
    """A file, a folder (with `entries`) or a symbolic link (with a `target`)."""

    number: int
    device: Device
    mode: int
    content: bytes = b""
    entries: dict[str, Inode] = field(default_factory=dict)
    target: str = ""
    mtime_ns: int = 0
    ctime_ns: int = 0
    is_readable: bool = True

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True, slots=True)
class Status:
    """What `os.stat` returns."""

    st_mode: int
    st_ino: int
    st_dev: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int

    @property
    def st_mtime(self) -> float:
        return self.st_mtime_ns / 1e9


class EventSink(Protocol):
    """Gets the events of folders, as an inotify instance does."""

    def emit(self, inode: Inode, mask: int, name: str) -> bool:
        """Take an event; False if the folder is not watched or the event is dropped."""


def failed(number: int, path: str) -> OSError:
    """Make the OSError of a failed call."""
    return OSError(number, os.strerror(number), path)
