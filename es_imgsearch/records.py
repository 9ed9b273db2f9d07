"""The records that travel through the house, and the names they go by.

    Change ──read──▶ Picture ──embed──▶ Embedded ──write──▶ Elasticsearch

A path inside a root is kept as `os.fsdecode` gives it (undecodable bytes are lone
surrogates); `stored_path` is the form Elasticsearch can hold and sort.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from es_imgsearch.errors import UsageError

_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_LOOKS_ESCAPED = re.compile(rb"\\(?=x[0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class Root:
    """A watched folder: the `name` its documents carry, and where it is on this host."""

    name: str
    path: Path

    def absolute(self, relative_path: str) -> str:
        """The path to open, as `str`, of a file of this root."""
        return os.path.join(self.path, relative_path) if relative_path else str(self.path)


class FileState(NamedTuple):
    """What tells one version of a file from another without reading it."""

    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        return cls(status.st_size, status.st_mtime_ns)

    @classmethod
    def stored(cls, fields: Mapping[str, Any]) -> FileState:
        """As a document has it; one that was imported need not, and then no file is like it."""
        return cls(fields.get("size_bytes", -1), fields.get("mtime_ns", -1))


@dataclass(frozen=True, slots=True)
class Change:
    """Something may be different at this path; the disk says what.

    `detected_at` is `time.time()` of the event or comparison, from which `ingest_lag_ms` counts.
    """

    root: Root
    relative_path: str
    detected_at: float

    @property
    def image_id(self) -> str:
        return image_id(self.root.name, self.relative_path)


# x, y, width, height in pixels of the upright picture.
Box = tuple[int, int, int, int]


class Tile(NamedTuple):
    """A part of a picture, as an array for the encoder."""

    box: Box
    pixels: npt.NDArray[np.uint8]


class Region(NamedTuple):
    """A part of a picture, and its vector of shape (dims,)."""

    box: Box
    vector: npt.NDArray[np.float32]


@dataclass(slots=True)
class Picture:
    """A file read: the arrays for the encoder and every field that needs no vector.

    `tiles` are empty unless the index keeps regions.  `told` says which of the fields the file
    itself gave (under an empty name) and which each describer, by its name.
    """

    content_id: str
    state: FileState
    pixels: npt.NDArray[np.uint8]
    fields: dict[str, Any] = field(default_factory=dict)
    read_ms: float = 0.0
    tiles: Sequence[Tile] = ()
    described: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def without_pixels(self) -> Picture:
        """What is written of it: its arrays, which take the memory, are let go."""
        return replace(self, pixels=np.empty((0, 0, 3), np.uint8), tiles=())


class Embedded(NamedTuple):
    """What an encoder made of a picture: a vector of shape (dims,), and fields if it gives any.

    `regions` are those of its tiles, where the index keeps them.
    """

    vector: npt.NDArray[np.float32]
    fields: Mapping[str, Any] = MappingProxyType({})
    regions: Sequence[Region] = ()


def image_id(root_name: str, relative_path: str) -> str:
    """`_id` of the file's document: 32 hex digits of BLAKE2b over root name and path bytes."""
    key = root_name.encode() + b"\0" + os.fsencode(relative_path)
    return hashlib.blake2b(key, digest_size=16).hexdigest()


def unit(vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Scale vectors, of shape (dims,) or (n, dims), to length 1 as float32; zeros stay zeros."""
    rows = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: npt.NDArray[np.float32] = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled


def iso_timestamp(moment: datetime | None = None, timespec: str = "seconds") -> str:
    """Format a moment, by default now, for a date field: ISO 8601 with its offset, UTC for now."""
    return (moment or datetime.now(tz=UTC)).isoformat(timespec=timespec)


def is_text(text: str) -> bool:
    """Whether it is valid Unicode: what the system gives may hold lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def stored_path(relative_path: str) -> str:
    r"""A path as the index holds it: UTF-8, any other byte written `\xHH`.

    Reversible: a backslash that would read as such an escape is itself written `\x5c`.
    """
    raw = _LOOKS_ESCAPED.sub(rb"\\x5c", os.fsencode(relative_path))
    return raw.decode("utf-8", errors="backslashreplace")


def disk_path(stored: str) -> str:
    """The inverse of `stored_path`, as `os.fsdecode` would give it."""
    raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), stored.encode())
    return os.fsdecode(raw)


