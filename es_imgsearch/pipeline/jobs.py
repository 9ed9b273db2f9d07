"""A file on its way through the pipeline, and what became of those before it."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.errors import ReadError, StoreError
from es_imgsearch.read.file import Skipped
from es_imgsearch.records import Change, Embedded, FileState, Grid, Picture
from es_imgsearch.settings import Settings


@dataclass(slots=True)
class Counts:
    """What became of the files so far."""

    embedded: int = 0
    reused: int = 0
    failed: int = 0
    deleted: int = 0
    not_pictures: int = 0

    @property
    def stored(self) -> int:
        return self.embedded + self.reused


@dataclass(slots=True)
class RootComparison:
    """What one comparison of a root with the index found; `unknown` could not be looked at."""

    new: int = 0
    changed: int = 0
    lost: int = 0
    unknown: int = 0
    seconds: float = 0.0
    ended_at: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True)
class Signature:
    """A file's identity and state; tells a replaced file of the same size and time too."""

    state: FileState
    inode: int
    ctime_ns: int


# A path whose state cannot be told (its folder may not be entered): left as it is.
UNKNOWN = Signature(FileState(-1, -1), -1, -1)


@dataclass(slots=True)
class Job:
    """One path that is being worked on, and the change that came meanwhile, if one did."""

    change: Change
    signature: Signature
    ticket: int
    again: Change | None = None
    # Its document was deleted while it was on its way: what is acknowledged may be gone.
    in_doubt: bool = False


class Result(NamedTuple):
    """A picture that has its vector; `embed_ms` is None where the vector was there already."""

    job: Job
    picture: Picture
    embedded: Embedded
    embed_ms: float | None = None


class Unembedded(NamedTuple):
    """A file without a vector: it failed, or there is no picture to embed."""

    job: Job
    reason: ReadError | Skipped


@dataclass(frozen=True, slots=True)
class Ready:
    """A job whose write is known, of the file in that state.

    `fallback` gives what to write if Elasticsearch refuses it; None for a failure's document.
    `result` is None for a failure.
    """

    job: Job
    write: Write
    state: FileState
    result: Result | None = None
    fallback: Callable[[StoreError], Ready] | None = None


class Run:
    """Whether the pipeline goes on, for every stage to look at; `fatal` is the error that ended it.

    `closing`: nothing more is taken in.  `stopping`, set later: nothing more is done.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` is called when there is an error."""
        self.closing = threading.Event()
        self.stopping = threading.Event()
        self.fatal: BaseException | None = None
        self._wake = wake

    def guarded(self, work: Callable[[], None]) -> None:
        """Do it in a thread that no caller waits for; an error ends the run."""
        try:
            work()
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001 - raised by `check`, and ends the process
            self.fatal = error
            self._wake()

    def check(self) -> None:
        """Raise what ended the run, or Stopped when it is closing."""
        if self.fatal is not None:
            raise self.fatal
        if self.closing.is_set():
            raise Stopped


def places(settings: Settings, encoder: Encoder, grid: Grid | None) -> int:
    """How many files may be on their way, so that their arrays fit into `queue_memory_mb`.

    A place is taken before its file is read, and pictures of one index are prepared alike, so
    the bound holds whatever comes.
    """
    arrays = 1 if grid is None else 1 + grid.count
    picture_bytes = arrays * encoder.preparation.size_bytes
    return max(1, min(settings.queue_size, settings.queue_memory_mb * 2**20 // picture_bytes))


def look(change: Change) -> Signature | None:
    """The file's signature; None where there is none, `UNKNOWN` where that cannot be told."""
    try:
        status = os.stat(change.root.absolute(change.relative_path))
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            return None
        return UNKNOWN
    if not stat.S_ISREG(status.st_mode):
        return None
    return Signature(FileState.of(status), status.st_ino, status.st_ctime_ns)
