"""Read files in worker processes, so that a hostile one costs itself only.

Each worker has a limit of memory (RLIMIT_AS) and each file one of time; a worker that crashes or
hangs is replaced.  Workers load no torch, and die with the process that made them.

    read ──▶ queue ──▶ a thread for each worker process ──▶ done
                          │ timeout, crash, out of memory
                          └──▶ one more try, alone, in a new process ──▶ done
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from es_imgsearch.describe.registry import picture_describers
from es_imgsearch.errors import ReadersFailed
from es_imgsearch.read.worker_process import (
    Outcome,
    ReadPlan,
    WorkerProcess,
    begin_child,
    is_blame,
)

__all__ = ["Outcome", "ReadPlan", "ReadWorkers", "begin_child"]

logger = logging.getLogger(__name__)

# A worker's memory grows with the largest picture it met; replaced now and then, it gives it
# back.  At 0.4 s a start, 2,000 pictures each spread the cost to 0.2 ms a picture.
_FILES_PER_WORKER = 2000

# A thread whose workers end before they are ready gives up.
_STARTS_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class _File:
    """A file to read; `blame` is the outcome of its first try."""

    path: str
    done: Callable[[Outcome], None]
    blame: Outcome | None = None

    @property
    def needs_memory(self) -> bool:
        """True if all readers together may have needed too much."""
        return getattr(self.blame, "error_class", None) == "out_of_memory"


_Queue = queue.SimpleQueue[_File | None]


class ReadWorkers:
    """Reading processes; `read` calls back from one of their threads.

    A file that takes too long, or whose worker dies, is read once more before it is blamed: alone,
    in a new process.  A worker that ends between files is replaced; when none can be started,
    every file's outcome is ReadersFailed.

    Raises SettingsError where a describer cannot be loaded.
    """

    def __init__(self, plan: ReadPlan, processes: int) -> None:
        # Raised here for a describer that cannot be loaded, not once for every file.
        picture_describers(plan.describers)
        self._plan = plan
        self._files: _Queue = queue.SimpleQueue()
        self._second_tries: _Queue = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._workers: set[WorkerProcess] = set()
        self._reading = _Reading()
        self._failed: ReadersFailed | None = None
        self._closing = False
        self._pid = os.getpid()
        self._calling_back = threading.Lock()
        # Linux ends a worker with the *thread* that made it (`begin_child`): these stay.
        targets = [self._read_files] * processes + [self._read_again]
        self._threads = [
            threading.Thread(target=each, name="read-workers", daemon=True) for each in targets
        ]
        for thread in self._threads:
            thread.start()
        # multiprocessing would wait for the workers at the end of the process.
        atexit.register(self.close)

    def read(self, path: str, done: Callable[[Outcome], None]) -> None:
        """Read a file in some worker, then call `done` with its outcome."""
        if self._closing:
            raise RuntimeError("The reading workers are closed.")
        if self._failed is not None:
            done(self._failed)
        else:
            self._files.put(_File(path, done))

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

    def close(self) -> None:
        """End the workers at once; give up files being read, without their `done`."""
        if os.getpid() != self._pid:
            return  # in a fork's copy of this object, which may not end the parent's workers
        with self._lock:
            self._closing = True
            for worker in self._workers:
                worker.kill()
        atexit.unregister(self.close)
        for _ in self._threads:
            self._files.put(None)
        self._second_tries.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    # -- in the threads ------------------------------------------------------------------------

    def _read_files(self) -> None:
        worker = self._start()
        while (file := self._files.get()) is not None and not self._closing:
            if worker is not None and worker.has_ended():
                logger.warning("A process that reads pictures ended; there is a new one.")
                worker = self._replace(worker)
            if worker is None:
                self._end(file, self._failed)
                continue
            with self._reading.together():
                outcome = worker.read(file.path)
            self._end(file, outcome)
            if is_blame(outcome) or worker.has_ended() or worker.files_read >= _FILES_PER_WORKER:
                worker = self._replace(worker)
        if worker is not None:
            self._discard(worker)

    def _read_again(self) -> None:
        while (file := self._second_tries.get()) is not None and not self._closing:
            with self._reading.alone() if file.needs_memory else self._reading.together():
                worker = self._start()
                outcome = self._failed if worker is None else worker.read(file.path)
            self._end(file, outcome)
            if worker is not None:
                self._discard(worker)

    def _end(self, file: _File, outcome: Outcome | None) -> None:
        if self._closing or outcome is None:
            return
        if is_blame(outcome) and file.blame is None:
            self._second_tries.put(replace(file, blame=outcome))
            return
        with self._calling_back:
            try:
                file.done(outcome)
            except Exception:
                logger.exception("The result of reading %s was not taken.", file.path)

    def _start(self) -> WorkerProcess | None:
        """Start a worker and wait until it is ready; None if that fails, or at the end."""
        for _ in range(_STARTS_IN_A_ROW):
            worker = None
            with self._lock, suppress(OSError):
                if self._closing:
                    return None
                worker = WorkerProcess(self._plan)
                self._workers.add(worker)
            if worker is not None and worker.is_ready():
                return worker
            if worker is not None:
                self._discard(worker)
        if not self._closing:
            self._failed = ReadersFailed(
                "readers_failed",
                "The processes that read pictures end before they read anything:"
                " is there memory enough, and may this user start processes?",
            )
        return None

    def _replace(self, worker: WorkerProcess) -> WorkerProcess | None:
        self._discard(worker)
        return self._start()

    def _discard(self, worker: WorkerProcess) -> None:
        with self._lock:
            self._workers.discard(worker)
        worker.close()


class _Reading:
    """Lets files be read together, or one alone while no other is read."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._files = 0
        self._is_alone = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """Read a file while others are read, once none has to be read alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone)
            self._files += 1
        try:
            yield
        finally:
            with self._changed:
                self._files -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no file is read, and keep others waiting meanwhile."""
        with self._changed:
            self._is_alone = True
            self._changed.wait_for(lambda: not self._files)
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()
