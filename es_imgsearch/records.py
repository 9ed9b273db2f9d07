"""Records that the packages exchange, and the ids and paths of files.

    Change ──read──▶ Picture ──embed──▶ Embedded ──write──▶ Elasticsearch

A path in a root is as `os.fsdecode` returns it (undecodable bytes are lone surrogates);
`stored_path` is the form that Elasticsearch can store and sort.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from es_imgsearch.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# NumPy takes 90 ms of CPU to import, a third of a search that a running `serve` answers, which
# needs only paths of this module: functions import it.

_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_LOOKS_ESCAPED = re.compile(rb"\\(?=x[0-9a-f]{2})")


class UrlPath(type(Path())):  # type: ignore[misc]
    """The path of a root, or of a file in it, that is a URL: `s3://bucket/prefix`."""

    def __str__(self) -> str:
        return str(super().__str__()).replace(":/", "://", 1)


def is_url(path: str | Path) -> bool:
    """Return True for a URL, which `watch.sources` opens."""
    return _URL.match(str(path)) is not None


def path_of(text: str) -> Path:
    """Return the path of a root or a file, which may be a URL."""
    return UrlPath(text) if is_url(text) else Path(text)


@dataclass(frozen=True, slots=True)
class Root:
    """A watched folder or URL: its name in documents, and its path on this host.

    `follows_links`: links to folders in it are entered, but for those that lead into one of
    `other_paths`, the resolved paths of the other roots of this process.
    """

    name: str
    path: Path
    follows_links: bool = field(default=False, compare=False)
    other_paths: tuple[str, ...] = field(default=(), compare=False)

    @property
    def is_url(self) -> bool:
        return is_url(self.path)

    def absolute(self, relative_path: str) -> str:
        """Return the path of a file of this root on this host."""
        return os.path.join(self.path, relative_path) if relative_path else str(self.path)


def stored_ns(nanoseconds: int) -> int:
    """Clamp nanoseconds since 1970 to 64 bits, years 1677 to 2262.

    CIFS and NTFS give times of 1601 or 30828, which no `long` of Elasticsearch can hold.
    """
    return max(-(2**63), min(nanoseconds, 2**63 - 1))


class FileState(NamedTuple):
    """Size and modification time, which differ between versions of a file.

    The time is clamped as it is stored, so that the file and its document compare equal.
    """

    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        """Take the state from the result of `os.stat`."""
        return cls(status.st_size, stored_ns(status.st_mtime_ns))

    @classmethod
    def stored(cls, fields: Mapping[str, Any]) -> FileState:
        """Take the state from a document; without one (imported) it equals no file's."""
        return cls(fields.get("size_bytes", -1), fields.get("mtime_ns", -1))


class FileSignature(NamedTuple):
    """State and identity of a file.

    Differs for a replaced file of the same size and modification time.
    """

    state: FileState
    inode: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileSignature:
        """Take the signature from the result of `os.stat`."""
        return cls(FileState.of(status), status.st_ino, stored_ns(status.st_ctime_ns))


@dataclass(frozen=True, slots=True)
class Change:
    """A path whose file may have been added, changed or removed.

    `detected_at` is `time.time()` of the event or comparison, the start of `ingest_lag_ms`.
    `event_at` is `time.monotonic()` of the event; None if nothing is known of it but the change.
    `listed` is the state that a listing of a URL showed, which saves a request for each file.
    """

    root: Root
    relative_path: str
    detected_at: float
    event_at: float | None = None
    listed: FileState | None = field(default=None, compare=False)

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
    """A picture file as read: arrays for the encoder, and fields without vectors.

    `tiles` are empty unless the index has regions.  `fields_by_source` has the fields of the file
    itself (under an empty name), and of each describer by its name; `fields` has all.  `signature`
    is that of the opened file before the read, which began at `read_began_at` (`time.monotonic()`,
    the same clock in all processes).
    """

    content_id: str
    signature: FileSignature
    pixels: npt.NDArray[np.uint8]
    fields: dict[str, Any] = field(default_factory=dict)
    read_ms: float = 0.0
    tiles: Sequence[Tile] = ()
    fields_by_source: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    read_began_at: float = 0.0
    describer_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def state(self) -> FileState:
        return self.signature.state

    def without_pixels(self) -> Picture:
        """Return a copy without the arrays, which take the memory."""
        import numpy as np

        return replace(self, pixels=np.empty((0, 0, 3), np.uint8), tiles=())


class Embedded(NamedTuple):
    """An encoder's output for a picture: a vector (dims,), and perhaps fields.

    `regions` are the vectors of its tiles, if the index has regions.
    """

    vector: npt.NDArray[np.float32]
    fields: Mapping[str, Any] = MappingProxyType({})
    regions: Sequence[Region] = ()


