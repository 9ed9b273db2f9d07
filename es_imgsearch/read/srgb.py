"""Convert any mode and colour profile to 8-bit sRGB, as encoders expect."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from es_imgsearch.records import TRANSPARENT

# Transparent parts are shown on white, as browsers and viewers do.
_GROUND = (255, 255, 255)
_OPAQUE = 255

# The profiles that call themselves sRGB differ by a level or two; following those would cost
# 240 ms for 12 megapixels (decoding them from JPEG: 90 ms) and change nothing to be seen.
_SAME_LEVELS = 3


# Modes of which blocks of pixels may be averaged as they are.
_WITH_ALPHA = {"LA", "RGBA"}
_AVERAGED = {"L", "RGB", "CMYK", *_WITH_ALPHA}


def shrunk(image: Image.Image, shorter_side_pixels: int | None) -> Image.Image:
    """Shrink by a whole factor; the shorter side stays at least that long.

    Averages of whole blocks: nothing is blurred or shifted, and it is the fastest way there is.
    """
    factor = min(image.size) // max(1, shorter_side_pixels) if shorter_side_pixels else 1
    return image.reduce(factor) if factor > 1 else image


def to_rgb(image: Image.Image, shorter_side_pixels: int | None = None) -> Image.Image:
    """Convert to 8-bit sRGB: transparency on white, 16-bit and float scaled.

    An embedded colour profile is followed where it fits the picture, and ignored where not.
    The picture comes out shrunk to `shorter_side_pixels` (see `shrunk`), before its profile is
    followed: that takes 240 ms for 12 megapixels.
    """
    if image.mode in _AVERAGED and (image.mode in _WITH_ALPHA or not image.has_transparency_data):
        image = shrunk(image, shorter_side_pixels)
    profile = image.info.get("icc_profile")
    alpha = None
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        image = Image.fromarray(eight_bit(np.asarray(image)))
    elif image.has_transparency_data:
        if image.mode == "LA":
            image, alpha = image.split()
        else:
            image = image.convert("RGBA")
            alpha = image.getchannel("A")
            image = image.convert("RGB")
    elif image.mode == "P":
        image = image.convert("RGB")
    colours = _by_profile(image, profile) or image.convert("RGB")
    if alpha is not None:
        ground = Image.new("RGB", colours.size, _GROUND)
        ground.paste(colours, mask=alpha)
        # Many files have an alpha channel that hides nothing.
        is_transparent = bool((np.asarray(alpha) < _OPAQUE).any())
        ground.info[TRANSPARENT] = is_transparent
        colours = ground
    # What has been followed must not be followed again when the picture is passed on.
    colours.info.pop("icc_profile", None)
    return shrunk(colours, shorter_side_pixels)


def eight_bit(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Samples of any type as bytes."""
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * 255
    if values.dtype == np.uint8:
        return values
    # Unsigned 16 bits fill their range by definition; 32-bit integers and floats do not say
    # what white is, so what is there is stretched.
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return (values >> 8).astype(np.uint8)
    is_integer = values.dtype.kind in "iu"
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if is_integer and low >= 0 and high <= 65535:
        low, high = 0.0, 255.0 if high <= 255 else 65535.0
    elif not is_integer:
        high = max(high, 1.0)
    scaled = (values - low) * (255.0 / (high - low)) if high > low else values * 0
    return scaled.round().clip(0, 255).astype(np.uint8)


def _by_profile(image: Image.Image, profile: object) -> Image.Image | None:
    """Convert to sRGB by the profile; None if it is unusable or changes nothing."""
    # (Lab says itself what its numbers mean.)
    if not isinstance(profile, bytes) or image.mode not in {"L", "RGB", "CMYK"}:
        return None
    transform = _transform(profile, image.mode)
    if transform is None:
        return None
    from PIL import ImageCms

    try:
        return ImageCms.applyTransform(image, transform)
    except ImageCms.PyCMSError:
        return None


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> Any:
    """Build the transform to sRGB; None for a broken or misfit profile, and sRGB.

    Kept, because the pictures of a folder mostly come from one camera, and the tables of a
    CMYK profile take longer to build than a small picture to turn.
    """
    from PIL import ImageCms

    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if mode != "RGB":
            return transform
        levels = np.linspace(0, 255, 6).astype(np.uint8)
        grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(6, 36, 3)
        turned = np.asarray(ImageCms.applyTransform(Image.fromarray(grid), transform))
    except Exception:  # noqa: BLE001 - broken profiles raise anything; the pixels are good
        return None
    change = np.abs(turned.astype(int) - grid.astype(int)).max()
    return transform if change > _SAME_LEVELS else None
