"""What a killed process leaves on the terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

KILLED = """
import multiprocessing, os, signal
from es_imgsearch.cli import ignore_leaks_of_killed_processes
ignore_leaks_of_killed_processes()
semaphore = multiprocessing.get_context("spawn").Semaphore()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.process
@pytest.mark.parametrize("filters", ["", "error::DeprecationWarning"])
def test_a_killed_process_leaves_no_warnings_of_leaked_semaphores(filters: str):
    # The pipe ends when Python's resource tracker, a process of its own, has cleaned up.
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        env={**os.environ, "PYTHONWARNINGS": filters},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stderr == ""