# Regions: the tiles of a picture that get vectors of their own, so that a crop is found.
#
# A vector of a whole picture is made of everything in it; a part that fills a quarter of it may
# have a rather different one.  The vector of a tile as large as that part is near to the part's
# own, which is why grids of tiles are an old remedy in instance retrieval (Razavian et al. 2014,
# *CNN Features off-the-shelf*; Tolias, Sicre and Jégou 2016, R-MAC).
#
# Pure functions: boxes are worked out here, cut in `read`, embedded in `stages`.

REGIONS_FIELD = "regions"
REGION_VECTOR = "regions.embedding"
DEFAULT_GRID = "2x2+centre"

# Each region is stored, indexed and embedded like a picture of its own.
MOST_REGIONS = 16
# A tile smaller than this shows nothing that a crop could be recognised by.
LEAST_SIDE_PIXELS = 16

_CENTRE = "+centre"
_GRID = re.compile(r"([1-9])x([1-9])(\+centre)?")


@dataclass(frozen=True, slots=True)
class Grid:
    """How a picture is cut: `columns` x `rows` tiles, and one of their size in the middle."""

    columns: int
    rows: int
    has_centre: bool = False

    @classmethod
    def parse(cls, text: str) -> Grid:
        """A grid written like ``2x2+centre`` or ``3x3``.  Raises UsageError."""
        match = _GRID.fullmatch(text)
        grid = match and cls(int(match[1]), int(match[2]), match[3] is not None)
        if not grid or not 2 <= grid.count <= MOST_REGIONS:
            raise UsageError(
                f"Regions are a grid of 2 to {MOST_REGIONS} tiles, such as {DEFAULT_GRID} or 3x3,"
                f" not {text!r}."
            )
        return grid

    def __str__(self) -> str:
        return f"{self.columns}x{self.rows}{_CENTRE if self.has_centre else ''}"

    @property
    def count(self) -> int:
        """How many tiles a picture has, at most."""
        return self.columns * self.rows + self.has_centre

    def to_body(self) -> dict[str, Any]:
        """As it stands in `_meta`."""
        return {"grid": str(self)}

    @classmethod
    def from_body(cls, body: Mapping[str, Any] | None) -> Grid | None:
        """Raises KeyError, TypeError or ValueError for what is not one."""
        try:
            return None if body is None else cls.parse(body["grid"])
        except UsageError as error:
            raise ValueError(str(error)) from None

    def boxes(self, width: int, height: int) -> list[Box]:
        """Boxes (x, y, width, height), row by row, then the middle; none of a picture too small.

        The tiles cover every pixel once: their edges are rounded, not their sizes.
        """
        if min(width // self.columns, height // self.rows) < LEAST_SIDE_PIXELS:
            return []
        across = [round(n * width / self.columns) for n in range(self.columns + 1)]
        down = [round(n * height / self.rows) for n in range(self.rows + 1)]
        boxes = [
            (left, top, right - left, bottom - top)
            for top, bottom in pairwise(down)
            for left, right in pairwise(across)
        ]
        if self.has_centre:
            wide, high = width // self.columns, height // self.rows
            middle = ((width - wide) // 2, (height - high) // 2, wide, high)
            boxes += [middle] if middle not in boxes else []
        return boxes


def utf8(text: str) -> str:
    """Without lone surrogates (of names that are not UTF-8), which JSON cannot hold."""
    return text.encode(errors="backslashreplace").decode()


# What the `info` of a converted picture says, where some of it was transparent.
TRANSPARENT = "is_transparent"
