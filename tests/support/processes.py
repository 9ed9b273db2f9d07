"""Processes that are not our children, and one that may not do what root may."""

from __future__ import annotations

import os
import select
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

PATIENCE_SECONDS = 60.0


def gone(pid: int) -> bool:
    """Whether a process ends soon; it need not be our child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE_SECONDS)[0])
    finally:
        os.close(descriptor)


def without_root(ask: Callable[[], str], folder: Path) -> str:
    """What `ask` says for a user to whom file modes apply, and who may enter pytest's `folder`."""
    if os.geteuid() != 0:
        return ask()
    # Under pytest's own folder of this session, which is deeper with several processes.
    for each in (folder, *folder.parents[:4]):
        if each == Path(tempfile.gettempdir()):
            break
        each.chmod(stat.S_IMODE(each.stat().st_mode) | 0o055)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(write_end, ask().encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said
