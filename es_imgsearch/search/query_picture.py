"""A query picture, however it is given: upright, RGB, cut to a box."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from es_imgsearch.errors import QueryPictureInvalid, ReadError
from es_imgsearch.pictures.decoding import decode
from es_imgsearch.pictures.srgb import to_rgb

QueryPicture = PathLike[str] | bytes | IO[bytes] | Image.Image | npt.NDArray[Any]
Box = tuple[float, float, float, float]


def open_query_picture(
    picture: QueryPicture, box: Box | None = None, *, max_pixels: int
) -> Image.Image:
    """An RGB image, upright, of a path, an open file, its bytes, a PIL image or an array.

    Arrays have shape (height, width), (height, width, 3) or (height, width, 4), of uint8, or
    of floats from 0 to 1.  `box` is (x, y, width, height) in pixels of the upright picture;
    what sticks out of the picture is cut off.  Raises QueryPictureInvalid.
    """
    image = _opened(picture, max_pixels)
    if box is None:
        return image
    try:
        x, y, width, height = (float(number) for number in box)
    except (TypeError, ValueError):
        raise QueryPictureInvalid(
            f"A box is four numbers (x, y, width, height) in pixels, not {box!r}."
        ) from None
    if not np.isfinite([x, y, width, height]).all():
        raise QueryPictureInvalid(f"The numbers of a box must be finite, not {box!r}.")
    left, top = max(0, round(x)), max(0, round(y))
    right, bottom = min(image.width, round(x + width)), min(image.height, round(y + height))
    if right - left < 1 or bottom - top < 1:
        raise QueryPictureInvalid(
            f"The box {x:g},{y:g},{width:g},{height:g} holds no part of the picture, which is"
            f" {image.width} x {image.height} pixels."
        )
    part = image.crop((left, top, right, bottom))
    # The part may be opened again, and must not be turned upright twice.
    part.info.clear()
    return part


def _opened(picture: QueryPicture, max_pixels: int) -> Image.Image:
    if isinstance(picture, Image.Image):
        return _from_pil(picture)
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return _decoded(bytes(picture), "", "The query picture", max_pixels)
    if isinstance(picture, (str, PathLike)):
        path = Path(picture)
        try:
            # A device or a pipe might never end.
            if path.exists() and not path.is_file():
                raise QueryPictureInvalid(f"{str(path)!r} is not a file.")
            content = path.read_bytes()
        except FileNotFoundError:
            raise QueryPictureInvalid(f"There is no file {str(path)!r}.") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise QueryPictureInvalid(f"{str(path)!r} cannot be read: {why}.") from error
        return _decoded(content, path.suffix.lower(), repr(str(path)), max_pixels)
    if hasattr(picture, "read"):
        return _decoded(rest_of(picture), "", "The query picture", max_pixels)
    raise QueryPictureInvalid(
        "A query picture is a path, bytes, an open file, a PIL image or an array, not"
        f" {type(picture).__name__}."
    )


def rest_of(file: IO[bytes]) -> bytes:
    """What an open file holds from where it stands; it is left there, if it can be.

    It may be anything with `read`, and raise what it likes: zlib.error, zipfile.BadZipFile.
    """
    try:
        is_seekable = hasattr(file, "seekable") and file.seekable()
        start = file.tell() if is_seekable else None
        content = file.read()
        if start is not None:
            file.seek(start)
    except MemoryError:
        raise
    except Exception as error:
        words = str(error).rstrip(".") or type(error).__name__
        raise QueryPictureInvalid(f"The open file cannot be read: {words}.") from error
    if not isinstance(content, bytes):
        raise QueryPictureInvalid(
            f"The open file gives {type(content).__name__}, not bytes: open it with mode 'rb'."
        )
    return content


def _decoded(content: bytes, suffix: str, what: str, max_pixels: int) -> Image.Image:
    if not content:
        raise QueryPictureInvalid(f"{what} cannot be searched with: it is empty.")
    try:
        return decode(content, max_pixels=max_pixels, suffix=suffix).image
    except ReadError as error:
        words = error.message[:1].lower() + error.message[1:]
        raise QueryPictureInvalid(f"{what} cannot be searched with: {words}") from error


def _from_pil(image: Image.Image) -> Image.Image:
    """Its pixels may be read only now, so everything that decoding raises may come."""
    if not (image.width and image.height):
        raise QueryPictureInvalid("The PIL image has no pixels.")
    try:
        return to_rgb(ImageOps.exif_transpose(image))
    except MemoryError:
        raise
    except Exception as error:
        raise QueryPictureInvalid(f"The PIL image cannot be searched with: {error}.") from error


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in {3, 4})) or not array.size:
        raise QueryPictureInvalid(
            "An array must have the shape (height, width), (height, width, 3) or"
            f" (height, width, 4), not {array.shape}."
        )
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise QueryPictureInvalid("An array of floats must hold values from 0 to 1.")
        array = (array * 255).round().astype(np.uint8)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise QueryPictureInvalid(f"An array must be of uint8 or floats, not {array.dtype}.")
    return to_rgb(Image.fromarray(np.ascontiguousarray(array)))
