"""Look up the vectors of pictures that were read, or embed them.

    put ──▶ look-up thread ──────────────▶ emit
               │ one look-up a batch          ▲
               └──▶ encoder threads ──────────┘
                      a batch each

One batch is looked up while the encoders embed the batch before it, and each encoder finds its
next batch waiting.  A content that is being embedded is not embedded a second time: its copies
wait for the vector.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from es_imgsearch.embed.in_process import PictureEncoder
from es_imgsearch.errors import ReadError
from es_imgsearch.pipeline.jobs import EmbedResult, Job, Unembedded
from es_imgsearch.pipeline.queues import batches
from es_imgsearch.pipeline.vector_source import VectorSource
from es_imgsearch.read.file import Skipped
from es_imgsearch.records import Picture


class EmbedStage:
    """Look up and embed pictures in threads that run `loops`.

    Each encoder is called from one thread.  `all_read` returns True if no file is being read, so
    that an incomplete batch need not wait for more.  `emit` gets every file that was put, with or
    without a vector, from any of the threads or from the one that calls `put`.
    """

    def __init__(
        self,
        source: VectorSource,
        encoders: Sequence[PictureEncoder],
        *,
        batch_size: int,
        wait_seconds: float,
        all_read: Callable[[], bool],
        emit: Callable[[Sequence[EmbedResult | Unembedded]], None],
        stopping: threading.Event,
        warm_up: bool = False,
    ) -> None:
        self._source = source
        self._encoders = encoders
        self._emit = emit
        self._stopping = stopping
        self._warm_up = warm_up
        self._arrived: queue.SimpleQueue[tuple[Job, Picture] | None] = queue.SimpleQueue()
        self._fresh: queue.SimpleQueue[Picture | None] = queue.SimpleQueue()
        self._looked_up = batches(
            self._arrived, batch_size, wait_seconds, lambda: self._arrived.empty() and all_read()
        )
        # No wait: these pictures have waited for their look-up batch already.
        self._batches = batches(self._fresh, batch_size, 0.0)
        # One encoder at a time collects a batch, or idle encoders would split it among them.
        self._collecting = threading.Lock()
        self._lock = threading.Lock()
        # Jobs that wait for the vector of a content that is being embedded, by content id.
        self._waiting: dict[str, list[tuple[Job, Picture]]] = {}

    def loops(self) -> dict[str, Callable[[], None]]:
        """Return the function of each thread, by the thread's name."""
        embed = {
            f"embed-{number}": partial(self._embed_loop, encoder)
            for number, encoder in enumerate(self._encoders, 1)
        }
        return {"look-up": self._look_up_loop, **embed}

    def put(self, job: Job, outcome: Picture | Skipped | ReadError) -> None:
        """Queue a picture for the look-up; pass on a file that is none."""
        if isinstance(outcome, Picture):
            self._arrived.put((job, outcome))
        else:
            self._emit([Unembedded(job, outcome)])

    def close(self) -> None:
        """End every thread; an encoder's ends after its current batch."""
        self._arrived.put(None)
        for _ in self._encoders:
            self._fresh.put(None)

    def abandon(self) -> None:
        """Abandon the encoders' current batches; return when no thread is inside a model."""
        for encoder in self._encoders:
            encoder.abandon()

    def _look_up_loop(self) -> None:
        while self._look_up_next():
            pass

    def _look_up_next(self) -> bool:
        batch = next(self._looked_up, None)
        if batch is None or self._stopping.is_set():
            return False
        self.look_up(batch)
        return True

    def look_up(self, batch: Sequence[tuple[Job, Picture]]) -> None:
        """Pass on pictures whose vectors are stored; queue the others for the encoders."""
        with self._lock:
            content_ids = {each.content_id for _, each in batch} - self._waiting.keys()
        stored = self._source.look_up(content_ids)
        results: list[EmbedResult] = []
        for job, picture in batch:
            content_id = picture.content_id
            with self._lock:
                waiting = self._waiting.get(content_id)
                # A content that was being embedded before the look-up may be done by now.
                embedded = stored.get(content_id) or self._source.recent(content_id)
                if embedded is not None and picture.tiles and not embedded.regions:
                    # Stored without its regions, as an import may do it.
                    embedded = None
                if embedded is not None:
                    results.append(EmbedResult(job, picture, embedded))
                elif waiting is not None:
                    waiting.append((job, picture))
                else:
                    self._waiting[content_id] = [(job, picture)]
                    self._fresh.put(picture)
        if results:
            self._emit(results)

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
        self.embed(batch, encoder)
        return True

    def embed(self, pictures: Sequence[Picture], encoder: PictureEncoder) -> None:
        """Embed a batch; pass on every file that waits for one of its contents."""
        started = time.perf_counter()
        vectors, errors = self._source.embed(pictures, encoder)
        embed_ms = (time.perf_counter() - started) * 1000 / len(pictures)
        results: list[EmbedResult | Unembedded] = []
        for picture in pictures:
            content_id = picture.content_id
            with self._lock:
                (first, *copies) = self._waiting.pop(content_id)
            if content_id in errors:
                results += [Unembedded(job, errors[content_id]) for job, _ in (first, *copies)]
            else:
                results.append(EmbedResult(*first, vectors[content_id], embed_ms))
                results += [EmbedResult(*copy, vectors[content_id]) for copy in copies]
        self._emit(results)
