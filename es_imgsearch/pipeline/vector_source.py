"""Get a picture's vector from the cache, the index or the encoder.

The cache has the vectors of contents that were embedded recently.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from es_imgsearch.describe.plain_values import has_length
from es_imgsearch.embed.in_process import (
    PictureEncoder,
    check_embeds,
    example_pictures,
    is_fatal,
)
from es_imgsearch.embed.protocol import Encoder, FieldEncoder, Pixels, Vectors
from es_imgsearch.errors import ReadError
from es_imgsearch.pipeline.queues import BoundedCache
from es_imgsearch.records import Embedded, Picture, Region

logger = logging.getLogger(__name__)

# Vectors written in the last second cannot be searched yet, so they are cached; 4,096 of 512 dims
# are 8 MB (48 MB with 5 regions each) and outlast a refresh (1 s) at any speed of an encoder.
_RECENT_VECTORS = 4096

# Looks up vectors in the index by content id, with the named fields.
LookUp = Callable[[Sequence[str], Sequence[str]], dict[str, Embedded]]


class VectorSource:
    """Vectors by content id, with the encoder's own fields.  Thread-safe."""

    def __init__(self, encoder: Encoder, look_up: LookUp, max_arrays: int) -> None:
        """One call embeds up to `max_arrays` arrays, or one picture with all of its tiles."""
        self._max_arrays = max_arrays
        self._fields = encoder.fields if isinstance(encoder, FieldEncoder) else ()
        self._look_up_stored = look_up
        self._recent: BoundedCache[Embedded] = BoundedCache(_RECENT_VECTORS)
        self._lock = threading.Lock()
        # Embedded again after an error: if that fails too, the encoder is at fault.
        self._last_embedded: Pixels | None = None

    def recent(self, content_id: str) -> Embedded | None:
        """Return a vector that was embedded recently, searchable or not."""
        with self._lock:
            return self._recent.get(content_id)

    def look_up(self, content_ids: set[str]) -> dict[str, Embedded]:
        """Return vectors that are cached or stored, with at most one request."""
        cached = {
            content_id: embedded
            for content_id in content_ids
            if (embedded := self.recent(content_id)) is not None
        }
        missing = sorted(content_ids - cached.keys())
        return cached | self._look_up_stored(missing, self._fields) if missing else cached

    def embed(
        self, pictures: Sequence[Picture], encoder: PictureEncoder
    ) -> tuple[dict[str, Embedded], dict[str, ReadError]]:
        """Embed pictures; return vectors and errors by content id.

        A picture without a vector has an error.  Raises EncodersFailed if the encoder is at fault.
        """
        errors: dict[str, ReadError] = {}
        vectors: dict[str, Embedded] = {}
        for part in self._parts(pictures):
            vectors |= self._embed_part(part, encoder, errors)
        with self._lock:
            for content_id, vector in vectors.items():
                self._recent.put(content_id, vector)
        return vectors, errors

    def _parts(self, pictures: Sequence[Picture]) -> Iterator[Sequence[Picture]]:
        """Split pictures into calls of the encoder; without tiles a batch is one call."""
        part: list[Picture] = []
        size = 0
        for picture in pictures:
            arrays = 1 + len(picture.tiles)
            if part and size + arrays > self._max_arrays:
                yield part
                part, size = [], 0
            part.append(picture)
            size += arrays
        yield part

    def _embed_part(
        self, pictures: Sequence[Picture], encoder: PictureEncoder, errors: dict[str, ReadError]
    ) -> dict[str, Embedded]:
        """Embed with one call; halve a batch that fails until the bad picture is alone.

        Raises EncodersFailed if the encoder embeds no picture at all.
        """
        try:
            tiles = [tile.pixels for each in pictures for tile in each.tiles]
            pixels = np.stack([*(each.pixels for each in pictures), *tiles])
            vectors, fields = encoder.outputs(pixels)
        except Exception as error:
            if is_fatal(error):
                raise
            if not isinstance(error, ReadError):
                self._check_encoder(encoder, pictures)
            if len(pictures) > 1:
                middle = len(pictures) // 2
                return self._embed_part(pictures[:middle], encoder, errors) | self._embed_part(
                    pictures[middle:], encoder, errors
                )
            if pictures[0].tiles:
                return self._embed_tiles_separately(pictures[0], encoder, errors)
            logger.exception("The encoder cannot embed a picture.")
            errors[pictures[0].content_id] = (
                error
                if isinstance(error, ReadError)
                else ReadError("embed_failed", f"{type(error).__name__}: {error}"[:400])
            )
            return {}
        embedded: dict[str, Embedded] = {}
        tile_vectors = iter(vectors[len(pictures) :])
        for picture, vector, encoder_fields in zip(pictures, vectors, fields, strict=False):
            regions = [Region(tile.box, next(tile_vectors)) for tile in picture.tiles]
            if _has_direction(vector):
                # A tile whose vector cannot be stored is left out alone.
                storable = [each for each in regions if _has_direction(each.vector)]
                embedded[picture.content_id] = Embedded(vector, encoder_fields, storable)
                self._last_embedded = picture.pixels
            else:
                if not np.isfinite(vector).all():
                    self._check_encoder(encoder, pictures)
                errors[picture.content_id] = ReadError(
                    "embed_failed",
                    "The encoder returned a vector that is zero or not finite, or whose length is.",
                )
        return embedded

    def _embed_tiles_separately(
        self, picture: Picture, encoder: PictureEncoder, errors: dict[str, ReadError]
    ) -> dict[str, Embedded]:
        """Embed a picture, then each of its tiles; a tile that fails is left out alone."""
        embedded = self._embed_part([replace(picture, tiles=())], encoder, errors)
        if picture.content_id not in embedded:
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
        return {picture.content_id: embedded[picture.content_id]._replace(regions=regions)}

    def _check_encoder(self, encoder: PictureEncoder, pictures: Sequence[Picture]) -> None:
        """Raise EncodersFailed unless the encoder embeds a picture known to work.

        That is a picture that it embedded before, or an example.
        """
        if self._last_embedded is not None:
            check_embeds(encoder, [self._last_embedded])
            return
        height, width = pictures[0].pixels.shape[:2]
        has_failed = len(pictures) == 1 and not pictures[0].tiles
        candidates = () if has_failed else (each.pixels for each in pictures)
        self._last_embedded = check_embeds(
            encoder, itertools.chain(example_pictures(height, width), candidates)
        )


def _has_direction(vector: Vectors) -> bool:
    """Return True if cosine similarity is defined for the vector, in float32."""
    return has_length(vector, "cosine")
