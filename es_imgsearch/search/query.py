"""What is searched for: texts, pictures, vectors and stored pictures, each with a weight."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from es_imgsearch.errors import ImageMissing, QueryPictureInvalid, ReadError, UsageError
from es_imgsearch.read.decoding import decode
from es_imgsearch.read.srgb import to_rgb
from es_imgsearch.records import is_text, unit

# A query picture, however it is given: upright, RGB, cut to a box.

QueryPicture = PathLike[str] | bytes | IO[bytes] | Image.Image | npt.NDArray[Any]
QueryBox = tuple[float, float, float, float]


def open_query_picture(
    picture: QueryPicture, box: QueryBox | None = None, *, max_pixels: int
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
        return _decoded(read_open_file(picture), "", "The query picture", max_pixels)
    raise QueryPictureInvalid(
        "A query picture is a path, bytes, an open file, a PIL image or an array, not"
        f" {type(picture).__name__}."
    )


def read_open_file(file: IO[bytes]) -> bytes:
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


Vector = npt.NDArray[np.float32]

# Equal to rounding: nothing is left of the query.
_NOTHING = 1e-6


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A picture of the index as a query: its stored vectors are used, and no model."""

    image_id: str

    def __post_init__(self) -> None:
        if not isinstance(self.image_id, str) or not self.image_id or not is_text(self.image_id):
            raise ImageMissing(f"No picture has the image_id {self.image_id!r}.")


Query: TypeAlias = str | QueryPicture | StoredPicture
Weighted: TypeAlias = Query | tuple[Query, float]
Queries: TypeAlias = Weighted | Sequence[Weighted]

_QUERY_TYPES = (str, PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray, StoredPicture)

_QUERY_KINDS = (
    "words, a picture (path, bytes, open file, PIL image, array), a vector, a StoredPicture, or a"
    " pair (query, weight) of one of these and a number"
)


class Term(NamedTuple):
    """One query and how much it counts, less than nothing where the search goes away from it."""

    query: Query
    weight: float


def parse_terms(positive: Queries, negative: Queries) -> Sequence[Term]:
    """Every query with its signed weight, 1 where none was given.

    Raises UsageError where there is nothing to search for or a weight is not above 0.
    """
    wanted = [_term(each, 1.0) for each in _listed(positive)]
    if not wanted:
        raise UsageError("There is nothing to search for: give words or a picture.")
    return [*wanted, *(_term(each, -1.0) for each in _listed(negative))]


def text_terms(terms: Sequence[Term]) -> list[Term]:
    """Those terms that are words, stripped.  Raises UsageError for one that cannot be read."""
    texts = [Term(each.query.strip(), each.weight) for each in terms if isinstance(each.query, str)]
    for text, _ in texts:
        if not text:
            raise UsageError("The text to search for is empty.")
        if not is_text(str(text)):
            raise UsageError("The text to search for is not valid Unicode.")
    return texts


def is_vector(query: Query) -> bool:
    """Whether it is an array of one axis: a vector of the index's encoder, made elsewhere."""
    return isinstance(query, np.ndarray) and query.ndim == 1


def as_query_picture(query: Query) -> QueryPicture | None:
    """The query where it is a picture to be opened, else None."""
    if isinstance(query, (str, StoredPicture)) or is_vector(query):
        return None
    return query


def normalize_query_vector(query: Any, dims: int) -> Vector:
    """A vector given as the query, at unit length.  Raises UsageError."""
    if query.shape != (dims,):
        raise UsageError(
            f"A vector to search for must have the index's {dims} dims, not {len(query)}; a"
            " picture is an array of two or three axes."
        )
    if query.dtype.kind not in "fiu" or not np.isfinite(query).all():
        raise UsageError("A vector to search for must be of finite numbers.")
    return _unit_or_refused(query.astype(np.float32), "The vector to search for has no direction.")


def combine_vectors(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector:
    """The weighted sum of unit vectors, of shape (dims,), at unit length.

    What Rocchio 1971 does to a query with documents that are wanted and documents that are not.
    """
    if len(vectors) == 1 and weights[0] > 0:
        return vectors[0]
    total: Vector = np.asarray(weights, dtype=np.float32) @ np.stack(vectors)
    return _unit_or_refused(
        total, "The negative queries cancel the positive ones: nothing is left."
    )


def _unit_or_refused(vector: Vector, otherwise: str) -> Vector:
    if float(np.linalg.norm(vector)) < _NOTHING:
        raise UsageError(otherwise)
    return unit(vector)


def _listed(asked: Any) -> list[Any]:
    """One query is a list of one: a string would be a list of letters, an array of rows."""
    if isinstance(asked, _QUERY_TYPES) or hasattr(asked, "read") or _is_pair(asked):
        return [asked]
    # Of a dict the keys would be searched for.
    if isinstance(asked, Mapping) or not isinstance(asked, Iterable):
        raise UsageError(f"What is searched for is {_QUERY_KINDS}, not a {type(asked).__name__}.")
    return list(asked)


def _is_pair(asked: Any) -> bool:
    return (
        isinstance(asked, tuple)
        and len(asked) == 2
        and (isinstance(asked[0], _QUERY_TYPES) or hasattr(asked[0], "read"))
        and isinstance(asked[1], (int, float, np.number))
        and not isinstance(asked[1], bool)
    )


def _term(asked: Any, sign: float) -> Term:
    query, weight = asked if _is_pair(asked) else (asked, 1.0)
    weight = float(weight)
    if not (math.isfinite(weight) and weight > 0):
        raise UsageError(f"The weight of a query must be above 0, not {weight:g}.")
    if not (isinstance(query, _QUERY_TYPES) or hasattr(query, "read")):
        raise UsageError(f"A query is {_QUERY_KINDS}, not a {type(query).__name__}.")
    if hasattr(query, "read"):
        # Now, since hits keep their queries, and a file may be closed when they are shown.
        query = read_open_file(query)
    return Term(query, sign * weight)
