"""Where vectors come from: what was embedded lately, what is stored, and the encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.errors import ImgSearchError, ReadError
from es_imgsearch.recent import Recent
from es_imgsearch.records import Picture

logger = logging.getLogger(__name__)

# Vectors written in the last seconds cannot be searched yet, so they are kept here; 4,096 of
# 512 dims are 8 MB and outlast a refresh (1 s) at any speed an encoder reaches.
_RECENT_VECTORS = 4096

Vector = npt.NDArray[np.float32]


class VectorSource:
    """Vectors by content id; used by one thread.

    `stored` looks contents up in the index.
    """

    def __init__(
        self, encoder: Encoder, stored: Callable[[Sequence[str]], dict[str, Vector]]
    ) -> None:
        self._encoder = encoder
        self._stored = stored
        self._recent: Recent[Vector] = Recent(_RECENT_VECTORS)

    def warm_up(self) -> None:
        """Load the model now, so that the first picture does not wait for it."""
        wanted = self._encoder.preparation
        self._encoder.embed_images(np.zeros((1, wanted.height, wanted.width, 3), np.uint8))

    def known(self, content_ids: set[str]) -> dict[str, Vector]:
        """Those that need no encoder: embedded lately, or stored; one look-up for all."""
        known = {
            content_id: vector
            for content_id in content_ids
            if (vector := self._recent.get(content_id)) is not None
        }
        unknown = sorted(content_ids - known.keys())
        return known | self._stored(unknown) if unknown else known

    def embedded(
        self, pictures: Sequence[Picture]
    ) -> tuple[dict[str, Vector], dict[str, ReadError]]:
        """Vectors of these pictures by content, and the errors of those that have none."""
        errors: dict[str, ReadError] = {}
        vectors = self._embed(pictures, errors)
        for content_id, vector in vectors.items():
            self._recent.keep(content_id, vector)
        return vectors, errors

    def _embed(
        self, pictures: Sequence[Picture], errors: dict[str, ReadError]
    ) -> dict[str, Vector]:
        """Vectors by content; a batch that fails is halved until the culprit stands alone."""
        try:
            vectors = self._encoder.embed_images(np.stack([each.pixels for each in pictures]))
        except ImgSearchError:
            raise
        except Exception as error:
            if len(pictures) > 1:
                middle = len(pictures) // 2
                return self._embed(pictures[:middle], errors) | self._embed(
                    pictures[middle:], errors
                )
            logger.exception("The encoder cannot embed a picture.")
            errors[pictures[0].content_id] = ReadError(
                "embed_failed", f"{type(error).__name__}: {error}"[:400]
            )
            return {}
        found: dict[str, Vector] = {}
        for picture, vector in zip(pictures, vectors, strict=True):
            if np.isfinite(vector).all() and np.any(vector):
                found[picture.content_id] = vector
            else:
                errors[picture.content_id] = ReadError(
                    "embed_failed", "The encoder gave a vector that is zero or not finite."
                )
        return found
