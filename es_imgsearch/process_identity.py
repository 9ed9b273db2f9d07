"""Which process of which machine, so that another one can tell whether it still runs.

A number alone does not do: it is given anew after the process has ended, and in every container it
counts from 1.  Linux only; elsewhere nothing can be told.
"""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")

# Of the fields of /proc/PID/stat behind the name, see proc_pid_stat(5).
_STATE, _START_TIME = 0, 19
# Ended; its parent has not asked yet what became of it.
_ENDED = {"Z", "X", "x"}


def process_space() -> str | None:
    """Where process numbers mean the same: this start of the system, this container.

    None where that cannot be told.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def process_start(process_id: int) -> int | None:
    """When it began, in clock ticks since the system did; None where none is seen that runs."""
    fields = _told_of(process_id)
    return None if fields is None or fields[_STATE] in _ENDED else int(fields[_START_TIME])


def runs(process_id: int, start: int | None) -> bool | None:
    """Whether the process that began then still runs.

    None where that is hidden: a /proc mounted with ``hidepid`` shows a user none of another's
    processes, see proc(5), and a signal tells only whether any process has the number.
    """
    if (fields := _told_of(process_id)) is not None:
        return fields[_STATE] not in _ENDED and int(fields[_START_TIME]) == start
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return None


def _told_of(process_id: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the name; None where it cannot be read."""
    try:
        told = (_PROC / str(process_id) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # The name in front may hold blanks and parentheses.
    return told.rpartition(")")[2].split()
