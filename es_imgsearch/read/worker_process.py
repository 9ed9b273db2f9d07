"""One reading process and the pipe to it.

The pipe belongs to this process alone, so one that dies while it sends its result leaves nothing
behind for others.  Times are monotonic: a clock that is set forward blames no file.
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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from PIL import Image

from es_imgsearch.describe.fields import mapped_only
from es_imgsearch.describe.registry import PictureDescriber, picture_describers, shorter_side_pixels
from es_imgsearch.describe.sidecar import look_for_tables_up_to
from es_imgsearch.errors import ReadError, ReadersFailed
from es_imgsearch.read.file import Describe, Skipped, read_file
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.records import Grid, Picture, utf8
from es_imgsearch.settings import Settings

# A process in a file system that hangs cannot be killed; it ends when that answers.
_END_SECONDS = 3.0

# multiprocessing looks at all children when one starts or ends, which threads must not do at once.
_children = threading.Lock()


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """Preparation, limits and describers of every worker.

    `folders` are the watched ones, in which describers may look for files beside pictures.
    """

    preparation: Preparation
    max_pixels: int
    memory_mb: int
    timeout_seconds: float
    describers: Sequence[str] | None = None
    grid: Grid | None = None
    folders: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        settings: Settings,
        preparation: Preparation,
        describers: Sequence[str] | None = None,
        grid: Grid | None = None,
        folders: Sequence[str] = (),
    ) -> ReadPlan:
        """Make a plan with the limits of the settings."""
        limits = settings.max_pixels, settings.read_memory_mb, settings.read_timeout_seconds
        return cls(preparation, *limits, describers, grid, folders)

    def shorter_side_pixels(self, describers: Sequence[PictureDescriber]) -> int | None:
        """Return the shorter side that describers and encoder need; None for all."""
        for_describers = shorter_side_pixels(describers)
        if for_describers is None:
            return None
        tiles_a_side = 1 if self.grid is None else max(self.grid.columns, self.grid.rows)
        return max(for_describers, tiles_a_side * self.preparation.shorter_side_pixels)


Outcome = Picture | Skipped | ReadError


class WorkerProcess:
    """A process that reads one file at a time; used by one thread, ended by any."""

    def __init__(self, plan: ReadPlan) -> None:
        """Start it.  Raises OSError if the system cannot."""
        # fork would copy the parent's threads' locks, and torch with them.
        context = multiprocessing.get_context("spawn")
        self._timeout_seconds = plan.timeout_seconds
        self._connection, theirs = context.Pipe()
        arguments = plan, os.getpid(), theirs
        self._process = context.Process(target=_work, args=arguments, name="read-worker")
        try:
            with _children:
                self._process.start()
        finally:
            theirs.close()
        self.files_read = 0
        self._is_spent = False

    def is_ready(self) -> bool:
        """Wait until it has loaded its describers; return False if it ended instead."""
        try:
            self._connection.recv()
        except (EOFError, OSError):
            return False
        return True

    def has_ended(self) -> bool:
        """Check whether it ended, or was ended for taking too long."""
        # Between files it sends nothing, so that only the end of the pipe can be there.
        return self._is_spent or self._connection.poll(0)

    def read(self, path: str) -> Outcome:
        """Read a file.  The process has to be replaced after `is_blame` of the outcome."""
        self.files_read += 1
        try:
            self._connection.send(path)
            if not self._connection.poll(self._timeout_seconds):
                self._is_spent = True
                self.kill()
                return ReadError(
                    "timeout", f"Reading it took longer than {self._timeout_seconds:g} s."
                )
            outcome: Outcome = self._connection.recv()
        except (EOFError, OSError):
            self._is_spent = True
            return _outcome_of_end(self.join())
        return outcome

    def kill(self) -> None:
        """End it at once; `read` in another thread returns."""
        self._process.kill()

    def join(self) -> int | None:
        """Wait for its end, and end it if need be; return its exit code, None if it hangs."""
        has_ended = wait([self._process.sentinel], _END_SECONDS)
        if not has_ended:
            self.kill()
            has_ended = wait([self._process.sentinel], _END_SECONDS)
        with _children:
            # Not 0 for one that has ended: its sentinel closes just before it can be waited for.
            self._process.join(_END_SECONDS if has_ended else 0)
            return self._process.exitcode

    def close(self) -> None:
        """End it and close the pipe."""
        self.kill()
        self.join()
        self._connection.close()


def is_blame(outcome: Outcome) -> bool:
    """Return True if the file is blamed for what its process did."""
    return isinstance(outcome, ReadError) and outcome.error_class in _BLAMES


_BLAMES = {"timeout", "crashed", "out_of_memory"}


def _outcome_of_end(exit_code: int | None) -> Outcome:
    if exit_code == -signal.SIGTERM:
        # Only the system sends it, and it ends the parent, too.
        return Skipped.CHANGING
    if exit_code == -signal.SIGKILL:
        return ReadError("out_of_memory", "The system ended the process that decoded it.")
    return ReadError("crashed", f"The decoder ended its process (exit code {exit_code}).")


# -- In the process ------------------------------------------------------------------------


def _work(plan: ReadPlan, parent: int, connection: Connection) -> None:
    _begin_worker(plan, parent)
    connection.send(None)
    while True:
        try:
            path = connection.recv()
        except EOFError:
            return
        _send(connection, _outcome(path))


def _outcome(path: str) -> Outcome:
    try:
        return _read(path)
    except ReadError as error:
        return error
    except MemoryError:
        return ReadError(
            "out_of_memory", "Decoding it needs more memory than read_memory_mb allows."
        )
    except RuntimeError as error:
        return _failed(error)


def _send(connection: Connection, outcome: Outcome) -> None:
    try:
        connection.send(outcome)
    except OSError:
        raise
    except MemoryError:
        connection.send(ReadError("out_of_memory", "Its pixels need more memory than is left."))
    except Exception as error:  # noqa: BLE001 - what cannot be sent is a bug, returned to the caller
        connection.send(_failed(error))


def _failed(error: Exception) -> ReadersFailed:
    return ReadersFailed("readers_failed", _words_of(error))


def _words_of(error: Exception) -> str:
    # (JSON cannot hold a lone surrogate of a name that is not UTF-8.)
    return utf8(f"{type(error).__name__}: {error}"[:400])


_plan: ReadPlan | None = None
_describers: list[tuple[str, Describe]] = []
_shorter_side_pixels: int | None = None


def _begin_worker(plan: ReadPlan, parent: int) -> None:
    global _plan, _shorter_side_pixels
    begin_child(parent)
    # It has to end by the signal, by which the parent knows that no file is at fault.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _silence_decoders()
    _limit_memory(plan.memory_mb)
    _plan = plan
    look_for_tables_up_to(plan.folders)
    describers = picture_describers(plan.describers)
    _describers[:] = [(each.name, _mapped(each)) for each in describers]
    _shorter_side_pixels = plan.shorter_side_pixels(describers)


def _silence_decoders() -> None:
    """Silence what decoders say of malformed files; what matters becomes a failure.

    libtiff, LibRaw and others write to the descriptor of standard error, past Python.  What
    describers write to `sys.stderr` still arrives.
    """
    warnings.simplefilter("ignore")
    for name in ("PIL", "tifffile"):
        # Without any handler their warnings would go to standard error.
        logging.getLogger(name).addHandler(logging.NullHandler())
    with suppress(OSError):  # of a process that has none
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 2)
        os.close(nothing)


def _mapped(describer: PictureDescriber) -> Describe:
    """Return `describe` without fields that are not mapped."""

    def describe(image: Image.Image, exif: Image.Exif, path: str) -> Mapping[str, Any]:
        fields = describer.describe(image, exif, path)
        return mapped_only(fields, describer.name, describer.mapping)

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
        # The original may fail to unpickle in the parent.
        raise ReadError("corrupt", _words_of(error)) from None


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
