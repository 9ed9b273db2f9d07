"""Name the colours of a picture in the words people use for them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from es_imgsearch.describe.registry import SHORTER_SIDE_PIXELS, shrunken
from es_imgsearch.records import TRANSPARENT

Floats = npt.NDArray[np.float64]

_SIDE_PIXELS = 64
_DROPPED_BITS = 3

# A smaller share is no colour that people would name for the picture.
_LEAST_SHARE = 0.05
_PALETTE_SIZE = 5

# Chroma (the distance from grey in CIELAB) below which a pixel looks grey; the noise of JPEG's
# colour planes stays below it.
_GREY_CHROMA = 6.0
# The chroma of sepia is at most about 20, where it is brightest.
_TINT_CHROMA = 22.0
_GREY_SHARE = 0.995

# Shades of each colour name: of the 527 names of the xkcd colour survey (Munroe 2010) that contain
# exactly one of these words, 88 % get the same word from the nearest shade
# (tests/unit/describe/test_colours.py).
SHADES: Final[Mapping[str, tuple[str, ...]]] = {
    "black": ("000000", "1b1b1b"),
    "grey": ("3f3f42", "6b6e70", "929591", "b9bcbc", "59656d", "95a3a6"),
    "white": ("ffffff", "f2f2ee"),
    "red": ("e50000", "840000", "c0282c", "ff474c", "9b111e"),
    "orange": ("f97306", "c65102", "fdaa48", "ff8c1a", "e17701"),
    "yellow": ("ffff14", "fac205", "fffe7a", "d5b60a", "d8e02a"),
    "green": (
        "15b01a",
        "033500",
        "96f97b",
        "4b6113",
        "2e8b57",
        "8fb67b",
        "94a617",
        "b0dd16",
        "cffdbc",
        "a7ffb5",
        "005249",
        "56fca2",
    ),
    "turquoise": ("06c2ac", "0b8b87", "13eac9", "7bf2da"),
    "blue": (
        "0343df",
        "000133",
        "95d0fc",
        "29465b",
        "069af3",
        "5a86ad",
        "0f52ba",
        "acc2d9",
        "d0f4fe",
        "8f99fb",
        "4b57db",
        "06b1c4",
    ),
    "purple": ("7e1e9c", "35063e", "bf77f6", "8756e4", "c79fef", "7d5ba6", "580f41"),
    "pink": ("ff81c0", "cb416b", "ffb7ce", "ff028d", "e6a0b0", "fb5ffc", "fff0f2"),
    "brown": ("653700", "2a0f02", "ad8150", "8b4513", "7f5f4a", "a0522d", "937d0a", "b9863f"),
    "beige": ("e6daa6", "d1b26f", "fff4d6", "d2b48c", "c8aca9", "ead2b8"),
}


class Colours:
    """Fields colours, colour_shares, palette, monochrome and transparent."""

    name = "colours"
    shorter_side_pixels = SHORTER_SIDE_PIXELS
    mapping: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "colours": {"type": "keyword"},
        "colour_shares": {"type": "flattened"},
        "palette": {"type": "keyword"},
        "monochrome": {"type": "boolean"},
        "transparent": {"type": "boolean"},
    }

    def describe(self, image: Image.Image, exif: Image.Exif, path: str) -> Mapping[str, Any]:
        _ = exif, path
        pixels = _pixels(image)
        nearest = _nearest_by_level()[tuple((pixels >> _DROPPED_BITS).T)]
        shares = named_shares(nearest)
        return {
            "colours": list(shares),
            "colour_shares": shares,
            "palette": _palette(pixels, nearest),
            "monochrome": _is_monochrome(lab_of(pixels)),
            "transparent": bool(image.info.get(TRANSPARENT, False)),
        }


def lab_of(pixels: npt.NDArray[np.uint8]) -> Floats:
    """Convert sRGB pixels of shape (n, 3) to CIELAB, of shape (n, 3).

    D65, 2 degrees; IEC 61966-2-1, CIE 15.
    """
    levels = _linear_levels()[pixels]
    # Scaled so that white is 1, 1, 1.
    xyz = levels @ _TO_XYZ.T
    cube = np.where(xyz > _EPSILON, np.cbrt(xyz), (_KAPPA * xyz + 16) / 116)
    x, y, z = cube.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def nearest_shades(lab: Floats) -> npt.NDArray[np.intp]:
    """Return the number of the nearest shade of each CIELAB colour: (n, 3) to (n,)."""
    _, shades = _shades()
    # The nearest is where the scalar product, less half the shade's own square, is greatest.
    nearness = lab @ shades.T - (shades**2).sum(axis=1) / 2
    numbers: npt.NDArray[np.intp] = nearness.argmax(axis=1)
    return numbers


def named_shares(nearest: npt.NDArray[np.intp]) -> dict[str, float]:
    """Return each colour name's share of the pixels, from 5 % on, largest first."""
    names, _ = _shades()
    numbers = np.bincount(nearest, minlength=len(names)) / len(nearest)
    shares: dict[str, float] = {}
    for name, share in zip(names, numbers.tolist(), strict=True):
        shares[name] = shares.get(name, 0.0) + share
    # Without any colour of 5 %, the largest one is taken.
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    large = [item for item in ordered if item[1] >= _LEAST_SHARE] or ordered[:1]
    return {name: round(share, 3) for name, share in large}


