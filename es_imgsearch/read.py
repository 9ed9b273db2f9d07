"""A path, or bytes, become a picture: identified by content, upright, RGB, of sane size.

Meant to run in a worker process (`workers.py`), because what it opens may be hostile.

Error classes of a ReadError, stable names that failure documents carry:

    empty               no bytes at all
    unidentified        named like a picture, but no known format
    truncated           ends too early
    corrupt             a known format that does not decode
    too_large           more pixels than `max_pixels`
    out_of_memory       decoding needs more memory than a worker may use
    timeout             reading took longer than `read_timeout_seconds`
    crashed             the decoder took its process down
    permission_denied   the file may not be read
    io_error            the disk or the network share failed
    embed_failed        the encoder could not embed it
    rejected            Elasticsearch refused its document
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from io import BufferedReader
from pathlib import PurePosixPath
from typing import Any

from PIL import Image

from es_imgsearch.decoding import PICTURE_SUFFIXES, decode, told, words_of
from es_imgsearch.described import checked, failed, merge
from es_imgsearch.errors import ReadError
from es_imgsearch.preparation import Preparation
from es_imgsearch.rare_formats import HeaderInvalid
from es_imgsearch.records import FileState, Picture, Tile
from es_imgsearch.regions import Grid

# A describer gets the upright RGB picture, its EXIF data and its path.
Describe = Callable[[Image.Image, Image.Exif, str], Mapping[str, Any]]


class Skipped(Enum):
    """Why a path gives neither a picture nor a failure."""

    NOT_A_PICTURE = auto()
    GONE = auto()
    CHANGING = auto()


def read_file(
    path: str,
    preparation: Preparation,
    describers: Sequence[tuple[str, Describe]] = (),
    *,
    max_pixels: int,
    grid: Grid | None = None,
) -> Picture | Skipped:
    """The picture in a file, ready for the encoder; with its tiles where there is a grid.

    Raises ReadError for a file that is (or is named like) a picture and cannot be read.
    A file that changes while it is read, or is not there, is no failure: see Skipped.
    """
    started = time.perf_counter()
    try:
        # Without O_NONBLOCK the opening of a named pipe waits for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return _not_opened(error)
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        os.close(descriptor)
        return Skipped.NOT_A_PICTURE
    with os.fdopen(descriptor, "rb") as file:
        state = FileState.of(before)
        suffix = PurePosixPath(path).suffix.lower()
        try:
            picture = _read_open(
                file, path, suffix, state, preparation, describers, max_pixels, grid
            )
        except ReadError:
            if FileState.of(os.fstat(file.fileno())) != state:
                return Skipped.CHANGING
            raise
        except OSError as error:
            raise ReadError("io_error", words_of(error)) from error
        if FileState.of(os.fstat(file.fileno())) != state:
            return Skipped.CHANGING
    if isinstance(picture, Picture):
        picture.read_ms = (time.perf_counter() - started) * 1000
    return picture


def _not_opened(error: OSError) -> Skipped:
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE}:
        return Skipped.GONE
    if error.errno == errno.EWOULDBLOCK:
        # Somebody holds a lease on it (Samba does while a client writes); O_NONBLOCK never waits.
        return Skipped.CHANGING
    if error.errno in {errno.EISDIR, errno.ENXIO, errno.ENODEV}:
        return Skipped.NOT_A_PICTURE
    if error.errno in {errno.EACCES, errno.EPERM}:
        raise ReadError("permission_denied", "This file may not be read.") from error
    raise ReadError("io_error", words_of(error)) from error


def _read_open(
    file: BufferedReader,
    path: str,
    suffix: str,
    state: FileState,
    preparation: Preparation,
    describers: Sequence[tuple[str, Describe]],
    max_pixels: int,
    grid: Grid | None,
) -> Picture | Skipped:
    named_like_a_picture = suffix in PICTURE_SUFFIXES
    if state.size_bytes == 0:
        if named_like_a_picture:
            raise ReadError("empty", "The file is empty.")
        return Skipped.NOT_A_PICTURE
    try:
        decoded = decode(file, max_pixels=max_pixels, suffix=suffix)
    except ReadError as error:
        no_picture = isinstance(error, HeaderInvalid) or error.error_class == "unidentified"
        if no_picture and not named_like_a_picture:
            return Skipped.NOT_A_PICTURE
        raise
    file.seek(0)
    content_id = hashlib.file_digest(file, _content_hash).hexdigest()
    image = decoded.image
    fields: dict[str, Any] = {
        "format": decoded.format.lower(),
        "width": image.width,
        "height": image.height,
        "orientation": _orientation(image),
    }
    for name, describe in describers:
        try:
            described = checked(describe(image, decoded.exif, path))
        except Exception as error:  # noqa: BLE001 - a plug-in's failure costs its fields only
            described = failed(name, error)
        merge(fields, described)
    with told():
        picture = Picture(content_id, state, preparation.apply(image), fields)
        if grid is not None:
            picture.tiles = _tiles(image, grid, preparation)
        return picture


def _tiles(image: Image.Image, grid: Grid, preparation: Preparation) -> list[Tile]:
    return [
        Tile((x, y, width, height), preparation.apply(image.crop((x, y, x + width, y + height))))
        for x, y, width, height in grid.boxes(image.width, image.height)
    ]


def _orientation(image: Image.Image) -> str:
    if image.width == image.height:
        return "square"
    return "landscape" if image.width > image.height else "portrait"


def _content_hash() -> Any:
    return hashlib.blake2b(digest_size=16)
