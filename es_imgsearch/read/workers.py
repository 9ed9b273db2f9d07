"""Read files in worker processes, so that a hostile one costs itself only.

Each worker has a limit of memory (RLIMIT_AS) and each file one of time; a worker that
crashes or hangs is replaced.  Workers load no torch, and die with the process that made them.
"""

from __future__ import annotations

import ctypes
import itertools
import logging
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any

from pebble import ProcessExpired, ProcessPool
from PIL import Image

from es_imgsearch.describe.fields import check_mapped
from es_imgsearch.describe.registry import PictureDescriber, picture_describers, shorter_side_pixels
from es_imgsearch.errors import ReadError, ReadersFailed
from es_imgsearch.read.file import Describe, Skipped, read_file
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.records import Grid, Picture
from es_imgsearch.settings import Settings

logger = logging.getLogger(__name__)

# A worker's memory grows with the largest picture it met; replaced now and then, it gives it
# back.  At 0.4 s a start, 2,000 pictures each spread the cost to 0.2 ms a picture.
_FILES_PER_WORKER = 2000

# A pool whose workers end while they read nothing gives up as a whole; then there is another.
_POOLS_IN_A_ROW = 3
_LIVED_SECONDS = 60.0
_CHECK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """Preparation, limits and describers of every worker."""

    preparation: Preparation
    max_pixels: int
    memory_mb: int
    timeout_seconds: float
    describers: Sequence[str] | None = None
    grid: Grid | None = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        preparation: Preparation,
        describers: Sequence[str] | None = None,
        grid: Grid | None = None,
    ) -> ReadPlan:
        """Make a plan with the limits of the settings."""
        limits = settings.max_pixels, settings.read_memory_mb, settings.read_timeout_seconds
        return cls(preparation, *limits, describers, grid)

    def shorter_side_pixels(self, describers: Sequence[PictureDescriber]) -> int | None:
        """Return the shorter side that describers and encoder need; None for all."""
        for_describers = shorter_side_pixels(describers)
        if for_describers is None:
            return None
        tiles_a_side = 1 if self.grid is None else max(self.grid.columns, self.grid.rows)
        return max(for_describers, tiles_a_side * self.preparation.shorter_side_pixels)


Outcome = Picture | Skipped | ReadError


