"""Find where in a picture another one lies that lacks a margin of it.

Image registration by Gauss-Newton steps (Lucas and Kanade 1981, "An iterative image registration
technique") on luma, for one factor of scale and a shift, from small copies to large ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float64]

# The part must show this share of the whole: cropped by 3 % a side.
MIN_OVERLAP = 0.88
# How far the part may reach over the edge of the whole: a share of its width, and pixels.
_EDGE_SHARE, _EDGE_PIXELS = 0.004, 1.0
# Longer sides of the small copies, in pixels, and the steps at each.
_SIDES = (32, 64, 128, 256)
_STEPS, _STEPS_ONCE_PLACED = 12, 5
# Steps end below this share of a pixel, and a longer one than this share of the width is wrong.
_SMALL_STEP, _MAX_STEP = 0.02, 0.06
# Damps what the picture does not determine, such as the sideways shift of level stripes.
_DAMPING = 1e-4


class Placement(NamedTuple):
    """The width, left and upper edge of a part, in widths of the whole."""

    width: float
    left: float
    upper: float

    def box(self, whole: Image.Image, part: Image.Image) -> tuple[float, float, float, float]:
        """Return left, upper, right and lower edge in pixels of the whole, inside of it."""
        scale, height = whole.width, self.width * part.height / part.width
        return (
            max(0.0, self.left * scale),
            max(0.0, self.upper * scale),
            min(float(whole.width), (self.left + self.width) * scale),
            min(float(whole.height), (self.upper + height) * scale),
        )


def find_placement(
    whole: Image.Image, part: Image.Image, start: Placement | None = None
) -> Placement | None:
    """Find the place of a part that shows 88 % of the whole or more; None if none is.

    `start` is the place in smaller copies of both.
    """
    aspect, part_aspect = whole.height / whole.width, part.height / part.width
    # In widths of the whole: both areas are equal, and so are their centres.
    width = float(np.sqrt(aspect / part_aspect))
    place = start or Placement(width, (1 - width) / 2, (aspect - width * part_aspect) / 2)
    longer = max(whole.size)
    sides = [side for side in _SIDES if side < longer] if start is None else []
    for side in [*sides, longer]:
        size = tuple(max(8, round(each * side / longer)) for each in whole.size)
        steps = _STEPS if start is None else _STEPS_ONCE_PLACED
        for _ in range(steps):
            step = _step(whole, part, place, (size[0], size[1]))
            if np.abs(step).max() > _MAX_STEP:
                return None
            place = Placement(*(np.array(place) + step).tolist())
            if _share(place, aspect, part_aspect) < MIN_OVERLAP / 2:
                return None
            if np.abs(step).max() * size[0] < _SMALL_STEP:
                break
    return place if _is_inside(place, whole, part) else None


def _share(place: Placement, aspect: float, part_aspect: float) -> float:
    return place.width**2 * part_aspect / aspect


def _is_inside(place: Placement, whole: Image.Image, part: Image.Image) -> bool:
    aspect, part_aspect = whole.height / whole.width, part.height / part.width
    over = max(_EDGE_SHARE, _EDGE_PIXELS / whole.width)
    return (
        _share(place, aspect, part_aspect) >= MIN_OVERLAP
        and place.left >= -over
        and place.upper >= -over
        and place.left + place.width <= 1 + over
        and place.upper + place.width * part_aspect <= aspect + over
    )


def _step(whole: Image.Image, part: Image.Image, place: Placement, size: tuple[int, int]) -> Floats:
    """Compute the change of the place that brings both pictures nearest to each other."""
    aspect, part_aspect = whole.height / whole.width, part.height / part.width
    # What both show, in widths of the part.
    left, right = max(0.0, -place.left / place.width), min(1.0, (1 - place.left) / place.width)
    upper = max(0.0, -place.upper / place.width)
    lower = min(part_aspect, (aspect - place.upper) / place.width)
    first = _luma(whole, size, whole.width, tuple(
        offset + place.width * each for offset, each in (
            (place.left, left), (place.upper, upper), (place.left, right), (place.upper, lower))
    ))  # fmt: skip
    second = _luma(part, size, part.width, (left, upper, right, lower))
    spacing = np.array([lower - upper, right - left]) / (size[1], size[0])
    down, across = np.gradient(first)
    down, across = down / (spacing[0] * place.width), across / (spacing[1] * place.width)
    y = upper + (np.arange(size[1]) + 0.5)[:, None] * spacing[0]
    x = left + (np.arange(size[0]) + 0.5)[None, :] * spacing[1]
    # The last two columns: brightness and contrast of the whole may differ.
    columns = np.stack(
        [across * x + down * y, across, down, first, np.ones_like(first)], axis=-1
    ).reshape(-1, 5)
    lengths = np.linalg.norm(columns, axis=0) + 1e-9
    columns = columns / lengths
    square = columns.T @ columns + _DAMPING * np.eye(5)
    solution = np.linalg.solve(square, columns.T @ (second - first).ravel())
    step: Floats = (solution / lengths)[:3]
    return step


def _luma(image: Image.Image, size: tuple[int, int], scale: int, box: tuple[float, ...]) -> Floats:
    left, upper, right, lower = (each * scale for each in box)
    inside = (max(0.0, left), max(0.0, upper), min(image.width, right), min(image.height, lower))
    grey = image.resize(size, Image.Resampling.BILINEAR, box=inside).convert("L")
    return np.asarray(grey, np.float64)
