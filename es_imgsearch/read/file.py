"""Read a path into a picture: identified by content, upright, RGB.

Runs in a worker process (`read.workers`), because the files may be hostile.

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
import io
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum, auto
from functools import partial
from io import BufferedReader
from pathlib import PurePosixPath
from typing import IO, Any

from PIL import Image, UnidentifiedImageError

from es_imgsearch.describe.fields import checked, failed, merged
from es_imgsearch.errors import ReadError
from es_imgsearch.read.decoding import PICTURE_SUFFIXES, Decoded, as_read_errors, decode, words_of
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.read.rare_formats import HeaderInvalid
from es_imgsearch.records import (
    FileSignature,
    FileState,
    Grid,
    Picture,
    Tile,
    is_url,
    open_at_once,
)
from es_imgsearch.watch.sources.opened import opened_at

# A worker holds a file up to this size in memory.
_WHOLE_BYTES = 64 * 2**20
# Of a URL without a picture's name so much shows whether it is one.
_HEAD_BYTES = 64 * 2**10
_OTHER_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{0,7}")

# A describer gets the upright RGB picture, its EXIF data and its path.
Describe = Callable[[Image.Image, Image.Exif, str], Mapping[str, Any]]


class Skipped(Enum):
    """Reason why a path gives neither a picture nor a failure."""

    NOT_A_PICTURE = auto()
    GONE = auto()
    CHANGING = auto()
    # After an event, which alone may show that it changed.
    UNSEEN = auto()


def read_file(
    path: str,
    preparation: Preparation,
    describers: Sequence[tuple[str, Describe]] = (),
    *,
    max_pixels: int,
    grid: Grid | None = None,
    shorter_side_pixels: int | None = None,
) -> Picture | Skipped:
    """Read the picture in a file for the encoder; with a grid, its tiles, too.

    With `shorter_side_pixels` it is decoded as small as that allows: it must be enough for the
    preparation (of a tile, where there is a grid) and for every describer.
    Raises ReadError for a file that is (or is named like) a picture and cannot be read.
    A file that changes while it is read, or is not there, is no failure: see Skipped.
    """
    began_at = time.monotonic()
    read = partial(
        _picture_in, path=path, preparation=preparation, describers=describers, grid=grid,
        max_pixels=max_pixels, shorter_side_pixels=shorter_side_pixels,
    )  # fmt: skip
    picture = _read_url(path, read) if is_url(path) else _read_local(path, read)
    if isinstance(picture, Picture):
        picture.read_began_at = began_at
        picture.read_ms = (time.monotonic() - began_at) * 1000
    return picture


def _read_local(path: str, read: Callable[..., Picture | Skipped]) -> Picture | Skipped:
    try:
        descriptor = open_at_once(path)
    except OSError as error:
        return _not_opened(error)
    with ExitStack() as opened, _io_errors():
        opened.callback(os.close, descriptor)
        signature = FileSignature.of(before := os.fstat(descriptor))
        if not stat.S_ISREG(before.st_mode):
            return Skipped.NOT_A_PICTURE
        file = opened.enter_context(os.fdopen(descriptor, "rb", closefd=False))
        try:
            picture = read(file, signature)
        except ReadError:
            if FileState.of(os.fstat(descriptor)) != signature.state:
                return Skipped.CHANGING
            raise
        if FileState.of(os.fstat(descriptor)) != signature.state:
            return Skipped.CHANGING
    return picture


def _read_url(path: str, read: Callable[..., Picture | Skipped]) -> Picture | Skipped:
    """Read what a source opens: all of it is here before it is decoded.

    Of a file without a picture's name only the beginning comes, unless that is one.
    """
    if is_named_otherwise(path):
        return Skipped.NOT_A_PICTURE
    try:
        with ExitStack() as opened:
            if PurePosixPath(path).suffix.lower() not in PICTURE_SUFFIXES:
                head = opened.enter_context(opened_at(path, only_bytes=_HEAD_BYTES))
                if not _begins_like_a_picture(head.content):
                    return Skipped.NOT_A_PICTURE
            found = opened.enter_context(opened_at(path))
            with _io_errors():
                return read(found.content, FileSignature.of(found.status))
    except OSError as error:
        return _not_opened(error)


def is_named_otherwise(path: str) -> bool:
    """Return True for a name with the suffix of something else, such as `.json`.

    At a URL it is not read: each listing would read all of them again.
    """
    suffix = PurePosixPath(path).suffix.lower()
    return suffix not in PICTURE_SUFFIXES and _OTHER_SUFFIX.fullmatch(suffix) is not None


def _begins_like_a_picture(head: IO[bytes]) -> bool:
    try:
        Image.open(head).close()
    except Exception as error:  # noqa: BLE001 - whatever else fails, the whole file shows it
        return not isinstance(error, UnidentifiedImageError)
    return True


def _picture_in(
    file: BufferedReader | IO[bytes],
    signature: FileSignature,
    *,
    path: str,
    preparation: Preparation,
    describers: Sequence[tuple[str, Describe]],
    grid: Grid | None,
    max_pixels: int,
    shorter_side_pixels: int | None,
) -> Picture | Skipped:
    suffix = PurePosixPath(path).suffix.lower()
    found = _decoded(file, suffix, signature.state, max_pixels, shorter_side_pixels)
    if isinstance(found, Skipped):
        return found
    return _picture(*found, path, signature, preparation, describers, grid)


def hash_file(path: str, *, only_in: FileState) -> str | None:
    """Return the content id of a file; None unless it is, and stays, in this state.

    Raises OSError if it cannot be read.
    """
    if is_url(path):
        with opened_at(path) as (content, status):
            return _content_id(content) if FileState.of(status) == only_in else None
    descriptor = open_at_once(path)
    with os.fdopen(descriptor, "rb") as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode) or FileState.of(before) != only_in:
            return None
        content_id = _content_id(file)
        return content_id if FileState.of(os.fstat(descriptor)) == only_in else None


@contextmanager
def _io_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ReadError("io_error", words_of(error)) from error


def _not_opened(error: OSError) -> Skipped:
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
        return Skipped.GONE
    if error.errno in {errno.EISDIR, errno.ENXIO}:
        # No regular file any more.
        return Skipped.GONE
    if error.errno == errno.EWOULDBLOCK:
        # A lease is held (by Samba while a client writes); O_NONBLOCK never waits.
        return Skipped.CHANGING
    if error.errno in {errno.EACCES, errno.EPERM}:
        raise ReadError("permission_denied", "This file may not be read.") from error
    raise ReadError("io_error", words_of(error)) from error


def _decoded(
    file: BufferedReader | IO[bytes],
    suffix: str,
    state: FileState,
    max_pixels: int,
    shorter_side_pixels: int | None,
) -> tuple[Decoded, str] | Skipped:
    """Decode a file and hash the same bytes; another program may change them.

    A file up to `_WHOLE_BYTES` is read once, into memory.  A larger one is hashed before and after
    it is decoded.  Of one without a picture's name only the beginning is read, unless it is one.
    """
    named_like_a_picture = suffix in PICTURE_SUFFIXES
    if state.size_bytes == 0:
        if named_like_a_picture:
            raise ReadError("empty", "The file is empty.")
        return Skipped.NOT_A_PICTURE
    decode_ = partial(
        decode, max_pixels=max_pixels, suffix=suffix, shorter_side_pixels=shorter_side_pixels
    )
    if not named_like_a_picture:
        try:
            decode_(file)
        except ReadError as error:
            if isinstance(error, HeaderInvalid) or error.error_class == "unidentified":
                return Skipped.NOT_A_PICTURE
            raise
    file.seek(0)
    if state.size_bytes <= _WHOLE_BYTES:
        content = io.BytesIO(file.read())
        return decode_(content), _content_id(content)
    content_id = _content_id(file)
    file.seek(0)
    decoded = decode_(file)
    return (decoded, content_id) if _content_id(file) == content_id else Skipped.CHANGING


def _picture(
    decoded: Decoded,
    content_id: str,
    path: str,
    signature: FileSignature,
    preparation: Preparation,
    describers: Sequence[tuple[str, Describe]],
    grid: Grid | None,
) -> Picture:
    width, height = decoded.size
    seconds: dict[str, float] = {}
    described: dict[str, Mapping[str, Any]] = {
        "": {
            "format": decoded.format.lower(),
            "width": width,
            "height": height,
            "orientation": _orientation(width, height),
        }
    }
    for name, describe in describers:
        began_at = time.monotonic()
        try:
            described[name] = checked(describe(decoded.image, decoded.exif, path), name)
        except Exception as error:  # noqa: BLE001 - a plug-in's failure costs its fields only
            described[name] = failed(name, error)
        seconds[name] = time.monotonic() - began_at
    with as_read_errors():
        pixels = preparation.apply(decoded.image, decoded.size)
        picture = Picture(
            content_id,
            signature,
            pixels,
            merged(described),
            fields_by_source=described,
            describer_seconds=seconds,
        )
        if grid is not None:
            picture.tiles = _tiles(decoded, grid, preparation)
        return picture


def _tiles(decoded: Decoded, grid: Grid, preparation: Preparation) -> list[Tile]:
    """Crop and prepare tiles; their boxes are in pixels of the whole picture."""
    image, (width, height) = decoded.image, decoded.size
    across, down = image.width / width, image.height / height
    tiles = []
    for x, y, wide, high in grid.boxes(width, height):
        left, top = round(x * across), round(y * down)
        right, bottom = round((x + wide) * across), round((y + high) * down)
        part = image.crop((left, top, right, bottom))
        tiles.append(Tile((x, y, wide, high), preparation.apply(part, (wide, high))))
    return tiles


def _orientation(width: int, height: int) -> str:
    if width == height:
        return "square"
    return "landscape" if width > height else "portrait"


def _content_id(file: BufferedReader | IO[bytes]) -> str:
    file.seek(0)
    digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))  # type: ignore[arg-type]
    return digest.hexdigest()