class ReadWorkers:
    """Pool of reading processes; `read` calls back from a thread of the pool.

    A pool that breaks is replaced and what it left is read again; after three in a row that
    read nothing, every file's outcome is ReadersFailed.

    Raises SettingsError where a describer cannot be loaded.
    """

    def __init__(self, plan: ReadPlan, processes: int) -> None:
        # Raised here for a describer that cannot be loaded, not once for every file.
        picture_describers(plan.describers)
        self._plan = plan
        self._processes = processes
        self._pool = self._new_pool()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        # Files without an outcome yet.
        self._pending: dict[int, tuple[str, Callable[[Outcome], None]]] = {}
        self._broken_in_a_row = 0
        self._pool_since = time.monotonic()
        self._failed: ReadersFailed | None = None
        self._closing = False
        # Linux sends the signal of `begin_child` when the *thread* that made a worker ends, so
        # the first workers of a pool are made by a thread that stays until `close`.
        self._closed = threading.Event()
        started = threading.Event()
        self._keeper = threading.Thread(
            target=self._keep, args=(started,), name="read-workers", daemon=True
        )
        self._keeper.start()
        started.wait()

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self._processes,
            max_tasks=_FILES_PER_WORKER,
            initializer=_begin_worker,
            initargs=(self._plan, os.getpid()),
            # fork would copy the parent's threads' locks, and torch with them
            context=multiprocessing.get_context("spawn"),
        )

    def _keep(self, started: threading.Event) -> None:
        try:
            self._is_working()  # makes the workers
        finally:
            started.set()
        while not self._closed.wait(_CHECK_SECONDS):
            if not self._is_working():
                self._replace_pool()

    def _is_working(self) -> bool:
        try:
            return bool(self._pool.active)
        except BrokenProcessPool:
            # It was not started yet and cannot be.
            return False

    def _replace_pool(self) -> None:
        with self._lock:
            if self._closing or self._failed is not None:
                return
            if time.monotonic() - self._pool_since > _LIVED_SECONDS:
                self._broken_in_a_row = 0
            self._broken_in_a_row += 1
            broken = self._pool
            broken.stop()
            broken.join()
            if self._broken_in_a_row < _POOLS_IN_A_ROW:
                self._pool = self._new_pool()
                self._pool_since = time.monotonic()
                self._is_working()  # makes the workers
            else:
                self._failed = ReadersFailed(
                    "readers_failed",
                    "The processes that read pictures end before they read anything:"
                    " is there memory enough, and may this user start processes?",
                )
            left = list(self._pending)
        if self._failed is None:
            logger.warning("The processes that read pictures ended; there are new ones.")
        for number in left:
            self._schedule(number)

    def read(self, path: str, done: Callable[[Outcome], None]) -> None:
        """Read a file in some worker, then call `done` with its outcome."""
        number = next(self._numbers)
        self._pending[number] = (path, done)
        self._schedule(number)

    def read_each(self, paths: Iterable[str]) -> Iterator[tuple[str, Outcome]]:
        """Read files and yield each path with its outcome, in the order in which they end.

        Raises ReadersFailed where no file can be read at all.
        """
        outcomes: queue.SimpleQueue[tuple[str, Outcome]] = queue.SimpleQueue()
        count = 0
        for path in paths:
            self.read(path, lambda outcome, path=path: outcomes.put((path, outcome)))  # type: ignore[misc]
            count += 1
        for _ in range(count):
            path, outcome = outcomes.get()
            if isinstance(outcome, ReadersFailed):
                raise outcome
            yield path, outcome

    def _schedule(self, number: int) -> None:
        if self._failed is not None:
            self._end(number, self._failed)
            return
        pending = self._pending.get(number)
        if pending is None:
            return
        try:
            limit = self._plan.timeout_seconds
            future = self._pool.schedule(_read, args=(pending[0],), timeout=limit)
        except RuntimeError:
            if self._closing:
                raise
            # The pool is broken; `_replace_pool` schedules this file again.
            return
        future.add_done_callback(partial(self._was_read, number))

    def _was_read(self, number: int, future: Future[Any]) -> None:
        outcome = self._outcome(future)
        if outcome is not None:
            self._broken_in_a_row = 0
            self._end(number, outcome)

    def _end(self, number: int, outcome: Outcome) -> None:
        pending = self._pending.pop(number, None)
        # It may have been scheduled twice, when a pool broke in between.
        if pending is not None:
            pending[1](outcome)

    def close(self) -> None:
        """End the workers at once; give up files being read, without their `done`."""
        with self._lock:
            self._closing = True
        self._pool.stop()
        self._pool.join()
        self._closed.set()
        self._keeper.join()

    def _outcome(self, future: Future[Any]) -> Outcome | None:
        """Return the outcome of the file; None if the pool broke."""
        try:
            result = future.result()
        except ReadError as error:
            return error
        except BrokenProcessPool:
            return None
        except TimeoutError:
            return ReadError(
                "timeout", f"Reading it took longer than {self._plan.timeout_seconds:g} s."
            )
        except ProcessExpired as error:
            if error.exitcode == -signal.SIGTERM:
                # Only the system sends it, and it ends this process, too.
                return Skipped.CHANGING
            return _expired(error.exitcode)
        except MemoryError:
            return ReadError(
                "out_of_memory", "Decoding it needs more memory than read_memory_mb allows."
            )
        except CancelledError:
            return Skipped.CHANGING
        except Exception as error:  # noqa: BLE001 - a bug of ours, reported to the caller
            return ReadersFailed("readers_failed", f"{type(error).__name__}: {error}"[:400])
        if isinstance(result, Picture | Skipped):
            return result
        return ReadersFailed("readers_failed", f"A worker returned {type(result).__name__}.")


def _expired(exit_code: int | None) -> ReadError:
    if exit_code is not None and -exit_code == signal.SIGKILL:
        return ReadError("out_of_memory", "The system ended the process that decoded it.")
    return ReadError("crashed", f"The decoder ended its process (exit code {exit_code}).")


_plan: ReadPlan | None = None
_describers: list[tuple[str, Describe]] = []
_shorter_side_pixels: int | None = None


def _begin_worker(plan: ReadPlan, parent: int) -> None:
    global _plan, _shorter_side_pixels
    begin_child(parent)
    # The pool's own handler ends with 15 and not by the signal, and where it comes while Python
    # clears up at the end of the process, Python prints a traceback.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Pillow warns of every second malformed file; what matters becomes a failure.
    warnings.simplefilter("ignore")
    _limit_memory(plan.memory_mb)
    _plan = plan
    describers = picture_describers(plan.describers)
    _describers[:] = [(each.name, _mapped(each)) for each in describers]
    _shorter_side_pixels = plan.shorter_side_pixels(describers)


def _mapped(describer: PictureDescriber) -> Describe:
    """Return `describe` with a check that its fields are mapped."""

    def describe(image: Image.Image, exif: Image.Exif, path: str) -> Mapping[str, Any]:
        fields = describer.describe(image, exif, path)
        check_mapped(fields, describer.mapping)
        return fields

    return describe


def _read(path: str) -> Picture | Skipped:
    if _plan is None:
        raise RuntimeError("the worker was not set up")
    try:
        return read_file(
            path,
            _plan.preparation,
            _describers,
            max_pixels=_plan.max_pixels,
            grid=_plan.grid,
            shorter_side_pixels=_shorter_side_pixels,
        )
    except (ReadError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a decoder raises is this file's fault
        # The original may fail to unpickle in the parent, which would break the pool.
        raise ReadError("corrupt", f"{type(error).__name__}: {error}"[:400]) from None


def _limit_memory(memory_mb: int) -> None:
    if sys.platform == "win32":
        return
    import resource

    limit = memory_mb * 1024 * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


_PR_SET_PDEATHSIG = 1


def begin_child(parent: int) -> None:
    """Make this process end with its parent and ignore Ctrl-C; called first.

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
