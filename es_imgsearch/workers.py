"""Reading in worker processes, so that a hostile file costs that file only.

Each worker has a limit of memory (RLIMIT_AS) and each file one of time; a worker that
crashes or hangs is replaced.  Workers load no torch, and die with the process that made them.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any

from pebble import ProcessExpired, ProcessPool
from PIL import Image

from es_imgsearch.describe import Describer, load_describers
from es_imgsearch.errors import ReadError
from es_imgsearch.preparation import Preparation
from es_imgsearch.read import Describe, Skipped, read_file
from es_imgsearch.records import Picture

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1

# A worker's memory grows with the largest picture it met; replaced now and then, it gives it
# back.  At 0.4 s a start, 2,000 pictures each spread the cost to 0.2 ms a picture.
_FILES_PER_WORKER = 2000


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """What every worker needs to know once."""

    preparation: Preparation
    max_pixels: int
    memory_mb: int
    timeout_seconds: float
    describers: Sequence[str] | None = None


Outcome = Picture | Skipped | ReadError


class ReadWorkers:
    """A pool of reading processes; `read` calls back from a thread of the pool.

    Raises SettingsError where a describer cannot be loaded.
    """

    def __init__(self, plan: ReadPlan, processes: int) -> None:
        # A describer that cannot be loaded is told here and not blamed on every file.
        load_describers(plan.describers)
        self._plan = plan
        self._pool = ProcessPool(
            max_workers=processes,
            max_tasks=_FILES_PER_WORKER,
            initializer=_begin_worker,
            initargs=(plan, os.getpid()),
            # fork would copy the parent's threads' locks, and torch with them
            context=multiprocessing.get_context("spawn"),
        )
        # Linux sends the signal of `_die_with` when the *thread* that made a worker ends, so
        # the first workers are made by a thread that stays until `close`.
        self._closed = threading.Event()
        started = threading.Event()
        self._keeper = threading.Thread(
            target=self._keep, args=(started,), name="read-workers", daemon=True
        )
        self._keeper.start()
        started.wait()

    def _keep(self, started: threading.Event) -> None:
        try:
            _ = self._pool.active  # makes the workers
        finally:
            started.set()
        self._closed.wait()

    def read(self, path: str, done: Callable[[Outcome], None]) -> None:
        """Read a file in some worker, then call `done` with what became of it."""
        future = self._pool.schedule(_read, args=(path,), timeout=self._plan.timeout_seconds)
        future.add_done_callback(lambda finished: done(self._outcome(finished)))

    def close(self) -> None:
        """End the workers at once; files being read are given up, their `done` not awaited."""
        self._pool.stop()
        self._pool.join()
        self._closed.set()
        self._keeper.join()

    def _outcome(self, future: Future[Any]) -> Outcome:
        try:
            result = future.result()
        except ReadError as error:
            return error
        except TimeoutError:
            return ReadError(
                "timeout", f"Reading it took longer than {self._plan.timeout_seconds:g} s."
            )
        except ProcessExpired as error:
            if error.exitcode == -signal.SIGTERM:
                # Nobody but the system, which ends this process too, asks a worker to end.
                return Skipped.CHANGING
            return _expired(error.exitcode)
        except MemoryError:
            return ReadError(
                "out_of_memory", "Decoding it needs more memory than read_memory_mb allows."
            )
        except CancelledError:
            return Skipped.CHANGING
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises is this file's fault
            return ReadError("corrupt", f"{type(error).__name__}: {error}"[:400])
        if isinstance(result, Picture | Skipped):
            return result
        raise TypeError(f"a worker returned {type(result).__name__}")


def _expired(exit_code: int | None) -> ReadError:
    if exit_code is not None and -exit_code == signal.SIGKILL:
        return ReadError("out_of_memory", "The system ended the process that decoded it.")
    return ReadError("crashed", f"The decoder ended its process (exit code {exit_code}).")


_plan: ReadPlan | None = None
_describers: list[tuple[str, Describe]] = []


def _begin_worker(plan: ReadPlan, parent: int) -> None:
    global _plan
    _die_with(parent)
    # Ctrl-C reaches the whole process group; the parent decides when workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Pillow warns of every second malformed file; what matters becomes a failure.
    warnings.simplefilter("ignore")
    _limit_memory(plan.memory_mb)
    _plan = plan
    _describers[:] = [(each.name, _mapped(each)) for each in load_describers(plan.describers)]


def _mapped(describer: Describer) -> Describe:
    """`describe`, held to the fields it mapped: Elasticsearch would refuse the whole document."""

    def describe(image: Image.Image, exif: Image.Exif, path: str) -> Mapping[str, Any]:
        fields = describer.describe(image, exif, path)
        if unmapped := sorted(fields.keys() - describer.mapping.keys()):
            raise ValueError(f"it gave fields that it did not map: {', '.join(unmapped)}")
        return fields

    return describe


def _read(path: str) -> Picture | Skipped:
    if _plan is None:
        raise RuntimeError("the worker was not set up")
    return read_file(path, _plan.preparation, _describers, max_pixels=_plan.max_pixels)


def _die_with(parent: int) -> None:
    """Ask Linux to end this process when the one that made it ends, however it ends."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It was gone before the request was made.
        os._exit(1)


def _limit_memory(memory_mb: int) -> None:
    if sys.platform == "win32":
        return
    import resource

    limit = memory_mb * 1024 * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
