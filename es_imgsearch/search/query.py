"""Parse queries with their weights; open query pictures.

A query is a text, a picture, a vector or a stored picture.  The query vector is a weighted sum of
unit vectors, positive ones minus negative ones: relevance feedback as in Rocchio 1971, see
`combine_vectors`.
"""

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
from es_imgsearch.records import composed, is_text

# Query pictures: opened, upright, RGB, cut to a box.

QueryPicture = PathLike[str] | bytes | IO[bytes] | Image.Image | npt.NDArray[Any]
# x, y, width, height in pixels of the upright picture.
QueryBox = tuple[float, float, float, float]


def open_query_picture(
    picture: QueryPicture, box: QueryBox | None = None, *, max_pixels: int
) -> Image.Image:
    """Open a path, file, bytes, PIL image or array as an upright RGB image.

    Arrays have shape (height, width), (height, width, 3) or (height, width, 4), of uint8, or
    of floats from 0 to 1.  `box` is (x, y, width, height) in pixels of the upright picture;
    what lies outside of the picture is cut off.  Raises QueryPictureInvalid.
    """
    image = _open(picture, max_pixels)
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
    # Without the EXIF orientation, so that opening the part again does not turn it again.
    part.info.clear()
    return part


def _open(picture: QueryPicture, max_pixels: int) -> Image.Image:
    if isinstance(picture, Image.Image):
        return _from_pil(picture)
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return _decode(bytes(picture), "", "The query picture", max_pixels)
    if isinstance(picture, (str, PathLike)):
        path = Path(picture)
        try:
            # Reading a device or a pipe may never end.
            if path.exists() and not path.is_file():
                raise QueryPictureInvalid(f"{str(path)!r} is not a file.")
            content = path.read_bytes()
        except FileNotFoundError:
            raise QueryPictureInvalid(f"There is no file {str(path)!r}.") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise QueryPictureInvalid(f"{str(path)!r} cannot be read: {why}.") from error
        return _decode(content, path.suffix.lower(), repr(str(path)), max_pixels)
    if hasattr(picture, "read"):
        return _decode(read_open_file(picture), "", "The query picture", max_pixels)
    raise QueryPictureInvalid(
        "A query picture is a path, bytes, an open file, a PIL image or an array, not"
        f" {type(picture).__name__}."
    )


def read_open_file(file: IO[bytes]) -> bytes:
    """Read an open file from its position; restore the position if it is seekable.

    Any object with `read` will do.  Its errors of any kind (zlib.error, zipfile.BadZipFile) are
    raised as QueryPictureInvalid.
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


def _decode(content: bytes, suffix: str, name: str, max_pixels: int) -> Image.Image:
    if not content:
        raise QueryPictureInvalid(f"{name} cannot be searched with: it is empty.")
    try:
        return decode(content, max_pixels=max_pixels, suffix=suffix).image
    except ReadError as error:
        words = error.message[:1].lower() + error.message[1:]
        raise QueryPictureInvalid(f"{name} cannot be searched with: {words}") from error


def _from_pil(image: Image.Image) -> Image.Image:
    if not (image.width and image.height):
        raise QueryPictureInvalid("The PIL image has no pixels.")
    # Pillow decodes lazily, so any error of decoding may be raised here.
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


# Queries and their weights.

Vector = npt.NDArray[np.float32]

# A sum of unit vectors shorter than this is only rounding: it has no direction.
_MIN_LENGTH = 1e-6


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A picture of the index as a query; its stored vectors are used, and no model.

        search.search([StoredPicture("3f0c…"), "at night"])

    Raises ImageMissing if `image_id` cannot be an id.
    """

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
    """One query and its weight; negative for a query that hits should be away from."""

    query: Query
    weight: float


def parse_terms(positive: Queries, negative: Queries) -> Sequence[Term]:
    """Return every query with its signed weight, by default 1 or -1.

    Raises UsageError if there is no positive query or a weight is not above 0.
    """
    terms = [_term(each, 1.0) for each in _as_list(positive)]
    if not terms:
        raise UsageError("There is nothing to search for: give words or a picture.")
    return [*terms, *(_term(each, -1.0) for each in _as_list(negative))]


