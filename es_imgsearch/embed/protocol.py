"""What an encoder is: pictures in, unit vectors out; texts too, if it can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from es_imgsearch.pictures.preparation import Preparation

Vectors = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


@runtime_checkable
class Encoder(Protocol):
    """One model, or a pair of models that share a space.

    The properties are cheap: they never load weights.  The first call of an `embed_` method
    may load them.  Both methods may be called from any one thread at a time.

    An encoder may also have ``truncated(texts) -> list[bool]``: of each text whether it is longer
    than the model reads, which a search then says; ``batch_size``, how many pictures `embed_images`
    wants at once (16 if it does not say); ``spec``, what finds it on this machine where its name
    alone does not: the name with whole paths; and what `FieldEncoder` adds.

    A plug-in's vectors are not taken on trust, see `output`: what has another shape fails, and what
    has another length is brought to unit length.
    """

    @property
    def name(self) -> str:
        """What `--encoder` finds it by; kept in the index, but no part of its identity."""

    @property
    def revision(self) -> str:
        """Changes whenever the weights do."""

    @property
    def dims(self) -> int:
        """Length of every vector; Elasticsearch takes 1 to 4096."""

    @property
    def similarity(self) -> str:
        """The similarity the model was trained for; ours are all `cosine`."""

    @property
    def preparation(self) -> Preparation:
        """How the reading workers shrink a picture for `embed_images`."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything but the weights that changes a vector."""

    @property
    def supports_text(self) -> bool:
        """False for image-only encoders, whose `embed_texts` raises TextUnsupported."""

    def embed_images(self, pictures: Pixels) -> Vectors:
        """Vectors of shape (n, dims), unit length, of pictures of shape (n, height, width, 3)."""

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Vectors of shape (n, dims), unit length, in the same space as the pictures."""


@runtime_checkable
class FieldEncoder(Protocol):
    """What an encoder has besides if it gives fields of the document along with the vectors.

    The fields are stored with the vector, and reused with it for copies and renamed files.
    """

    @property
    def fields(self) -> Sequence[str]:
        """Names of the fields it may give; the index must have them (docs/reference/fields.md)."""

    def embed_with_fields(self, pictures: Pixels) -> tuple[Vectors, Sequence[Mapping[str, Any]]]:
        """What `embed_images` gives, and the fields of each of the n pictures."""
