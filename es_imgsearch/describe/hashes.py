"""Compute a perceptual hash: 64 bits, nearly unchanged by resaving the file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from PIL import Image

from es_imgsearch.describe.registry import SHORTER_SIDE_PIXELS, shrink, shrunken

_SIDE, _LOWEST = 32, 8

# Of 255 levels of grey.  A picture without structure would be hashed by its noise, and all such
# pictures would look like copies of each other.
_LEAST_DEVIATION = 2.0


class Hashes:
    """Field perceptual_hash: 16 hex digits; absent where the picture is one flat tone."""

    name = "hashes"
    shorter_side_pixels = 2 * SHORTER_SIDE_PIXELS
    mapping: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "perceptual_hash": {
            "type": "dense_vector",
            "element_type": "bit",
            "dims": 64,
            "index": True,
            # A graph finds 33 of 61 equal hashes, comparing all of them finds all.
            "index_options": {"type": "flat"},
        },
    }

    def describe(self, image: Image.Image, exif: Image.Exif, path: str) -> Mapping[str, Any]:
        _ = exif, path
        digits = perceptual_hash(shrunken(image))
        return {} if digits is None else {"perceptual_hash": digits}


def perceptual_hash(image: Image.Image) -> str | None:
    """Compute the pHash of an upright RGB picture: 16 hex digits, or None.

    The 8 x 8 lowest frequencies of a 32 x 32 discrete cosine transform, each compared with
    their median (Zauner 2010, "Implementation and benchmarking of perceptual image hash
    functions"), bit for bit as the package ImageHash has it, whose SciPy would cost every reading
    process 0.65 s.  None for a picture without structure.
    """
    import numpy as np
    from PIL import ImageStat

    grey = shrink(image).convert("L")
    if ImageStat.Stat(grey.resize((32, 32), Image.Resampling.BOX)).stddev[0] < _LEAST_DEVIATION:
        return None
    pixels = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    frequencies = _cosines() @ pixels @ _cosines().T
    bits = frequencies > np.median(frequencies)
    return np.packbits(bits.ravel()).tobytes().hex()


@cache
def _cosines() -> Any:
    """Rows of the 8 lowest frequencies of a type II cosine transform, (8, 32)."""
    import numpy as np

    frequency, place = np.arange(_LOWEST)[:, None], np.arange(_SIDE)[None, :]
    return 2 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * _SIDE))
