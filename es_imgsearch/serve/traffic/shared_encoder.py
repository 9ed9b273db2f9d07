"""One model for all requests: queries that come at once are encoded in one call.

    thread 1 ──┐                         ┌── texts and pictures of all who wait: one call
    thread 2 ──┼──▶ queue ──one thread───┤
    thread 3 ──┘                         └── vectors of texts: kept, the last 4096 (LRU)

Nobody waits for a batch to fill: the first query is encoded at once, and those that come meanwhile
are the next batch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import numpy as np

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.errors import (
    EXIT_UNREACHABLE,
    EncoderMismatch,
    EncoderUnknown,
    ImgSearchError,
    LibraryMissing,
    ModelUnavailable,
)
from es_imgsearch.search.query import Vector
from es_imgsearch.search.query_vectors import QueryEncoder, QueryVectors
from es_imgsearch.serve.traffic.stages import timed

if TYPE_CHECKING:
    from PIL import Image

    from es_imgsearch.elastic.meta import Seal

_T = TypeVar("_T")
# Of 512 float32 each, 8 MB.
_MOST_KEPT: Final = 4096
# Texts and pictures in one call of the model: 64 pictures of 224 x 224 pixels take 10 MB.
_LARGEST_BATCH: Final = 64
_MOST_WAITING: Final = 64
_NOTHING: Final = np.empty(0, dtype=np.float32)
# No query is the cause: encoding them one by one would fail as often as there are queries.
_NOT_OF_A_QUERY: Final = (EncoderMismatch, EncoderUnknown, LibraryMissing, ModelUnavailable)


class EncodingsQueued(ImgSearchError):
    """As many queries wait for the model as may; asked again later, this one works."""

    transient = True
    exit_code = EXIT_UNREACHABLE


class TextVector(NamedTuple):
    """The vector of a text, and whether the model read only its beginning."""

    vector: Vector
    is_truncated: bool


class _TextVectors:
    """The vectors of the texts asked for last.  Thread-safe.

    A key has the generation of the index and its encoder's seal, so that a vector of another
    encoder is never found.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, Seal, str], TextVector] = OrderedDict()

    def get(self, info: IndexInfo, text: str) -> TextVector | None:
        key = (info.name, info.meta.seal, text)
        with self._lock:
            if (found := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, info: IndexInfo, text: str, vector: TextVector) -> None:
        with self._lock:
            self._kept[info.name, info.meta.seal, text] = vector
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()


@dataclass(slots=True, eq=False)
class _Asked:
    """What one thread wants encoded; then its vectors, or the error."""

    info: IndexInfo
    texts: Sequence[str]
    pictures: Sequence[Image.Image]
    text_vectors: Mapping[str, TextVector] = field(default_factory=dict)
    picture_vectors: Sequence[Vector] = ()
    error: BaseException | None = None
    is_done: bool = False

    def __len__(self) -> int:
        return len(self.texts) + len(self.pictures)