def shade_names(lab: Floats) -> list[str]:
    """Return the name of each CIELAB colour of shape (n, 3)."""
    names, _ = _shades()
    return [names[number] for number in nearest_shades(lab)]


def _pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    small = shrunken(image).resize((_SIDE_PIXELS, _SIDE_PIXELS), Image.Resampling.BOX)
    return np.asarray(small, np.uint8).reshape(-1, 3)


def _palette(pixels: npt.NDArray[np.uint8], nearest: npt.NDArray[np.intp]) -> list[str]:
    """Return the mean pixel of each most frequent shade as `#rrggbb`, largest first."""
    numbers = np.bincount(nearest)
    largest = np.argsort(-numbers, kind="stable")[:_PALETTE_SIZE]
    frequent = [each for each in largest if numbers[each] >= _LEAST_SHARE * len(nearest)]
    means = [pixels[nearest == each].mean(axis=0).round() for each in frequent or largest[:1]]
    return ["#" + bytes(mean.astype(np.uint8)).hex() for mean in means]


def _is_monochrome(lab: Floats) -> bool:
    """Return True for greys, or one weak tint of them, as in old photographs."""
    opponents = lab[:, 1:]
    tint = opponents.mean(axis=0)
    tint /= max(float(np.hypot(*tint)), 1e-9)
    along, across = opponents @ tint, opponents @ np.array([-tint[1], tint[0]])
    is_grey = (np.abs(across) < _GREY_CHROMA) & (along > -_GREY_CHROMA) & (along < _TINT_CHROMA)
    return bool(is_grey.mean() >= _GREY_SHARE)


# sRGB's matrix; _TO_XYZ divides each row by its sum, which is white.
_SRGB: Final = np.array(
    [
        [0.4123908, 0.3575843, 0.1804808],
        [0.2126390, 0.7151687, 0.0721923],
        [0.0193308, 0.1191948, 0.9505322],
    ]
)
_TO_XYZ: Final = _SRGB / _SRGB.sum(axis=1, keepdims=True)
_EPSILON: Final = (6 / 29) ** 3
_KAPPA: Final = (29 / 3) ** 3


@cache
def _linear_levels() -> Floats:
    """Intensity of each of the 256 levels."""
    level = np.arange(256) / 255
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


@cache
def _nearest_by_level() -> npt.NDArray[np.intp]:
    """The nearest shade of every colour of 32 levels a channel; shape (32, 32, 32).

    Comparing the 4,096 pixels of each picture with all shades takes 8.5 ms instead of 0.1 ms.
    """
    levels = np.arange(0, 256, 1 << _DROPPED_BITS) + (1 << _DROPPED_BITS) // 2
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    shape = grid.shape[:3]
    return nearest_shades(lab_of(grid.reshape(-1, 3).astype(np.uint8))).reshape(shape)


@cache
def _shades() -> tuple[list[str], Floats]:
    """Name and CIELAB of every shade."""
    pairs = [(name, shade) for name, shades in SHADES.items() for shade in shades]
    rgb = np.array([list(bytes.fromhex(shade)) for _, shade in pairs], np.uint8)
    return [name for name, _ in pairs], lab_of(rgb)
