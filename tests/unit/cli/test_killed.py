"""What a killed process leaves on the terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

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


# As the script `es-imgsearch` does it: a process that starts imports this file, too.
KILLED_AT_START = """
import multiprocessing, os, signal
from es_imgsearch.cli import ignore_leaks_of_killed_processes

if __name__ == "__main__":
    ignore_leaks_of_killed_processes()
    context = multiprocessing.get_context("spawn")
    context.Process(target=print, args=(context.Semaphore(),)).start()
    os.kill(os.getpid(), signal.{signal})
    signal.pause()
"""


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_that_are_starting_when_theirs_is_killed_print_nothing(
    tmp_path: Path, number: signal.Signals
):
    """They find the semaphores removed that they were given."""
    script = tmp_path / "script.py"
    script.write_text(KILLED_AT_START.format(signal=number.name))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -number
    assert done.stderr == ""


INTERRUPTED_AT_START = """
import multiprocessing, os, signal, sys
from pathlib import Path
from es_imgsearch.cli import main

started = Path(__file__).with_name("started")
if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=print, args=("ran",))
    child.start()
    while not started.exists():
        pass
    os.kill(child.pid, signal.SIGINT)
    child.join()
else:
    started.touch()
    for _ in range(10**6):
        pass
"""


@pytest.mark.process
def test_ctrl_c_while_a_process_starts_prints_nothing(tmp_path: Path):
    """It goes to the whole process group; the parent decides when its processes end."""
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED_AT_START)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.stdout) == ("", "ran\n")
