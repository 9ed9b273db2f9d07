"""Embed pictures for the pipeline: one thread at a time, with checked output."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np

from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.embed.protocol import Encoder, FieldEncoder, Pixels, Vectors
from es_imgsearch.embed.reduced_encoder import check_output
from es_imgsearch.embed.runtime.network import sample_pictures
from es_imgsearch.embed.weights import first_line
from es_imgsearch.errors import EmbedFailed, EncodersFailed, ImgSearchError, ReadError

logger = logging.getLogger(__name__)

# Time for a model to finish its batch, which cannot be interrupted.
_MODEL_SECONDS = 30.0
_EXAMPLES = 3


class EncoderOutput(NamedTuple):
    """Vectors of shape (n, dims), and the encoder's fields, of n pictures."""

    vectors: Vectors
    fields: Sequence[Mapping[str, Any]]


class PictureEncoder(Protocol):
    """Encoder of arrays (n, height, width, 3); called by one thread at a time."""

    def outputs(self, pixels: Pixels) -> EncoderOutput: ...

    def warm_up(self) -> None:
        """Load the model now, so that the first picture does not wait for it.

        Raises EncodersFailed if it cannot be loaded, or the encoder's own ImgSearchError.
        """

    def end(self) -> None:
        """Release the model after the last batch.

        Called by the thread that calls `outputs`.
        """

    def abandon(self) -> None:
        """Give up the batch in progress; may be called by any thread."""


class InProcessEncoder:
    """An encoder in this process, used by one thread at a time.

    It is also the `TextEncoder` that describers embed texts with, from a thread of their own.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.name = encoder.name
        self.revision = encoder.revision
        self.dims = encoder.dims
        self.fingerprint = encoder.fingerprint
        self.supports_text = encoder.supports_text
        self._lock = threading.Lock()
        self._abandoned = False

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed as the encoder does.  Raises Stopped after `abandon`, as `outputs` does."""
        with self._exclusive():
            return self.encoder.embed_texts(texts)

    def outputs(self, pixels: Pixels) -> EncoderOutput:
        """Embed, with fields if the encoder returns any.

        Raises EmbedFailed if the output is not one vector, and one set of fields, for each picture.
        """
        fields: Sequence[Mapping[str, Any]] = [{}] * len(pixels)
        with self._exclusive():
            if isinstance(self.encoder, FieldEncoder):
                vectors, fields = self.encoder.embed_with_fields(pixels)
            else:
                vectors = self.encoder.embed_images(pixels)
        if len(fields) != len(pixels):
            raise EmbedFailed(
                f"Encoder {self.name!r} returned fields of {len(fields)} pictures for a batch of"
                f" {len(pixels)}."
            )
        return EncoderOutput(check_output(vectors, len(pixels), self.encoder), fields)

    def warm_up(self) -> None:
        size = self.encoder.preparation
        check_embeds(self, example_pictures(size.height, size.width))

    def end(self) -> None:
        """Do nothing: the model ends with the process."""

    def abandon(self) -> None:
        """Raise Stopped in every later call; returns when no thread is inside the model.

        A thread that is in the middle of C++ when the interpreter ends takes the process down with
        SIGABRT.
        """
        waits_already = self._abandoned
        self._abandoned = True
        if not waits_already and self._lock.acquire(timeout=_MODEL_SECONDS):
            self._lock.release()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._lock:
            if self._abandoned:
                raise Stopped
            yield


def is_fatal(error: Exception) -> bool:
    """Return True if an encoder's error ends the run: no single picture causes it."""
    return isinstance(error, (ImgSearchError, Stopped)) and not isinstance(
        error, (EmbedFailed, ReadError)
    )


def check_embeds(encoder: PictureEncoder, examples: Iterable[Pixels]) -> Pixels | None:
    """Check that one of these pictures, of shape (height, width, 3), can be embedded.

    Returns the first with a vector of finite numbers; None if the encoder reports a ReadError for
    each.  Raises EncodersFailed if it embeds none of them, or the encoder's own ImgSearchError.
    """
    failure: Exception | None = None
    all_rejected = True
    for example in examples:
        try:
            (vector,), _ = encoder.outputs(example[np.newaxis])
        except ReadError:
            continue
        except Exception as error:
            if is_fatal(error):
                raise
            failure = error
        else:
            if np.isfinite(vector).all():
                return example
        all_rejected = False
    if all_rejected:
        return None
    if failure is None:
        raise EncodersFailed(
            "The encoder gives no picture a vector of finite numbers: is its model whole, and does"
            " it run with the setting dtype = float32?"
        )
    logger.debug("The encoder embeds nothing.", exc_info=failure)
    raise EncodersFailed(
        f"The encoder can embed no picture ({summarise(failure)}): are its model and its libraries"
        " whole, and is there memory enough?"
    ) from failure


def example_pictures(height: int, width: int) -> Pixels:
    """Return a few pictures that are no special case: not plain, not empty."""
    return sample_pictures(_EXAMPLES, height, width)


def summarise(error: Exception) -> str:
    """Return an error's type and first line, at most 400 characters, for a message."""
    return f"{type(error).__name__}: {first_line(error)}"[:400]