class SharedQueryEncoder:
    """A `QueryEncoder` for many threads; see above."""

    def __init__(
        self, model: QueryEncoder, *, most_kept: int = _MOST_KEPT, most_waiting: int = _MOST_WAITING
    ) -> None:
        """Encode by `model`; refuse once `most_waiting` threads wait."""
        self._model = model
        self._most_waiting = most_waiting
        self._kept = _TextVectors(most_kept)
        self._changed = threading.Condition()
        self._queue: list[_Asked] = []
        self._is_encoding = False
        # For the metrics: texts that were found, queries that were encoded, calls of the model.
        self.hits = self.encoded = self.calls = 0

    @property
    def waiting(self) -> int:
        """How many threads wait for the model, besides the one that it works for."""
        return len(self._queue)

    def embed(
        self, info: IndexInfo, texts: Sequence[str], pictures: Sequence[Image.Image]
    ) -> QueryVectors:
        """Embed texts and pictures; see `QueryEncoder.embed`.

        Raises EncodingsQueued, too.
        """
        if len(texts) + len(pictures) > _LARGEST_BATCH:
            return self._embed_parts(info, texts, pictures)
        with timed("encode"):
            found = {text: each for text in texts if (each := self._kept.get(info, text))}
            missing = [text for text in dict.fromkeys(texts) if text not in found]
            with self._changed:
                self.hits += len(found)
            asked = _Asked(info, missing, pictures)
            if len(asked):
                self._wait_for(asked)
        found.update(asked.text_vectors)
        nothing = np.empty((0, info.meta.seal.dims), dtype=np.float32)
        return QueryVectors(
            np.stack([found[text].vector for text in texts]) if texts else nothing,
            np.stack(asked.picture_vectors) if pictures else nothing,
            [found[text].is_truncated for text in texts],
        )

    def _embed_parts(
        self, info: IndexInfo, texts: Sequence[str], pictures: Sequence[Image.Image]
    ) -> QueryVectors:
        """Embed more than one call takes, one call after another."""
        parts = [
            *(self.embed(info, each, ()) for each in _parts(texts)),
            *(self.embed(info, (), each) for each in _parts(pictures)),
        ]
        return QueryVectors(
            np.concatenate([each.texts for each in parts]),
            np.concatenate([each.pictures for each in parts]),
            [truncated for each in parts for truncated in each.truncated],
        )

    def forget(self) -> None:
        """Check the encoder again before the next use; see `QueryEncoder.forget`."""
        self._model.forget()
        self._kept.clear()

    def _wait_for(self, asked: _Asked) -> None:
        with self._changed:
            if len(self._queue) >= self._most_waiting:
                raise EncodingsQueued(
                    f"{len(self._queue)} queries wait for the model already: ask again in a few"
                    " seconds."
                )
            self._queue.append(asked)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: asked.is_done or not self._is_encoding)
                if asked.is_done:
                    break
                batch = self._next_batch()
                self._is_encoding = True
            try:
                self._encode(batch)
            finally:
                with self._changed:
                    self._is_encoding = False
                    self._changed.notify_all()
        if asked.error is not None:
            raise asked.error

    def _next_batch(self) -> list[_Asked]:
        """Take the longest waiting ones that one call of one encoder may embed."""
        first = self._queue[0]
        batch: list[_Asked] = []
        for each in self._queue:
            size = sum(map(len, batch)) + len(each)
            if each.info.meta.seal == first.info.meta.seal and size <= _LARGEST_BATCH:
                batch.append(each)
        self._queue = [each for each in self._queue if each not in batch]
        return batch

    def _encode(self, batch: Sequence[_Asked]) -> None:
        """Encode in one call; after an error each alone, so that only its cause fails."""
        try:
            self._encode_together(batch)
        except Exception as error:  # noqa: BLE001 - raised in the threads that asked
            if len(batch) == 1 or isinstance(error, _NOT_OF_A_QUERY):
                self._fail(batch, error)
                return
            for each in batch:
                self._encode([each])
        except BaseException as error:
            self._fail(batch, error)
            raise

    def _encode_together(self, batch: Sequence[_Asked]) -> None:
        info = batch[0].info
        texts = list(dict.fromkeys(text for each in batch for text in each.texts))
        # Another thread may have asked for it meanwhile.
        vectors = {text: found for text in texts if (found := self._kept.get(info, text))}
        missing = [text for text in texts if text not in vectors]
        pictures = [picture for each in batch for picture in each.pictures]
        encoded = QueryVectors(_NOTHING, _NOTHING, ())
        if missing or pictures:
            self.calls += 1
            encoded = self._model.embed(info, missing, pictures)
            self.encoded += len(missing) + len(pictures)
        for text, row, is_truncated in zip(missing, encoded.texts, encoded.truncated, strict=True):
            # A copy: a row would keep the array of its batch in memory.
            vector = row.copy()
            vector.flags.writeable = False
            vectors[text] = TextVector(vector, is_truncated)
            self._kept.put(info, text, vectors[text])
        of_pictures = iter(encoded.pictures)
        for each in batch:
            each.text_vectors = vectors
            each.picture_vectors = [next(of_pictures) for _ in each.pictures]
            each.is_done = True

    @staticmethod
    def _fail(batch: Sequence[_Asked], error: BaseException) -> None:
        for each in batch:
            each.error, each.is_done = error, True


def _parts(queries: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(queries), _LARGEST_BATCH):
        yield queries[start : start + _LARGEST_BATCH]