def image_id(root_name: str, relative_path: str) -> str:
    """Return the `_id` of a file: BLAKE2b of root name and path, 32 hex digits."""
    key = root_name.encode() + b"\0" + os.fsencode(relative_path)
    return hashlib.blake2b(key, digest_size=16).hexdigest()


def unit(vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Scale vectors, (dims,) or (n, dims), to length 1 as float32; zeros stay zeros."""
    import numpy as np

    rows = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: npt.NDArray[np.float32] = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled


def iso_timestamp(moment: datetime | None = None, timespec: str = "seconds") -> str:
    """Format a moment, by default now in UTC, as ISO 8601 with its offset."""
    return (moment or datetime.now(tz=UTC)).isoformat(timespec=timespec)


def is_text(text: str) -> bool:
    """Return True if the text is valid Unicode: file names may have lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def stored_path(relative_path: str) -> str:
    r"""Return a path as the index stores it: UTF-8, any other byte written `\xHH`.

    Reversible: a backslash that looks like the start of such an escape is written `\x5c`.
    """
    raw = _LOOKS_ESCAPED.sub(rb"\\x5c", os.fsencode(relative_path))
    return raw.decode("utf-8", errors="backslashreplace")


def disk_path(stored: str) -> str:
    """Return the path on disk of a stored path: the inverse of `stored_path`."""
    raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), stored.encode())
    return os.fsdecode(raw)


# -- regions: tiles of a picture with vectors of their own, so that a crop is found ----------------
#
# A part that fills a quarter of a picture is closer to the vector of a tile of that size than to
# that of the whole: instance retrieval uses grids of tiles (Razavian et al. 2014, *CNN Features
# off-the-shelf*; Tolias, Sicre and Jégou 2016, R-MAC).

REGIONS_FIELD = "regions"
REGION_VECTOR = "regions.embedding"
DEFAULT_GRID = "2x2+centre"

# Each region is stored, indexed and embedded like a picture of its own.
MAX_REGIONS = 16
# A smaller tile shows too little to recognise a crop by.
MIN_TILE_PIXELS = 16

_CENTRE = "+centre"
_GRID = re.compile(r"([1-9])x([1-9])(\+centre)?")


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid of `columns` x `rows` tiles, and perhaps one of their size in the middle."""

    columns: int
    rows: int
    has_centre: bool = False

    @classmethod
    def parse(cls, text: str) -> Grid:
        """Parse text like ``2x2+centre`` or ``3x3``.  Raises UsageError."""
        match = _GRID.fullmatch(text)
        grid = match and cls(int(match[1]), int(match[2]), match[3] is not None)
        if not grid or not 2 <= grid.count <= MAX_REGIONS:
            raise UsageError(
                f"Regions are a grid of 2 to {MAX_REGIONS} tiles, such as {DEFAULT_GRID} or 3x3,"
                f" not {text!r}."
            )
        return grid

    def __str__(self) -> str:
        return f"{self.columns}x{self.rows}{_CENTRE if self.has_centre else ''}"

    @property
    def count(self) -> int:
        """The largest number of tiles of a picture."""
        return self.columns * self.rows + self.has_centre

    def to_body(self) -> dict[str, Any]:
        """Return the grid's entry in `_meta`."""
        return {"grid": str(self)}

    @classmethod
    def from_body(cls, body: Mapping[str, Any] | None) -> Grid | None:
        """Read an entry of `_meta`; KeyError, TypeError or ValueError if it is invalid."""
        try:
            return None if body is None else cls.parse(body["grid"])
        except UsageError as error:
            raise ValueError(str(error)) from None

    def boxes(self, width: int, height: int) -> list[Box]:
        """Return boxes (x, y, width, height) row by row, then the middle one.

        There are none if the picture is too small.  The grid covers every pixel once: edges are
        rounded, not sizes.
        """
        if min(width // self.columns, height // self.rows) < MIN_TILE_PIXELS:
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


def composed(text: str) -> str:
    """Compose letters and marks (NFC) as typed; never for opening a file or an id."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """Fold what people do not type alike: case, width and normal form.

    Texts that differ in nothing else become equal: as definition D146 of Unicode, without invisible
    letters, and with single spaces.
    """
    spread = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", text).casefold())
    seen = "".join(each for each in spread if unicodedata.category(each) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", seen.casefold()).split())


def utf8(text: str) -> str:
    """Escape lone surrogates, of names that are not UTF-8; JSON has none."""
    return text.encode(errors="backslashreplace").decode()


def open_at_once(path: str | Path) -> int:
    """Open a file to read; never wait for the writer of a named pipe."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


# Key in `Image.info` of a converted picture: whether some of it was transparent.
TRANSPARENT = "is_transparent"
