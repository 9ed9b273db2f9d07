"""Where vectors come from: what was embedded lately, what is stored, and the encoder."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from es_imgsearch.embed.in_process import (
    PictureEncoder,
    check_embeds,
    example_pictures,
    is_fatal,
)
from es_imgsearch.embed.protocol import Encoder, FieldEncoder, Pixels, Vectors
from es_imgsearch.errors import ReadError
from es_imgsearch.pipeline.queues import Recent
from es_imgsearch.records import Embedded, Picture, Region

logger = logging.getLogger(__name__)

# Vectors written in the last seconds cannot be searched yet, so they are kept here; 4,096 of
# 512 dims are 8 MB (with 5 regions each 48 MB) and outlast a refresh (1 s) at any speed an encoder
# reaches.
_RECENT_VECTORS = 4096

# Looks contents up in the index: their vectors, with the fields that are named.
Stored = Callable[[Sequence[str], Sequence[str]], dict[str, Embedded]]


class VectorSource:
    """Vectors by content id, with the fields that the encoder gives; for any thread.

    The encoder says what is wanted; what makes the vectors is given with the pictures.
    """

    def __init__(self, encoder: Encoder, stored: Stored, most_at_once: int) -> None:
        """`most_at_once` arrays are embedded in one call, unless one picture's tiles are more."""
        self._most_at_once = most_at_once
        self._fields = encoder.fields if isinstance(encoder, FieldEncoder) else ()
        self._stored = stored
        self._recent: Recent[Embedded] = Recent(_RECENT_VECTORS)
        self._lock = threading.Lock()
        # By which an encoder that fails is told from a picture that no model could embed.
        self._last_embedded: Pixels | None = None

    def recent(self, content_id: str) -> Embedded | None:
        """What was embedded lately, whether it can be searched yet or not."""
        with self._lock:
            return self._recent.get(content_id)

    def known(self, content_ids: set[str]) -> dict[str, Embedded]:
        """Those that need no encoder: embedded lately, or stored; one look-up for all."""
        known = {
            content_id: embedded
            for content_id in content_ids
            if (embedded := self.recent(content_id)) is not None
        }
        unknown = sorted(content_ids - known.keys())
        return known | self._stored(unknown, self._fields) if unknown else known

    def embedded(
        self, pictures: Sequence[Picture], encoder: PictureEncoder
    ) -> tuple[dict[str, Embedded], dict[str, ReadError]]:
        """Vectors of these pictures by content, and the errors of those that have none.

        Raises EncodersFailed where that is not these pictures' fault.
        """
        errors: dict[str, ReadError] = {}
        vectors: dict[str, Embedded] = {}
        for part in self._parts(pictures):
            vectors |= self._embedded(part, encoder, errors)
        with self._lock:
            for content_id, vector in vectors.items():
                self._recent.keep(content_id, vector)
        return vectors, errors

    def _parts(self, pictures: Sequence[Picture]) -> Iterator[Sequence[Picture]]:
        """The pictures in calls of the encoder; without tiles a batch is one call."""
        part: list[Picture] = []
        size = 0
        for picture in pictures:
            arrays = 1 + len(picture.tiles)
            if part and size + arrays > self._most_at_once:
                yield part
                part, size = [], 0
            part.append(picture)
            size += arrays
        yield part

    def _embedded(
        self, pictures: Sequence[Picture], encoder: PictureEncoder, errors: dict[str, ReadError]
    ) -> dict[str, Embedded]:
        """Vectors by content; a batch that fails is halved until the culprit stands alone.

        Raises EncodersFailed where the encoder embeds nothing: then no picture is the culprit.
        """
        try:
            tiles = [tile.pixels for each in pictures for tile in each.tiles]
            pixels = np.stack([*(each.pixels for each in pictures), *tiles])
            vectors, fields = encoder.outputs(pixels)
        except Exception as error:
            if is_fatal(error):
                raise
            if not isinstance(error, ReadError):
                self._check(encoder, pictures)
            if len(pictures) > 1:
                middle = len(pictures) // 2
                return self._embedded(pictures[:middle], encoder, errors) | self._embedded(
                    pictures[middle:], encoder, errors
                )
            if pictures[0].tiles:
                return self._by_parts(pictures[0], encoder, errors)
            logger.exception("The encoder cannot embed a picture.")
            errors[pictures[0].content_id] = (
                error
                if isinstance(error, ReadError)
                else ReadError("embed_failed", f"{type(error).__name__}: {error}"[:400])
            )
            return {}
        found: dict[str, Embedded] = {}
        of_tiles = iter(vectors[len(pictures) :])
        for picture, vector, given in zip(pictures, vectors, fields, strict=False):
            regions = [Region(tile.box, next(of_tiles)) for tile in picture.tiles]
            if _has_direction(vector):
                # A tile without a vector that can be stored costs that tile only.
                having = [each for each in regions if _has_direction(each.vector)]
                found[picture.content_id] = Embedded(vector, given, having)
                self._last_embedded = picture.pixels
            else:
                if not np.isfinite(vector).all():
                    self._check(encoder, pictures)
                errors[picture.content_id] = ReadError(
                    "embed_failed", "The encoder gave a vector that is zero or not finite."
                )
        return found

    def _by_parts(
        self, picture: Picture, encoder: PictureEncoder, errors: dict[str, ReadError]
    ) -> dict[str, Embedded]:
        """The picture without its tiles, then each of them: one that fails costs itself only."""
        found = self._embedded([replace(picture, tiles=())], encoder, errors)
        if picture.content_id not in found:
            return {}
        regions = []
        for tile in picture.tiles:
            try:
                (vector,), _ = encoder.outputs(tile.pixels[np.newaxis])
            except Exception as error:
                if is_fatal(error):
                    raise
                logger.debug("The encoder cannot embed a tile.", exc_info=True)
            else:
                if _has_direction(vector):
                    regions.append(Region(tile.box, vector))
        return {picture.content_id: found[picture.content_id]._replace(regions=regions)}

    def _check(self, encoder: PictureEncoder, pictures: Sequence[Picture]) -> None:
        """Raise EncodersFailed unless the encoder embeds what it did, or anything else."""
        if self._last_embedded is not None:
            check_embeds(encoder, [self._last_embedded])
            return
        height, width = pictures[0].pixels.shape[:2]
        is_known_to_fail = len(pictures) == 1 and not pictures[0].tiles
        of_these = () if is_known_to_fail else (each.pixels for each in pictures)
        self._last_embedded = check_embeds(
            encoder, itertools.chain(example_pictures(height, width), of_these)
        )


def _has_direction(vector: Vectors) -> bool:
    return bool(np.isfinite(vector).all() and np.any(vector))
