"""Records of the files in the pipeline, and the state of its run."""

from __future__ import annotations

import math
import stat
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, fields
from operator import add
from typing import Any, Final, NamedTuple

from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.errors import ReadError, StoreError, counted
from es_imgsearch.read.file import Skipped
from es_imgsearch.records import Change, Embedded, FileSignature, FileState, Grid, Picture
from es_imgsearch.settings import Settings
from es_imgsearch.watch.excludes import Pattern
from es_imgsearch.watch.places import ABSENT, NO_PICTURE
from es_imgsearch.watch.reconcile import DifferenceKind
from es_imgsearch.watch.sources.opened import status_at
from es_imgsearch.watch.sources.protocol import status_of


@dataclass(slots=True)
class Counts:
    """Numbers of files by outcome since the start."""

    embedded: int = 0
    reused: int = 0
    failed: int = 0
    # Documents of pictures that went, and those of them whose picture was moved.
    deleted: int = 0
    moved: int = 0
    not_pictures: int = 0
    # Stored files that could not be read; their documents stay.
    unreadable: int = 0

    @property
    def stored(self) -> int:
        return self.embedded + self.reused

    def plus(self, other: Counts) -> Counts:
        """Return the sums."""
        return Counts(*map(add, astuple(self), astuple(other)))

    def in_words(self) -> str:
        reused = max(0, self.reused - self.moved)
        words = [f"{self.embedded} embedded", f"{reused} reused"]
        for number, outcome in (
            (self.failed, "failed"),
            (self.unreadable, "unreadable"),
            (self.moved, "moved"),
            (self.deleted - self.moved, "removed"),
        ):
            if number:
                words.append(f"{number} {outcome}")
        if self.not_pictures:
            words.append(counted(self.not_pictures, "no picture", "no pictures"))
        return ", ".join(words)


# The reason of what a pattern of the user's leaves out.
PATTERN: Final = "pattern"

# About 100 bytes each.
MOST_NO_PICTURES = 200_000

_counting = threading.Lock()


@dataclass(slots=True)
class RootComparison:
    """Counts of one comparison of a root with the index.

    `new` files that turn out to be no pictures are not counted.  `unknown` paths cannot be
    examined.  Of `unreadable` files the content cannot be read; their documents stay.  `left_out`
    are the entries without a document by reason: PATTERN, HIDDEN, USUAL or LIBRARY of
    `watch.excludes`, or one of `watch.places`; a folder counts as one.  `left_out_by` are those
    that a pattern leaves out, by the pattern.  Of a part of a root neither is whole.
    """

    new: int = 0
    changed: int = 0
    lost: int = 0
    unknown: int = 0
    unreadable: int = 0
    seconds: float = 0.0
    ended_at: str | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    left_out_by: Counter[str] = field(default_factory=Counter)
    # Hashes of the paths of those that are no pictures, and of new files.
    _no_pictures: set[int] = field(default_factory=set, init=False, repr=False, compare=False)
    _new: set[int] = field(default_factory=set, init=False, repr=False, compare=False)

    def count_left_out(self, reason: str) -> None:
        """Count an entry that was left out, for a reason or by a Pattern; thread-safe."""
        with _counting:
            if isinstance(reason, Pattern):
                self.left_out_by[str(reason)] += 1
                reason = PATTERN
            self.left_out[reason] += 1

    def count_submitted(self, relative_path: str, kind: DifferenceKind) -> None:
        """Count a new or changed file that is to be read; thread-safe."""
        with _counting:
            self.changed += kind is DifferenceKind.CHANGED
            if kind is DifferenceKind.NEW:
                self.new += 1
                if len(self._new) < MOST_NO_PICTURES:
                    self._new.add(hash(relative_path))

    def count_no_picture(self, relative_path: str) -> None:
        """Count a file that is no picture, once however often it is read; thread-safe."""
        with _counting:
            if (key := hash(relative_path)) in self._no_pictures:
                return
            if key in self._new:
                self._new.discard(key)
                self.new -= 1
            # Of more of them, each reading counts.
            if len(self._no_pictures) < MOST_NO_PICTURES:
                self._no_pictures.add(key)
        self.count_left_out(NO_PICTURE)

    def to_dict(self) -> dict[str, Any]:
        found = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        with _counting:
            counts = {name: dict(found[name]) for name in ("left_out", "left_out_by")}
        return {**found, **counts, "seconds": round(self.seconds, 3)}


