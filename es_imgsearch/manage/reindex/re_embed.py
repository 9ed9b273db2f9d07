"""Vectors for documents that are carried: those of the target, or new ones of the originals.

    of ──▶ reading workers ──▶ embedding stage ──▶ events ──▶ of, rest
            (processes)      (threads, processes)

The stage is that of the pipeline, with as many encoder processes as `workers` says, so pictures are
read, embedded and written at the same time.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.retry import Outage, Stopped, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.encoder_process import encoders_for
from es_imgsearch.embed.in_process import SharedEncoder
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.embed.runtime.network import batch_size
from es_imgsearch.errors import ReadError, ReadersFailed
from es_imgsearch.pipeline.jobs import UNKNOWN, Job, Result, Unembedded, places
from es_imgsearch.pipeline.stages import EmbedStage
from es_imgsearch.pipeline.vector_source import VectorSource
from es_imgsearch.read.file import Skipped
from es_imgsearch.read.workers import Outcome, ReadPlan, ReadWorkers
from es_imgsearch.records import Change, Embedded, Picture, Root, disk_path
from es_imgsearch.settings import Settings
from es_imgsearch.watch.roots import registered_root

# Why a picture of the source is not in the target.
GONE = "original is not there"
CHANGED = "original has changed"
ELSEWHERE = "original is not on this machine"

# What the threads may take to end, once nothing more comes.
_END_SECONDS = 3.0

Document: TypeAlias = dict[str, Any]
# What became of a document: its vector, the error of a failure, or why there is nothing to read.
EmbedOutcome: TypeAlias = Embedded | ReadError | str


class _Event(NamedTuple):
    """What became of a file; `was_read` if that holds for every file of the same content."""

    document: Document
    outcome: EmbedOutcome
    was_read: bool
    is_new: bool = False


class ReEmbedder:
    """Vectors of documents: from the target by content, or from their originals on this machine.

    As many files are on their way at most as `queue_size` and `queue_memory_mb` allow.
    """

    def __init__(self, target: Store, meta: Meta, encoder: Encoder, settings: Settings) -> None:
        """Raises SettingsError for several `workers` and an encoder that cannot be sent to them."""
        grid = meta.grid
        self._settings = settings
        self._most = places(settings, encoder, grid)
        self._stored = partial(target.documents.embedded_by_content, with_regions=grid is not None)
        self._stopping = threading.Event()
        self._outage = Outage()
        at_once = batch_size(encoder, settings.batch_size)
        self._vectors = VectorSource(encoder, self._look_up, at_once)
        self._stage = EmbedStage(
            self._vectors,
            encoders_for(SharedEncoder(encoder), settings),
            batch_size=at_once,
            wait_seconds=settings.batch_wait_ms / 1000,
            all_read=lambda: not self._reading,
            emit=self._were_embedded,
            stopping=self._stopping,
        )
        self._plan = ReadPlan.of(
            settings,
            encoder.preparation,
            # Every other field is carried over.
            describers=(),
            grid=grid,
        )
        # Made for the first file: the way back often reads none.
        self._workers: ReadWorkers | None = None
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._events: queue.SimpleQueue[_Event | BaseException] = queue.SimpleQueue()
        # By the ticket of their job.
        self._documents: dict[int, Document] = {}
        self._tickets = itertools.count()
        # Files that the workers have not answered for, and those that nothing is known of yet.
        self._reading = 0
        self._in_flight = 0
        # Documents of the same content wait for the first of them, by what it is read as.
        self._waiting: dict[str, list[Document]] = {}
        # What was embedded since the index was last asked what it has.
        self._made: dict[str, Embedded] = {}
        self._meta = meta
        self.pictures = 0

    def begin(self, meta: Meta) -> None:
        """Begin a pass with these roots; what one before it left unfinished is not asked for."""
        for _ in self.rest():
            # It ends among the vectors that were made lately.
            pass
        self._meta = meta
        self._made = {}
        self._waiting = {}

    def close(self) -> None:
        """End processes and threads; files in work are given up."""
        self._stopping.set()
        self._stage.end()
        if self._workers is not None:
            self._workers.close()
        deadline = time.monotonic() + _END_SECONDS
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
        self._stage.abandon()

    def of(self, documents: Iterator[Document]) -> Iterator[tuple[Document, EmbedOutcome]]:
        """These documents or earlier ones, with what became of them."""
        page = list(documents)
        contents = {each["content_id"] for each in page if "content_id" in each}
        self._made = self._vectors.known(contents - self._waiting.keys())
        for document in page:
            key = _key(document)
            if (found := self._made.get(key)) is not None:
                yield document, found
            elif key in self._waiting:
                self._waiting[key].append(document)
            elif self._root(document) is None:
                yield document, ELSEWHERE
            else:
                while self._in_flight >= self._most:
                    yield from self._next()
                self._waiting[key] = [document]
                self._submit(document)

    def rest(self) -> Iterator[tuple[Document, EmbedOutcome]]:
        """The same for all that is still on its way."""
        while self._in_flight:
            yield from self._next()

    def _next(self) -> Iterator[tuple[Document, EmbedOutcome]]:
        """Wait until it is known of some file what became of it."""
        event = self._events.get()
        if isinstance(event, BaseException):
            raise event
        document, made, was_read, is_new = event
        self._in_flight -= 1
        self.pictures += is_new
        key = _key(document)
        if isinstance(made, Embedded):
            self._made[key] = made
        if was_read:
            for each in self._waiting.pop(key):
                yield each, made
            return
        # A copy of it may be unchanged.  Submitted first: the consumer of this one may raise.
        others = self._waiting.pop(key)[1:]
        if others:
            self._waiting[key] = others
            self._submit(others[0])
        yield document, made

    # -- on its way ------------------------------------------------------------------------

    def _root(self, document: Document) -> Root | None:
        """The root, if its originals are on this machine."""
        root = registered_root(document["root"], self._meta)
        if root is None or self._meta.roots[root.name]["host"] != self._settings.host:
            return None
        return root

    def _submit(self, document: Document) -> None:
        self._start()
        root = self._root(document)
        if self._workers is None or root is None:
            raise RuntimeError("only what can be read here is submitted")
        change = Change(root, disk_path(document["relative_path"]), time.time())
        self._in_flight += 1
        job = Job(change, UNKNOWN, next(self._tickets))
        with self._lock:
            self._reading += 1
            self._documents[job.ticket] = document
        self._workers.read(
            root.absolute(change.relative_path), lambda outcome: self._was_read(job, outcome)
        )

    def _was_read(self, job: Job, outcome: Outcome) -> None:
        with self._lock:
            # Before it is passed on, or the stage would wait for a file that does not come.
            self._reading -= 1
            document = self._documents[job.ticket]
        if isinstance(outcome, ReadersFailed):
            self._events.put(outcome)
        elif isinstance(outcome, Picture) and outcome.content_id == document.get(
            "content_id", outcome.content_id
        ):
            self._stage.put(job, outcome)
        else:
            self._tell(job, _reason(outcome), was_read=False)

    def _were_embedded(self, items: Sequence[Result | Unembedded]) -> None:
        for item in items:
            if isinstance(item, Result):
                is_new = item.embed_ms is not None
                self._tell(item.job, item.embedded, was_read=True, is_new=is_new)
            else:
                self._tell(item.job, _reason(item.reason), was_read=True)

    def _tell(
        self, job: Job, outcome: EmbedOutcome, *, was_read: bool, is_new: bool = False
    ) -> None:
        with self._lock:
            document = self._documents.pop(job.ticket)
        self._events.put(_Event(document, outcome, was_read, is_new))

    def _look_up(self, content_ids: Sequence[str], fields: Sequence[str]) -> dict[str, Embedded]:
        return persist(lambda: self._stored(content_ids, fields), self._stopping, self._outage)

    # -- running ---------------------------------------------------------------------------

    def _start(self) -> None:
        if self._workers is not None:
            return
        self._workers = ReadWorkers(self._plan, self._settings.read_workers)
        self._threads = [
            threading.Thread(target=self._guarded, args=(loop,), name=name, daemon=True)
            for name, loop in self._stage.loops().items()
        ]
        for thread in self._threads:
            thread.start()

    def _guarded(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001 - raised where the vectors are asked for
            self._events.put(error)


def _key(document: Document) -> str:
    """The key of files to read once: their content_id, or the image_id of one without."""
    return str(document.get("content_id") or document["image_id"])


def _reason(outcome: Outcome) -> ReadError | str:
    if isinstance(outcome, ReadError):
        return outcome
    return GONE if outcome is Skipped.GONE else CHANGED
