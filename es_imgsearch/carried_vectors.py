"""Vectors for documents that are carried: those of the target, or new ones of the originals."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from functools import partial
from typing import Any, TypeAlias

from es_imgsearch.embed import Encoder, batch_size
from es_imgsearch.encoders import EncoderHere
from es_imgsearch.errors import ReadError, ReadersFailed
from es_imgsearch.mapping import Meta
from es_imgsearch.read import Skipped
from es_imgsearch.records import Embedded, Picture, disk_path
from es_imgsearch.roots import registered_root
from es_imgsearch.settings import Settings
from es_imgsearch.store import Store
from es_imgsearch.vectors import VectorSource
from es_imgsearch.workers import Outcome, ReadPlan, ReadWorkers

# Why a picture of the source is not in the target.
GONE = "original is not there"
CHANGED = "original has changed"
ELSEWHERE = "original is not on this machine"

Document: TypeAlias = dict[str, Any]
# What became of a document: its vector, the error of a failure, or why there is nothing to read.
Made: TypeAlias = Embedded | ReadError | str


class CarriedVectors:
    """Vectors of documents: from the target by content, or from their originals on this machine.

    Reading goes ahead of the encoder by as many files as `queue_size` says.
    """

    def __init__(self, target: Store, meta: Meta, encoder: Encoder, settings: Settings) -> None:
        grid = meta.grid
        self._settings = settings
        self._encoder = EncoderHere(encoder)
        self._batch_size = batch_size(encoder, settings.batch_size)
        self._vectors = VectorSource(
            encoder,
            partial(target.embedded_by_content, with_regions=grid is not None),
            self._batch_size,
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
        self.pictures = 0
        self.begin(meta)

    def begin(self, meta: Meta) -> None:
        """Begin a pass with these roots; what one before it left unfinished is forgotten."""
        self._meta = meta
        self._read: queue.SimpleQueue[tuple[Document, Outcome]] = queue.SimpleQueue()
        self._in_flight = 0
        # Documents of the same content wait for the first of them, by what it is read as.
        self._waiting: dict[str, list[Document]] = {}
        # What was embedded since the index was last asked what it has.
        self._made: dict[str, Embedded] = {}

    def close(self) -> None:
        if self._workers is not None:
            self._workers.close()

    def of(self, documents: Iterator[Document]) -> Iterator[tuple[Document, Made]]:
        """These documents or earlier ones, with what became of them."""
        page = list(documents)
        contents = {each["content_id"] for each in page if "content_id" in each}
        self._made = self._vectors.known(contents - self._waiting.keys())
        for document in page:
            if (found := self._made.get(_key(document))) is not None:
                yield document, found
            elif (key := _key(document)) in self._waiting:
                self._waiting[key].append(document)
            elif self._path(document) is None:
                yield document, ELSEWHERE
            else:
                while self._in_flight >= self._settings.queue_size:
                    yield from self._embed()
                self._waiting[key] = [document]
                self._submit(document)

    def rest(self) -> Iterator[tuple[Document, Made]]:
        """The same for all that is still on its way."""
        while self._in_flight:
            yield from self._embed()

    def _path(self, document: Document) -> str | None:
        root = registered_root(document["root"], self._meta)
        if root is None or self._meta.roots[root.name]["host"] != self._settings.host:
            return None
        return root.absolute(disk_path(document["relative_path"]))

    def _submit(self, document: Document) -> None:
        if self._workers is None:
            self._workers = ReadWorkers(self._plan, self._settings.read_workers)
        self._in_flight += 1
        path, read = self._path(document), self._read
        self._workers.read(str(path), lambda outcome: read.put((document, outcome)))

    def _embed(self) -> Iterator[tuple[Document, Made]]:
        """Wait for a batch of files that were read, and give what became of them."""
        batch: dict[str, Picture] = {}
        while self._in_flight and len(batch) < self._batch_size:
            document, outcome = self._read.get()
            self._in_flight -= 1
            key = _key(document)
            if isinstance(outcome, ReadersFailed):
                raise outcome
            if isinstance(outcome, Picture) and outcome.content_id == document.get(
                "content_id", outcome.content_id
            ):
                batch[key] = outcome
                continue
            yield document, _reason(outcome)
            # Perhaps a copy of it is as it was.
            others = self._waiting.pop(key)[1:]
            if others:
                self._waiting[key] = others
                self._submit(others[0])
        if not batch:
            return
        embedded, errors = self._vectors.embedded(list(batch.values()), self._encoder)
        self.pictures += len(embedded)
        self._made |= embedded
        for key, picture in batch.items():
            found = embedded.get(picture.content_id)
            for document in self._waiting.pop(key):
                yield document, errors[picture.content_id] if found is None else found


def _key(document: Document) -> str:
    """What is read once: a content, or a picture whose content nobody noted."""
    return str(document.get("content_id") or document["image_id"])


def _reason(outcome: Outcome) -> ReadError | str:
    if isinstance(outcome, ReadError):
        return outcome
    return GONE if outcome is Skipped.GONE else CHANGED
