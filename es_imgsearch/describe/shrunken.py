"""A picture as small as describers need it, made once for all of them."""

from __future__ import annotations

import weakref

from PIL import Image

# Hashing 4,000 x 3,000 pixels takes 12 ms so, and 78 ms without.  Two of the 64 bits of a
# photograph's hash changed when it was shrunk to 128 pixels, none at 256.
SHORTER_SIDE_PIXELS = 256

_last: tuple[weakref.ref[Image.Image], Image.Image] | None = None


def shrink(image: Image.Image) -> Image.Image:
    """The picture, shrunk by a whole factor to a shorter side of 256 to 511 pixels.

    One that is as small already comes back as it is.
    """
    factor = max(1, min(image.size) // SHORTER_SIDE_PIXELS)
    return image.reduce(factor) if factor > 1 else image


def shrunken(image: Image.Image) -> Image.Image:
    """`shrink` for describers, which all get the same picture: it is not to be changed."""
    global _last
    if _last is not None and _last[0]() is image:
        return _last[1]
    small = shrink(image)
    if small is not image:
        # (A picture that kept itself alive would never be let go.)
        _last = weakref.ref(image), small
    return small
