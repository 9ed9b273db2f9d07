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
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from es_imgsearch.records.partition import Partition as Partition
from es_imgsearch.records.regions import DEFAULT_GRID as DEFAULT_GRID
from es_imgsearch.records.regions import MAX_REGIONS as MAX_REGIONS
from es_imgsearch.records.regions import MIN_TILE_PIXELS as MIN_TILE_PIXELS
from es_imgsearch.records.regions import REGION_VECTOR as REGION_VECTOR
from es_imgsearch.records.regions import REGIONS_FIELD as REGIONS_FIELD
from es_imgsearch.records.regions import Box as Box
from es_imgsearch.records.regions import Grid as Grid

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
    `other_paths`, the resolved paths of the other roots of this process.  `partition`: the part of
    its files that this process looks after; None for all.
    """

    name: str
    path: Path
    follows_links: bool = field(default=False, compare=False)
    other_paths: tuple[str, ...] = field(default=(), compare=False)
    partition: Partition | None = field(default=None, compare=False)

    @property
    def is_url(self) -> bool:
        return is_url(self.path)

    def absolute(self, relative_path: str) -> str:
        """Return the path of a file of this root on this host."""
        return os.path.join(self.path, relative_path) if relative_path else str(self.path)

    @property
    def key(self) -> str:
        """Name of what this process looks after, in ids of state documents."""
        return self.name if self.partition is None else f"{self.name}/{self.partition}"

    def holds(self, relative_path: str) -> bool:
        """Return True if this process looks after a file: it is of the partition."""
        return self.partition is None or self.partition.holds(image_id(self.name, relative_path))


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