def text_terms(terms: Sequence[Term]) -> list[Term]:
    """Return the terms that are words, stripped; raise UsageError for invalid text."""
    texts = [Term(each.query.strip(), each.weight) for each in terms if isinstance(each.query, str)]
    for text, _ in texts:
        if not text:
            raise UsageError("The text to search for is empty.")
        if not is_text(str(text)):
            raise UsageError("The text to search for is not valid Unicode.")
    return texts


def is_vector(query: Query) -> bool:
    """Check for an array of one axis: a vector of the index's encoder."""
    return isinstance(query, np.ndarray) and query.ndim == 1


def query_kind(query: Query) -> str:
    """Return the kind of a query: ``text``, ``stored``, ``vector`` or ``picture``."""
    if isinstance(query, str):
        return "text"
    if isinstance(query, StoredPicture):
        return "stored"
    return "vector" if is_vector(query) else "picture"


def as_query_picture(query: Query) -> QueryPicture | None:
    """Return the query if it is a picture to be opened, else None."""
    if isinstance(query, (str, StoredPicture)) or is_vector(query):
        return None
    return query


def normalize_query_vector(query: Any, dims: int) -> Vector:
    """Scale a query vector to unit length; raise UsageError if it has other dims."""
    if query.shape != (dims,):
        raise UsageError(
            f"A vector to search for must have the index's {dims} dims, not {len(query)}; a"
            " picture is an array of two or three axes."
        )
    if query.dtype.kind not in "fiu" or not np.isfinite(query).all():
        raise UsageError("A vector to search for must be of finite numbers.")
    return _unit_or_raise(query.astype(np.float32), "The vector to search for has no direction.")


def combine_vectors(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector:
    """Sum unit vectors by weight; return the sum, of shape (dims,), at unit length.

    Rocchio 1971, "Relevance feedback in information retrieval".  Raises UsageError if the sum
    has no direction.
    """
    if len(vectors) == 1 and weights[0] > 0:
        return vectors[0]
    total: Vector = np.asarray(weights, dtype=np.float32) @ np.stack(vectors)
    return _unit_or_raise(total, "The negative queries cancel the positive ones: nothing is left.")


def _unit_or_raise(vector: Vector, message: str) -> Vector:
    # Not `unit`: np.linalg.norm takes 8 µs a vector, this 1.
    length = math.sqrt(float(vector @ vector))
    if length < _MIN_LENGTH:
        raise UsageError(message)
    scaled: Vector = vector / np.float32(length)
    return scaled


def _as_list(queries: Any) -> list[Any]:
    """Return a list of queries; a single one, even a string, as a list of one."""
    if isinstance(queries, _QUERY_TYPES) or hasattr(queries, "read") or _is_pair(queries):
        return [queries]
    # Iterating over a dict would search for its keys.
    if isinstance(queries, Mapping) or not isinstance(queries, Iterable):
        raise UsageError(f"A query is {_QUERY_KINDS}, not a {type(queries).__name__}.")
    return list(queries)


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and (isinstance(value[0], _QUERY_TYPES) or hasattr(value[0], "read"))
        and isinstance(value[1], (int, float, np.number))
        and not isinstance(value[1], bool)
    )


def _term(value: Any, sign: float) -> Term:
    query, weight = value if _is_pair(value) else (value, 1.0)
    weight = float(weight)
    if not (math.isfinite(weight) and weight > 0):
        raise UsageError(f"The weight of a query must be above 0, not {weight:g}.")
    if isinstance(query, str):
        # As the stored words are, and the texts that encoders were trained on.
        query = composed(query)
    if not (isinstance(query, _QUERY_TYPES) or hasattr(query, "read")):
        raise UsageError(f"A query is {_QUERY_KINDS}, not a {type(query).__name__}.")
    if hasattr(query, "read"):
        # Read now: hits hold their queries, and the file may be closed when they are shown.
        query = read_open_file(query)
    return Term(query, sign * weight)
