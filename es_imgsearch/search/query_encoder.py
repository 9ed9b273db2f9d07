"""The one seam between a search and a model: texts and pictures in, vectors out.

The client asks a `QueryEncoder` and nothing else.  `ModelHere` runs the model in this process; a
service that keeps one loaded would be another.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from es_imgsearch.embed.output import query_vectors
from es_imgsearch.errors import TextUnsupported
from es_imgsearch.sealing import sealed_encoder
from es_imgsearch.search.asked import Vector

if TYPE_CHECKING:
    from PIL import Image

    from es_imgsearch.embed import Encoder
    from es_imgsearch.mapping import Seal
    from es_imgsearch.settings import Settings
    from es_imgsearch.store import IndexInfo


class QueryVectors(NamedTuple):
    """Vectors of shape (n, dims) of the texts and of the pictures, unit length.

    `truncated` says of each text whether its end was beyond what the model reads.
    """

    texts: Vector
    pictures: Vector
    truncated: Sequence[bool]


class QueryEncoder(Protocol):
    """Makes the vectors of queries; may be called from any thread."""

    def embed(
        self, info: IndexInfo, texts: Sequence[str], pictures: Sequence[Image.Image]
    ) -> QueryVectors:
        """The vectors, in the space of the index.

        Pictures are upright and RGB.  Raises EncoderMismatch, ModelUnavailable, EmbedFailed, or
        TextUnsupported where there are texts and the encoder knows pictures only.
        """

    def forget(self) -> None:
        """The index may be sealed to another encoder now."""


class ModelHere:
    """The index's own encoder in this process; loads once, with the first query that needs it."""

    def __init__(self, index: str, settings: Settings, given: Encoder | None = None) -> None:
        self._index = index
        self._settings = settings
        self._given = given
        self._encoder: Encoder | None = None
        self._seal: Seal | None = None
        self._lock = threading.RLock()

    def encoder(self, info: IndexInfo) -> Encoder:
        """The encoder, checked against the index's seal."""
        with self._lock:
            # The index may have been switched to a generation of another encoder.
            if self._encoder is None or self._seal != info.meta.seal:
                self._encoder = sealed_encoder(info, self._index, self._settings, self._given)
                self._seal = info.meta.seal
            return self._encoder

    def embed(
        self, info: IndexInfo, texts: Sequence[str], pictures: Sequence[Image.Image]
    ) -> QueryVectors:
        """See `QueryEncoder.embed`."""
        encoder = self.encoder(info)
        if texts and not encoder.supports_text:
            raise TextUnsupported(
                f"Encoder {encoder.name!r} of index {self._index!r} knows pictures only: search"
                " with a picture, or for the words stored with mode 'text'."
            )
        pixels = [encoder.preparation.apply(picture) for picture in pictures]
        nothing = np.empty((0, encoder.dims), dtype=np.float32)
        # An encoder need not be safe to use from two threads.
        with self._lock:
            return QueryVectors(
                query_vectors(encoder, encoder.embed_texts, list(texts)) if texts else nothing,
                query_vectors(encoder, encoder.embed_images, np.stack(pixels))
                if pixels
                else nothing,
                _truncated(encoder, texts),
            )

    def forget(self) -> None:
        """See `QueryEncoder.forget`."""
        with self._lock:
            self._encoder = None


def _truncated(encoder: Encoder, texts: Sequence[str]) -> list[bool]:
    # Optional, so that a plug-in need not have it: `truncated(texts) -> list[bool]`.
    told = getattr(encoder, "truncated", None)
    return list(told(list(texts))) if texts and told is not None else [False] * len(texts)
