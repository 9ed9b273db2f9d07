"""Compute a vector of colours by place, to find pictures composed alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from es_imgsearch.describe.registry import shrink, shrunken

_CELLS = 3  # a side
_HUES = 8
_GREYS = 4
_SIDE_PIXELS = 20  # of a cell, once shrunk
_BINS = _HUES + _GREYS
DIMS = _CELLS * _CELLS * _BINS

_CELL_OF_PIXEL = (
    np.arange(_CELLS).repeat(_SIDE_PIXELS)[:, None] * _CELLS
    + np.arange(_CELLS).repeat(_SIDE_PIXELS)[None, :]
)

# Below this value (of 255) the hue of a pixel is noise: it fades into grey.
_DARK = 64.0


class Layout:
    """Field colour_embedding; see `colour_vector`."""

    name = "layout"
    shorter_side_pixels = 2 * _CELLS * _SIDE_PIXELS
    mapping: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "colour_embedding": {
            "type": "dense_vector",
            "dims": DIMS,
            "index": True,
            "similarity": "cosine",
            "index_options": {"type": "int8_hnsw", "m": 16, "ef_construction": 100},
        },
    }

    def describe(self, image: Image.Image, exif: Image.Exif, path: str) -> Mapping[str, Any]:
        _ = exif, path
        return {"colour_embedding": colour_vector(shrunken(image))}


def colour_vector(image: Image.Image) -> npt.NDArray[np.float32]:
    """Histogram of colours by place; shape (108,), unit length, none negative.

    Of an upright RGB picture: 8 hues and 4 levels of grey in each of 3 x 3 cells.  A pixel
    counts by its saturation for the two nearest hues and by the rest for the two nearest greys, so
    that no small change of colour makes a large one of the vector.  The entries are square roots of
    shares: the cosine of two vectors is the Bhattacharyya coefficient of their histograms
    (Bhattacharyya 1943), 1 for the same colours in the same places and 0 for none in common.
    """
    side = _CELLS * _SIDE_PIXELS
    small = shrink(image).resize((side, side), Image.Resampling.BOX)
    hue, saturation, value = np.moveaxis(np.asarray(small.convert("HSV"), np.float32), 2, 0)
    colourfulness = saturation / 255 * np.minimum(value / _DARK, 1)
    # Hues lie on a circle, greys between two ends.
    hue_place = hue * (_HUES / 256)
    grey_place = value * ((_GREYS - 1) / 255)
    histogram = np.zeros(DIMS)
    for place, weight, first, count in (
        (hue_place, colourfulness, 0, _HUES),
        (grey_place, 1 - colourfulness, _HUES, _GREYS),
    ):
        lower = np.floor(place).astype(np.intp)
        upper_share = place - lower
        for step, share in ((0, 1 - upper_share), (1, upper_share)):
            bins = _CELL_OF_PIXEL * _BINS + first + (lower + step) % count
            histogram += np.bincount(bins.ravel(), (weight * share).ravel(), minlength=DIMS)
    vector: npt.NDArray[np.float32] = np.sqrt(histogram / histogram.sum()).astype(np.float32)
    return vector