# Of a path whose state cannot be read (its folder may not be entered); its document stays.
UNKNOWN_SIGNATURE = FileSignature(FileState(-1, -1), -1, -1)


# The time of a change that no event showed, but a comparison.
NO_EVENT = -math.inf


@dataclass(slots=True)
class Job:
    """One path in the pipeline, and the latest change of it since the job began.

    Times are of `time.monotonic()`: `queued_at`, when its file was queued for reading, and
    `next_event_at`, when the last event of `next_change` happened.  Changes that joined have a
    ticket of their own, that of the first of them.
    """

    change: Change
    signature: FileSignature
    ticket: int
    queued_at: float = 0.0
    next_change: Change | None = None
    next_event_at: float = NO_EVENT
    # It was read again since its inode or ctime differed after the write.
    is_repeated: bool = False
    next_ticket: int | None = None
    # The path's document was deleted meanwhile, perhaps after this job's was acknowledged.
    may_be_deleted: bool = False


class EmbedResult(NamedTuple):
    """A picture with its vector; `embed_ms` is None for a reused vector."""

    job: Job
    picture: Picture
    embedded: Embedded
    embed_ms: float | None = None


class Unembedded(NamedTuple):
    """A file without a vector: it failed, or it is no picture."""

    job: Job
    reason: ReadError | Skipped


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """A job's document that is ready to write.

    `fallback` returns the document to write if Elasticsearch refuses this one; it is None for a
    failure, and so are `result` and `renewed`, which makes documents again of which others stored
    another version meanwhile.  `moved_from` is the path from which the file was moved, if it was.
    """

    job: Job
    write: Write
    result: EmbedResult | None = None
    fallback: Callable[[StoreError], PendingWrite] | None = None
    moved_from: str | None = None
    renewed: Callable[[Sequence[PendingWrite]], Sequence[PendingWrite]] | None = None

    @property
    def signature(self) -> FileSignature:
        """The signature of the file that was read."""
        return self.job.signature if self.result is None else self.result.picture.signature

    @property
    def read_began_at(self) -> float:
        """The time (monotonic) at which its read began, or was queued."""
        return self.job.queued_at if self.result is None else self.result.picture.read_began_at


class Kept(NamedTuple):
    """A stored file that could not be read.

    Its document stays if `is_unknown`, since the file may be as it says.  If not, the deletion
    guard decides on the document.
    """

    job: Job
    error: ReadError
    is_unknown: bool


class RunState:
    """Events and the error that end the pipeline, shared by all stages.

    `closing`: no more changes are accepted.  `stopping`, set later: work in flight is given up.
    `fatal` is the error that ended the pipeline.
    """

    def __init__(self, on_error: Callable[[], None]) -> None:
        self.closing = threading.Event()
        self.stopping = threading.Event()
        self.fatal: BaseException | None = None
        self._on_error = on_error

    def guard(self, work: Callable[[], None]) -> None:
        """Call `work` in a background thread; an error ends the run."""
        try:
            work()
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001 - raised by `check`, and ends the process
            self.fatal = error
            self._on_error()

    def check(self) -> None:
        """Raise the error that ended the run, or Stopped if it is closing."""
        if self.fatal is not None:
            raise self.fatal
        if self.closing.is_set():
            raise Stopped


def max_files_in_flight(settings: Settings, encoder: Encoder, grid: Grid | None) -> int:
    """Return the number of files in flight whose arrays fit `queue_memory_mb`.

    A slot is acquired before the file is read, and all pictures of an index are prepared to the
    same size, so the bound always holds.
    """
    arrays = 1 if grid is None else 1 + grid.count
    picture_bytes = arrays * encoder.preparation.size_bytes
    return max(1, min(settings.queue_size, settings.queue_memory_mb * 2**20 // picture_bytes))


def read_signature(change: Change) -> FileSignature | None:
    """Read a file's signature.

    Returns None if the file is absent, UNKNOWN_SIGNATURE if it cannot be read.
    """
    if change.listed is not None:
        return FileSignature.of(status_of(change.listed))
    try:
        status = status_at(change.root.absolute(change.relative_path))
    except OSError as error:
        if error.errno in ABSENT:
            return None
        return UNKNOWN_SIGNATURE
    if not stat.S_ISREG(status.st_mode):
        return None
    return FileSignature.of(status)
