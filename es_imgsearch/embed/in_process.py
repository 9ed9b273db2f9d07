"""The picture side of an encoder, as the pipeline asks it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np

from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.embed.protocol import Encoder, FieldEncoder, Pixels, Vectors
from es_imgsearch.embed.reduction import checked
from es_imgsearch.embed.runtime.network import sample_pictures
from es_imgsearch.embed.weights import first_line
from es_imgsearch.errors import EmbedFailed, EncodersFailed, ImgSearchError, ReadError

logger = logging.getLogger(__name__)

# What a model may take for the batch it is at, which cannot be ended.
_MODEL_SECONDS = 30.0
_EXAMPLES = 3


class Outputs(NamedTuple):
    """Vectors of shape (n, dims), and the fields that the encoder gives, of n pictures."""

    vectors: Vectors
    fields: Sequence[Mapping[str, Any]]


class PictureEncoder(Protocol):
    """Takes arrays of shape (n, height, width, 3), in one thread at a time."""

    def outputs(self, pixels: Pixels) -> Outputs: ...

    def warm_up(self) -> None:
        """Load the model now, so that the first picture does not wait for it.

        Raises EncodersFailed where it cannot be loaded, or the encoder's own ImgSearchError.
        """

    def end(self) -> None:
        """No more comes; called by the thread that calls `outputs`."""

    def abandon(self) -> None:
        """Whatever it is at is not wanted any more; from any thread."""


class SharedEncoder:
    """An encoder that several threads use, one at a time: describers embed texts with it."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.name = encoder.name
        self.revision = encoder.revision
        self.dims = encoder.dims
        self.similarity = encoder.similarity
        self.preparation = encoder.preparation
        self.fingerprint = encoder.fingerprint
        self.supports_text = encoder.supports_text
        self._lock = threading.Lock()
        self._abandoned = False

    def embed_images(self, pictures: Pixels) -> Vectors:
        """As the encoder does; raises Stopped after `abandon`, as the next two."""
        with self._alone():
            return self.encoder.embed_images(pictures)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        with self._alone():
            return self.encoder.embed_texts(texts)

    def outputs(self, pictures: Pixels) -> Outputs:
        """Vectors, with fields if the encoder gives any."""
        if not isinstance(self.encoder, FieldEncoder):
            return Outputs(self.embed_images(pictures), [{}] * len(pictures))
        with self._alone():
            return Outputs(*self.encoder.embed_with_fields(pictures))

    def abandon(self) -> None:
        """Raise Stopped in every later call; returns when no thread is inside the model.

        A thread that is in the middle of C++ when the interpreter ends takes the process down with
        SIGABRT.
        """
        is_waited_for = self._abandoned
        self._abandoned = True
        if not is_waited_for and self._lock.acquire(timeout=_MODEL_SECONDS):
            self._lock.release()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock:
            if self._abandoned:
                raise Stopped
            yield


class InProcessEncoder:
    """An encoder in this process."""

    def __init__(self, shared: SharedEncoder) -> None:
        self._shared = shared

    def outputs(self, pixels: Pixels) -> Outputs:
        """Raises EmbedFailed where the encoder gives anything but a vector a picture."""
        vectors, fields = self._shared.outputs(pixels)
        if len(fields) != len(pixels):
            raise EmbedFailed(
                f"Encoder {self._shared.name!r} gave fields of {len(fields)} pictures where"
                f" {len(pixels)} were asked for."
            )
        return Outputs(checked(vectors, len(pixels), self._shared.encoder), fields)

    def warm_up(self) -> None:
        wanted = self._shared.preparation
        check_embeds(self, examples_of(wanted.height, wanted.width))

    def end(self) -> None:
        """The model goes with the process."""

    def abandon(self) -> None:
        self._shared.abandon()


def is_no_pictures_fault(error: Exception) -> bool:
    """Whether what an encoder raised ends the run, whatever was given to it."""
    return isinstance(error, (ImgSearchError, Stopped)) and not isinstance(
        error, (EmbedFailed, ReadError)
    )


def check_embeds(encoder: PictureEncoder, examples: Iterable[Pixels]) -> Pixels | None:
    """Have one of these pictures embedded, arrays of shape (height, width, 3).

    Returns the first that has a vector of finite numbers; None where the encoder says itself of all
    that they have none, by a ReadError.  Raises EncodersFailed where it embeds none of them, or the
    encoder's own ImgSearchError.
    """
    failure: Exception | None = None
    says_so = True
    for example in examples:
        try:
            (vector,), _ = encoder.outputs(example[np.newaxis])
        except ReadError:
            continue
        except Exception as error:
            if is_no_pictures_fault(error):
                raise
            failure = error
        else:
            if np.isfinite(vector).all():
                return example
        says_so = False
    if says_so:
        return None
    if failure is None:
        raise EncodersFailed(
            "The encoder gives no picture a vector of finite numbers: is its model whole, and does"
            " it run with the setting dtype = float32?"
        )
    logger.debug("The encoder embeds nothing.", exc_info=failure)
    raise EncodersFailed(
        f"The encoder can embed no picture ({words_of(failure)}): are its model and its libraries"
        " whole, and is there memory enough?"
    ) from failure


def examples_of(height: int, width: int) -> Pixels:
    """A few pictures that are no special case for a model: not of one colour, not empty."""
    return sample_pictures(_EXAMPLES, height, width)


def words_of(error: Exception) -> str:
    """What it is and its first line, for a sentence of ours."""
    return f"{type(error).__name__}: {first_line(error)}"[:400]
