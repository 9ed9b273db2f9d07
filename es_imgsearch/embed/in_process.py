"""The picture side of an encoder, as the pipeline asks it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

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


class OneAtATime:
    """An encoder in this process that several threads ask in turn: describers ask it for texts.

    Everything else is as the encoder has it.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._lock = threading.Lock()
        self._abandoned = False

    def abandon(self) -> None:
        """Raise Stopped to whoever asks from now on; returns when no thread is inside the model.

        A thread that is in the middle of C++ when the interpreter ends takes the process down with
        SIGABRT.
        """
        is_waited_for = self._abandoned
        self._abandoned = True
        if not is_waited_for and self._lock.acquire(timeout=_MODEL_SECONDS):
            self._lock.release()

    def __getattr__(self, name: str) -> Any:
        if name not in {"embed_images", "embed_texts", "embed_with_fields", "truncated"}:
            return getattr(self.encoder, name)
        method = getattr(self.encoder, name)

        def alone(*given: Any) -> Any:
            with self._lock:
                if self._abandoned:
                    raise Stopped
                return method(*given)

        return alone


class EncoderHere:
    """An encoder in this process."""

    def __init__(self, shared: OneAtATime) -> None:
        self._shared = shared
        self._encoder = cast("Encoder", shared)
        # From Python 3.12 on a protocol is looked up without `__getattr__`.
        self._gives_fields = isinstance(shared.encoder, FieldEncoder)

    def outputs(self, pixels: Pixels) -> Outputs:
        """Raises EmbedFailed where the encoder gives anything but a vector a picture."""
        fields: Sequence[Mapping[str, Any]] = [{}] * len(pixels)
        if self._gives_fields:
            vectors, fields = cast("FieldEncoder", self._encoder).embed_with_fields(pixels)
        else:
            vectors = self._encoder.embed_images(pixels)
        if len(fields) != len(pixels):
            raise EmbedFailed(
                f"Encoder {self._encoder.name!r} gave fields of {len(fields)} pictures where"
                f" {len(pixels)} were asked for."
            )
        return Outputs(checked(vectors, len(pixels), self._shared.encoder), fields)

    def warm_up(self) -> None:
        wanted = self._encoder.preparation
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
