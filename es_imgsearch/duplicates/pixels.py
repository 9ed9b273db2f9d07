"""Decide by their pixels whether two files show the same picture.

Both are scaled to one size and compared in blocks of 8 x 8 pixels.  In every block the structure
and the mean colour must agree, up to what recompression and scaling change: one block is a letter
of a page or a badge of an icon.  One factor of brightness for the whole picture is allowed, and one
picture may be the other without its margin.  benchmarks/duplicates.py measures the limits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from es_imgsearch.duplicates.hashes import UPRIGHT, Turn
from es_imgsearch.duplicates.placement import MIN_OVERLAP, Placement, find_placement

Floats = npt.NDArray[np.float32]
Size = tuple[int, int]
Limits = tuple[tuple[float, float], tuple[float, float]]

# Longer sides in pixels: most pairs that differ do so in a small copy already.
COARSE_PIXELS = 256
FINE_PIXELS = 1536

_BLOCK = 8
# Slightly smaller than the smaller picture, which removes what resampling filters do to edges.
_SHRINKAGE = 0.85
# The variance of a block's differences of luma must not exceed this share of both variances, plus a
# constant.  Of both + 800, copies reach 0.07, and another digit in a page has 0.27.
_LUMA_SHARE, _LUMA_NOISE = 0.1, 80.0
# Mean colours may differ by both of these at most: levels, and a share of the block's deviation,
# since JPEG's colour planes have half the resolution.  Copies need 7.1 and 10.0; a thin blue letter
# that became turquoise needs 4.0 and 15.2.
_COLOUR_LIMITS = ((8.0, 0.25), (12.0, 0.15))
# Below this longer side a block is a large part of an icon: with the limits above, 16 pairs of 87
# icons of 16 pixels are the same, and with these none.
_SMALL_PIXELS, _SMALL_COLOUR_LIMITS = 48, ((8.0, 0.08), (8.0, 0.08))
# A copy that is 5 % brighter needs 1.05; photographs may be edited further.
_MAX_GAIN, _MAX_GAIN_OF_PHOTOGRAPH = 1.12, 1.3
# Clipped levels do not follow the factor.
_DARKEST, _BRIGHTEST = 8.0, 247.0
# Sides may be rounded, and a copy's ratio be that of a thumbnail with whole pixels.
_ASPECT_SHARE = 0.01
# From this ratio of sides on, a small copy must keep this share of the variance: a thumbnail of a
# page of text fits pages with other words as well.
_SMALL_RATIO, _MIN_KEPT_VARIANCE = 2.2, 0.7
# A photograph has texture (this deviation of a pixel from its neighbours) in this many blocks and
# this share of them, and this many bits of entropy.  Of flags, icons and drawings, shaded ones too,
# none has all three; of 213 stamps, three in four.
_TEXTURE, _TEXTURED_BLOCKS, _TEXTURED_SHARE, _ENTROPY = 2.0, 60, 0.3, 3.3

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True)
class Pixels:
    """A picture in two sizes; `size` is that of the original, `read_fine` the larger."""

    coarse: Image.Image
    size: Size
    read_fine: Callable[[], Image.Image]

    @classmethod
    def of(cls, image: Image.Image) -> Pixels:
        """Scale an upright RGB picture."""
        fine = fitted(image, FINE_PIXELS)
        return cls(fitted(fine, COARSE_PIXELS), image.size, lambda: fine)

    def turned(self, turn: Turn) -> Pixels:
        size = self.size[::-1] if turn.transposed else self.size
        return Pixels(_turned(self.coarse, turn), size, lambda: _turned(self.read_fine(), turn))


def show_the_same(one: Pixels, other: Pixels, turn: Turn = UPRIGHT) -> bool:
    """Decide whether the first picture, turned, and the second are the same.

    Turned and mirrored copies are found of photographs only: an arrow to the left is no arrow to
    the right.  Takes 2 to 20 ms for pictures that differ, 0.2 s for copies.
    """
    is_photograph = looks_photographic(one.coarse)
    if turn != UPRIGHT:
        if not is_photograph:
            return False
        one = one.turned(turn)
    large, small = (one, other) if max(one.size) >= max(other.size) else (other, one)
    max_gain = _MAX_GAIN_OF_PHOTOGRAPH if is_photograph else _MAX_GAIN
    if _have_one_shape(large.size, small.size) and _agree(
        large.coarse, small.coarse, None, max_gain
    ):
        place = None
    else:
        place = find_placement(large.coarse, small.coarse)
        if place is None or not _agree(large.coarse, small.coarse, place, max_gain):
            return False
    fine, small_fine = large.read_fine(), small.read_fine()
    if max(large.size) >= _SMALL_RATIO * max(small.size) and not _shows_detail(fine, small_fine):
        return False
    if place is not None:
        place = find_placement(fine, small_fine, place)
        if place is None:
            return False
    return _agree(fine, small_fine, place, max_gain)


def looks_photographic(image: Image.Image) -> bool:
    """Return whether a picture has texture and many tones, unlike an icon or a flag."""
    luma = _scaled(image, _size_in_blocks(image.size)) @ _LUMA
    texture = np.zeros_like(luma)
    texture[1:-1, 1:-1] = (
        luma[1:-1, 1:-1] - (luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]) / 4
    )
    textured = _blocks(texture).std(axis=1) > _TEXTURE
    return bool(
        textured.sum() >= _TEXTURED_BLOCKS
        and textured.mean() >= _TEXTURED_SHARE
        and image.convert("L").entropy() >= _ENTROPY
    )


def may_be_parts(one: Size, other: Size, turn: Turn) -> bool:
    """Return False if the sizes (0 if unknown) rule out that one shows the other."""
    if 0 in one or 0 in other:
        return True
    if turn.transposed:
        one = one[::-1]
    return MIN_OVERLAP * 0.98 <= (one[0] * other[1]) / (one[1] * other[0]) <= 1.02 / MIN_OVERLAP


def _agree(
    large: Image.Image, small: Image.Image, place: Placement | None, max_gain: float
) -> bool:
    """Compare block by block; with a place, the part of the larger picture at it."""
    size = _size_in_blocks(
        (min(large.width, small.width), min(large.height, small.height)), _SHRINKAGE
    )
    one = _scaled(large, size, None if place is None else place.box(large, small))
    other = _scaled(small, size)
    gain = _gain(one, other)
    if gain < 1:
        # The darker one is made brighter: what is clipped cannot be restored.
        one, other = other, one
        gain = _gain(one, other)
    if not 1 / max_gain <= gain <= max_gain:
        return False
    one = np.clip(one * np.float32(gain), 0, 255)
    limits = _SMALL_COLOUR_LIMITS if max(size) < _SMALL_PIXELS else _COLOUR_LIMITS
    half = _BLOCK // 2
    # Twice, so that no letter is at the edge of blocks only.
    return _blocks_agree(one, other, limits) and _blocks_agree(
        one[half:-half, half:-half], other[half:-half, half:-half], limits
    )


def _blocks_agree(one: Floats, other: Floats, limits: Limits) -> bool:
    first, second = _blocks(one), _blocks(other)
    luma, other_luma = first @ _LUMA, second @ _LUMA
    both = luma.var(axis=1) + other_luma.var(axis=1)
    if ((luma - other_luma).var(axis=1) > _LUMA_SHARE * both + _LUMA_NOISE).any():
        return False
    difference = np.abs(first.mean(axis=1) - second.mean(axis=1)).max(axis=1)
    variance = np.maximum(first.var(axis=1), second.var(axis=1)).max(axis=1)
    allowed = (levels + share * np.sqrt(variance) for levels, share in limits)
    return bool((difference <= np.minimum(*allowed)).all())


def _gain(one: Floats, other: Floats) -> float:
    """Return the factor of brightness from the first picture to the second."""
    first, second = (_blocks(each).mean(axis=1).ravel() for each in (one, other))
    inside = (np.minimum(first, second) > _DARKEST) & (np.maximum(first, second) < _BRIGHTEST)
    first, second = first[inside], second[inside]
    return float(first @ second / (first @ first)) if len(first) else 1.0


def _shows_detail(large: Image.Image, small: Image.Image) -> bool:
    """Return whether a small copy shows what tells the larger picture from others."""
    left = _scaled(large, small.size) @ _LUMA
    return bool(left.var() >= _MIN_KEPT_VARIANCE * (_scaled(large, large.size) @ _LUMA).var())


def _have_one_shape(one: Size, other: Size) -> bool:
    """Return whether the ratios of sides agree, up to a pixel of the smaller picture."""
    scale = max(one) / max(other)
    tolerance = max(1.0, _ASPECT_SHARE * min(other))
    return all(abs(a / scale - b) <= tolerance for a, b in zip(one, other, strict=True))


def _size_in_blocks(size: Size, factor: float = 1.0) -> Size:
    width, height = (max(2, int(side * factor / _BLOCK)) * _BLOCK for side in size)
    return width, height


def _blocks(pixels: Floats) -> Floats:
    """Cut (height, width, ...) into blocks: (blocks, 64, ...)."""
    rows, columns = pixels.shape[0] // _BLOCK, pixels.shape[1] // _BLOCK
    cut = pixels.reshape(rows, _BLOCK, columns, _BLOCK, *pixels.shape[2:]).swapaxes(1, 2)
    return cut.reshape(rows * columns, _BLOCK * _BLOCK, *pixels.shape[2:])


def _scaled(
    image: Image.Image, size: Size, box: tuple[float, float, float, float] | None = None
) -> Floats:
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=box), np.float32)


def fitted(image: Image.Image, longer_side: int) -> Image.Image:
    """Scale a picture so that its longer side is at most that long."""
    if max(image.size) <= longer_side:
        return image
    scale = longer_side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def _turned(image: Image.Image, turn: Turn) -> Image.Image:
    for is_done, method in (
        (turn.transposed, Image.Transpose.TRANSPOSE),
        (turn.mirrored, Image.Transpose.FLIP_LEFT_RIGHT),
        (turn.flipped, Image.Transpose.FLIP_TOP_BOTTOM),
    ):
        if is_done:
            image = image.transpose(method)
    return image
