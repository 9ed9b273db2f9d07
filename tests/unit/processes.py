"""Whether processes that are not our children are still there."""

from __future__ import annotations

import os
import select

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
