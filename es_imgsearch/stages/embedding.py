"""The middle stage: pictures find their vectors, stored ones or new ones.

    put ──▶ look-up thread ──────────────▶ embedded
               │ one look-up a batch          ▲
               └──▶ encoder threads ──────────┘
                      a batch each

The look-up of one batch runs while the encoders are at the one before, and each encoder finds
its next batch waiting.  A content that is being embedded is not embedded a second time: its
copies wait for it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from es_imgsearch.errors import ReadError
from es_imgsearch.recent import batches
from es_imgsearch.records import Picture
from es_imgsearch.stages.encoders import PictureEncoder
from es_imgsearch.stages.jobs import Job, Result
from es_imgsearch.stages.vectors import VectorSource


class EmbedStage:
    """Threads that look up and embed; `loops` are what they run.

    `encoders` are called from one thread each.  `all_read` says that no file is being read, so
    that an incomplete batch need not wait for more.  `begin` is called before the first look-up.
    """

    def __init__(
        self,
        source: VectorSource,
        encoders: Sequence[PictureEncoder],
        *,
        batch_size: int,
        wait_seconds: float,
        all_read: Callable[[], bool],
        begin: Callable[[], None],
        on_embedded: Callable[[Sequence[Result]], None],
        on_error: Callable[[Job, ReadError], None],
        stopping: threading.Event,
        warm_up: bool = False,
    ) -> None:
        self._source = source
        self._encoders = encoders
        self._begin = begin
        self._on_embedded = on_embedded
        self._on_error = on_error
        self._stopping = stopping
        self._warm_up = warm_up
        self._arrived: queue.SimpleQueue[tuple[Job, Picture] | None] = queue.SimpleQueue()
        self._fresh: queue.SimpleQueue[Picture | None] = queue.SimpleQueue()
        self._looked_up = batches(
            self._arrived, batch_size, wait_seconds, lambda: self._arrived.empty() and all_read()
        )
        # What waits here has waited for its batch already.
        self._batches = batches(self._fresh, batch_size, 0.0)
        # One encoder at a time collects its batch, or idle ones would tear it to pieces.
        self._collecting = threading.Lock()
        self._lock = threading.Lock()
        # Those that want the vector of a content that is being embedded, by content.
        self._waiting: dict[str, list[tuple[Job, Picture]]] = {}

    def loops(self) -> dict[str, Callable[[], None]]:
        """What each thread runs, by its name."""
        embed = {
            f"embed-{number}": partial(self._embed_loop, encoder)
            for number, encoder in enumerate(self._encoders, 1)
        }
        return {"look-up": self._look_up_loop, **embed}

    def put(self, job: Job, picture: Picture) -> None:
        self._arrived.put((job, picture))

    def end(self) -> None:
        """Nothing more comes; every thread ends, the encoders' after the batch they are at."""
        self._arrived.put(None)
        for _ in self._encoders:
            self._fresh.put(None)

    def abandon(self) -> None:
        """Give up what the encoders are at; returns when no thread is inside a model."""
        for encoder in self._encoders:
            encoder.abandon()

    def _look_up_loop(self) -> None:
        self._begin()
        while self._look_up_next():
            pass

    def _look_up_next(self) -> bool:
        batch = next(self._looked_up, None)
        if batch is None or self._stopping.is_set():
            return False
        self._look_up(batch)
        return True

    def _look_up(self, batch: Sequence[tuple[Job, Picture]]) -> None:
        with self._lock:
            wanted = {each.content_id for _, each in batch} - self._waiting.keys()
        known = self._source.known(wanted)
        found: list[Result] = []
        for job, picture in batch:
            content_id = picture.content_id
            with self._lock:
                waiting = self._waiting.get(content_id)
                # What was being embedded before the look-up may be done by now.
                embedded = known.get(content_id) or self._source.recent(content_id)
                if embedded is not None:
                    found.append(Result(job, picture, embedded))
                elif waiting is not None:
                    waiting.append((job, picture))
                else:
                    self._waiting[content_id] = [(job, picture)]
                    self._fresh.put(picture)
        if found:
            self._on_embedded(found)

    def _embed_loop(self, encoder: PictureEncoder) -> None:
        try:
            if self._warm_up and not self._stopping.is_set():
                encoder.warm_up()
            while self._embed_next(encoder):
                pass
        finally:
            encoder.end()

    def _embed_next(self, encoder: PictureEncoder) -> bool:
        with self._collecting:
            batch = next(self._batches, None)
        if batch is None or self._stopping.is_set():
            return False
        self._embed(batch, encoder)
        return True

    def _embed(self, pictures: Sequence[Picture], encoder: PictureEncoder) -> None:
        started = time.perf_counter()
        found, errors = self._source.embedded(pictures, encoder)
        embed_ms = (time.perf_counter() - started) * 1000 / len(pictures)
        results: list[Result] = []
        for picture in pictures:
            content_id = picture.content_id
            with self._lock:
                (first, *copies) = self._waiting.pop(content_id)
            if content_id in errors:
                for job, _ in (first, *copies):
                    self._on_error(job, errors[content_id])
            else:
                results.append(Result(*first, found[content_id], embed_ms))
                results += [Result(*copy, found[content_id]) for copy in copies]
        if results:
            self._on_embedded(results)
