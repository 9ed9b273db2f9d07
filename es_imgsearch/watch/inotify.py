"""Read inotify events with watchdog's low-level reader; explain its limits.

Of watchdog only `InotifyFD` is used, for its thread and its way to stop: it calls
`handle_event` for every event.  Its table of watches is left empty, for three reasons: a folder
without permission (EACCES) would be taken for watched under the descriptor -1, a folder
that was renamed and is added again warns, and an entry costs about 450 bytes a folder.
None of this is public API, so the version is pinned and a test names every attribute.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


logger = logging.getLogger(__name__)

# The kernel's ABI (include/uapi/linux/inotify.h), so that this module imports anywhere.
IN_MODIFY: Final = 0x00000002
IN_ATTRIB: Final = 0x00000004
IN_CLOSE_WRITE: Final = 0x00000008
IN_MOVED_FROM: Final = 0x00000040
IN_MOVED_TO: Final = 0x00000080
IN_CREATE: Final = 0x00000100
IN_DELETE: Final = 0x00000200
IN_DELETE_SELF: Final = 0x00000400
IN_MOVE_SELF: Final = 0x00000800
IN_UNMOUNT: Final = 0x00002000
IN_Q_OVERFLOW: Final = 0x00004000
IN_IGNORED: Final = 0x00008000
IN_ONLYDIR: Final = 0x01000000
IN_DONT_FOLLOW: Final = 0x02000000
IN_EXCL_UNLINK: Final = 0x04000000
IN_ISDIR: Final = 0x40000000

_ASKED: Final = (
    IN_CLOSE_WRITE
    | IN_CREATE
    | IN_DELETE
    | IN_MOVED_FROM
    | IN_MOVED_TO
    | IN_DELETE_SELF
    | IN_MOVE_SELF
    | IN_ATTRIB
    | IN_MODIFY
    | IN_ONLYDIR
    | IN_EXCL_UNLINK
)

_PROC: Final = Path("/proc/sys")


class Event(Protocol):
    """A kernel event; `name` is the folder's entry, empty for the folder itself."""

    wd: int
    mask: int
    name: bytes


class InotifyReader:
    """One inotify instance and the thread that reads it, running from the start.

    `on_event` is called on that thread for every event and must not raise; `on_death` is
    called on it if reading fails for good.

    Raises OSError: ENOSYS where there is no inotify; EMFILE when the user's instances
    (`fs.inotify.max_user_instances`) or the process's files are used up.
    """

    def __init__(
        self, on_event: Callable[[Any], None], on_death: Callable[[], None] = lambda: None
    ) -> None:
        try:
            from watchdog.observers import inotify_c
        except Exception as error:  # watchdog raises its own, ctypes TypeError or AttributeError
            raise OSError(errno.ENOSYS, "this system has no inotify") from error
        _need_three_files()  # else InotifyFD leaks its instance when the pipe fails after it
        self._inotify_c = inotify_c
        self._thread = inotify_c.InotifyFD()
        self._fd: int = self._thread._inotify_fd
        # Opened without IN_CLOEXEC: a worker started from here would keep the instance, and
        # all its watches, alive after this process is gone.
        os.set_inheritable(self._fd, False)
        self._on_death = on_death
        self._read_all = self._thread.run
        self._thread.handle_event = on_event
        self._thread.run = self._run
        self._thread.name = "inotify"
        self._closing = False
        self._thread.start()

    def add(self, path: str, follow: bool = False) -> int:
        """Watch a folder; return the descriptor, one per inode.

        Raises OSError: ENOENT or ENOTDIR (gone, or a symbolic link and not `follow`), EACCES,
        ENOSPC (`fs.inotify.max_user_watches` is used up).
        """
        mask = _ASKED if follow else _ASKED | IN_DONT_FOLLOW
        wd: int = self._inotify_c.inotify_add_watch(self._fd, os.fsencode(path), mask)
        if wd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return wd

    def remove(self, wd: int) -> bool:
        """Stop watching; False if the kernel already had. IN_IGNORED follows if True."""
        return bool(self._inotify_c.inotify_rm_watch(self._fd, wd) == 0)

    def stop(self) -> None:
        """Close the instance and with it every watch; returns at once, `join` waits."""
        if not self._closing:
            self._closing = True
            self._thread.stop()

    def join(self) -> None:
        """Wait for the thread, unless called on it."""
        if threading.current_thread() is not self._thread:
            self._thread.join()
            self._close_leftovers()

    def _run(self) -> None:
        try:
            self._read_all()
        except Exception:
            logger.exception("the reader of file events failed")
            if not self._closing:
                self._on_death()  # after it nothing uses the descriptor
                self.stop()
                self._close_leftovers()

    def _close_leftovers(self) -> None:
        # InotifyFD leaves closing to its thread while that is reading, and takes it to be
        # reading before its first read and after a failed one: then nothing closes it.
        if self._thread._is_reading:
            self._thread._is_reading = False
            self._thread._close_resources()


def limit_message(number: int, used: int) -> str:
    """Explain why inotify failed: the limit's name, its value and the remedy.

    `number` is the errno; `used` how many watches this process holds.
    """
    if number == errno.ENOSPC:
        return _quota("fs.inotify.max_user_watches", "user.max_inotify_watches", used, 524_288)
    if number == errno.EMFILE:
        if _files_used_up():
            return "this process has no file descriptors left: raise the limit (ulimit -n)"
        return _quota("fs.inotify.max_user_instances", "user.max_inotify_instances", 0, 1024)
    if number == errno.EEXIST:
        return "the same folder is watched under another path (a bind mount)"
    return os.strerror(number)


def _quota(name: str, namespace_name: str, used: int, wanted: int) -> str:
    # Inside a user namespace (a container) its own limit holds too: name the one that binds.
    value, own = _sysctl(name), _sysctl(namespace_name)
    if own is not None and (value is None or own < value):
        name, value = namespace_name, own
    wanted = max(wanted, 2 * (value or 0))
    in_use = f", {used} of them held here" if used else ""
    return (
        f"the limit {name} = {'unknown' if value is None else value} is used up{in_use}; "
        f"raise it with: sudo sysctl {name}={wanted}"
    )


def _sysctl(name: str) -> int | None:
    try:
        return int((_PROC / name.replace(".", "/")).read_text())
    except (OSError, ValueError):
        return None


def _need_three_files() -> None:
    ends = os.pipe()
    try:
        os.close(os.dup(ends[0]))
    finally:
        for end in ends:
            os.close(end)


def _files_used_up() -> bool:
    try:
        _need_three_files()
    except OSError:
        return True
    return False
