"""What every process that the daemon starts does first."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def begin_child(parent: int) -> None:
    """End with the process `parent` that made this one, however it ends; leave Ctrl-C to it.

    Linux sends the signal when the *thread* that made this process ends, so that thread has to
    stay.
    """
    # Ctrl-C reaches the whole process group; the parent decides when its children end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It was gone before the request was made.
        os._exit(1)
