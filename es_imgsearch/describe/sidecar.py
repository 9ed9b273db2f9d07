"""Read sidecar files of a picture: JSON, XMP, or a row of a table.

    metadata.csv               a row for each picture in the folder, named by the column file_name
    NAME.xmp, NAME.jpg.xmp     XMP, as photo managers write it
    NAME.json, NAME.jpg.json   an object

Where several differ, the later in this list counts.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePath
from typing import Any, BinaryIO, ClassVar, Final

import orjson
from PIL import Image

from es_imgsearch.describe.authored_metadata import (
    MAPPING,
    MOST_KEYWORD,
    text_of,
    written_fields,
    xmp_properties,
)
from es_imgsearch.records import composed, utf8

TABLE: Final = "metadata.csv"
_SUFFIXES: Final = (".xmp", ".json")
SIDECAR_ID: Final = "sidecar_id"

# The datasets library of Hugging Face calls it so, in a file of the same name.
FILE_COLUMN: Final = "file_name"

_MOST_FILE_BYTES = 4 * 1024 * 1024
# 300,000 rows of 200 characters.
_MOST_TABLE_BYTES = 64 * 1024 * 1024
# Enough for the names of a table's columns.
_HEAD_BYTES = 64 * 1024
_MOST_URL = 4096  # characters; longer ones are not indexed
_MOST_DEPTH = 8
_MOST_NAME = 200  # characters
_MOST_ATTRIBUTES = 1000

_ORIGIN_ATTRIBUTE = "user.xdg.origin.url"
_OWN_NAMES = {*MAPPING, "product_id", "source_url", "attributes"}


class Sidecar:
    """Fields product_id, source_url, attributes, and authored metadata.

    `sidecar_id` is a hash of the fields from sidecars, to detect that they changed.
    """

    name = "sidecar"
    shorter_side_pixels = 0
    mapping: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **MAPPING,
        "product_id": {"type": "keyword"},
        "source_url": {"type": "keyword", "ignore_above": 4096},
        "attributes": {"type": "flattened"},
        SIDECAR_ID: {"type": "keyword"},
    }

    def describe(self, image: Image.Image, exif: Image.Exif, path: str) -> Mapping[str, Any]:
        _ = image, exif
        fields = sidecar_fields(path)
        if "source_url" not in fields and (url := _origin(path)):
            fields["source_url"] = url
        return fields


def is_sidecar(name: str) -> bool:
    """Return True if a file of this name may be the sidecar of a picture."""
    return name == TABLE or name.endswith(_SUFFIXES)


class Listing:
    """Pictures of a folder, found by their sidecar's name."""

    def __init__(self, names: Iterable[str]) -> None:
        self.pictures = [name for name in names if not is_sidecar(name)]
        self._by_stem: dict[str, list[str]] = {}
        for name in self.pictures:
            for stem in {name, _stem(name)}:
                self._by_stem.setdefault(stem, []).append(name)

    def about(self, sidecar_name: str) -> list[str]:
        """Return the pictures that this sidecar, existing or not, belongs to."""
        if sidecar_name == TABLE:
            return self.pictures
        return self._by_stem.get(sidecar_name[: sidecar_name.rindex(".")], [])


def _stem(name: str) -> str:
    return PurePath(name).stem


def sidecar_fields(path: str) -> dict[str, Any]:
    """Read the fields of a picture's sidecars with `sidecar_id`; empty without any.

    Raises ValueError for a file that cannot be understood, OSError for one that cannot be read.
    """
    folder, name = os.path.split(path)
    stem = _stem(name)
    raw_fields: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    for raw in (
        _row(os.path.join(folder, TABLE), name),
        *(_xmp(os.path.join(folder, f"{each}.xmp")) for each in (stem, name)),
        *(_object(os.path.join(folder, f"{each}.json")) for each in (stem, name)),
    ):
        attributes |= raw.pop("attributes", {})
        raw_fields |= {name: value for name, value in raw.items() if value is not None}
    fields = written_fields(raw_fields)
    if product_id := text_of(raw_fields.get("product_id"), MOST_KEYWORD):
        fields["product_id"] = product_id
    if source_url := text_of(raw_fields.get("source_url"), _MOST_URL):
        fields["source_url"] = source_url
    if attributes:
        fields["attributes"] = attributes
    if fields:
        known = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
        fields[SIDECAR_ID] = hashlib.blake2b(known, digest_size=16).hexdigest()
    return fields


def _origin(path: str) -> str:
    """Return the URL that a browser or wget stored as an extended attribute."""
    if not hasattr(os, "getxattr"):
        return ""
    try:
        return utf8(os.fsdecode(os.getxattr(path, _ORIGIN_ATTRIBUTE))).strip()[:_MOST_URL]
    except OSError:
        # Not there, or a file system that has none.
        return ""


def _xmp(path: str) -> dict[str, Any]:
    content = _content(path, _MOST_FILE_BYTES)
    if content is None:
        return {}
    try:
        found = xmp_properties(content)
    except ValueError as error:
        raise ValueError(f"{os.path.basename(path)}: {error}") from None
    identifier, source = found.pop("identifier", None), found.pop("source", None)
    return found | {"product_id": identifier, "source_url": source}


def _object(path: str) -> dict[str, Any]:
    content = _content(path, _MOST_FILE_BYTES)
    if content is None:
        return {}
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{os.path.basename(path)} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{os.path.basename(path)} holds no JSON object")  # noqa: TRY004
    return _with_attributes(found)


def _row(path: str, name: str) -> dict[str, Any]:
    table = _table_now(path)
    if table is None:
        return {}
    if table.error is not None:
        raise ValueError(table.error)
    row = table.rows.get(name) or table.rows.get(composed(name))
    if row is None:
        return {}
    named = zip(table.columns, row, strict=False)
    cells = {column: cell.strip() for column, cell in named if column}
    found: dict[str, Any] = {
        column: cell for column, cell in cells.items() if cell and column != FILE_COLUMN
    }
    for column in ("creator", "keywords"):
        if column in found:
            found[column] = [each.strip() for each in cells[column].split(";")]
    return _with_attributes(found)


def names_pictures(path: str) -> bool:
    """Return True if the table is of pictures: has a column `file_name`.

    Also True for a missing or unreadable table.
    """
    try:
        return _table_now(path) is not _OF_SOMETHING_ELSE
    except OSError:
        return True


@dataclass(frozen=True, slots=True)
class _Table:
    """Columns, and rows by file name; or the error that made it unreadable."""

    columns: list[str] = field(default_factory=list)
    rows: dict[str, list[str]] = field(default_factory=dict)
    error: str | None = None


_OF_SOMETHING_ELSE = _Table()


def _table_now(path: str) -> _Table | None:
    """Return the table in its present state; None if it is missing."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _table(path, status.st_mtime_ns, status.st_size, status.st_ino)


# One folder's pictures come one after the other, and every worker reads some of them.
@lru_cache(maxsize=2)
def _table(path: str, mtime_ns: int, size_bytes: int, inode: int) -> _Table | None:
    """Read the table in this state once, even if it is unreadable."""
    _ = mtime_ns, inode
    with _opened(path) as file:
        if file is None:
            return None
        head = file.read(_HEAD_BYTES)
        if FILE_COLUMN not in _columns(head):
            return _OF_SOMETHING_ELSE
        if size_bytes > _MOST_TABLE_BYTES:
            return _Table(error=_too_large(path, _MOST_TABLE_BYTES))
        content = head + file.read()
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        columns = [column.strip() for column in next(reader, [])]
        at = columns.index(FILE_COLUMN)
        rows = {row[at].strip(): row for row in reader if len(row) > at}
        # The table may be written on another system than the pictures were named on.
        return _Table(columns, {**{composed(name): row for name, row in rows.items()}, **rows})
    except UnicodeDecodeError as error:
        return _Table(error=f"{TABLE} is not UTF-8 ({error.reason} at byte {error.start})")
    except csv.Error as error:
        return _Table(error=f"{TABLE} is no CSV: {error}")


def _columns(head: bytes) -> list[str]:
    try:
        text = head.decode("utf-8-sig", errors="replace")
        return [column.strip() for column in next(csv.reader(io.StringIO(text, newline="")), [])]
    except csv.Error:
        return []


def _with_attributes(found: Mapping[str, Any]) -> dict[str, Any]:
    """Keep our own names; put everything else into `attributes`."""
    own = {name: value for name, value in found.items() if name in _OWN_NAMES}
    free = {name: value for name, value in found.items() if name not in _OWN_NAMES}
    attributes = own.pop("attributes", None)
    if attributes is not None:
        free |= attributes if isinstance(attributes, dict) else {"attributes": attributes}
    return {**own, "attributes": _attributes(free)}


def _attributes(found: Mapping[str, Any]) -> dict[str, Any]:
    return dict(list(_named(found, _MOST_DEPTH).items())[:_MOST_ATTRIBUTES])


def _named(found: Mapping[str, Any], depth: int) -> dict[str, Any]:
    # A `flattened` field takes no name that is empty or holds a NUL.
    plain = ((text_of(name, _MOST_NAME), _plain(value, depth)) for name, value in found.items())
    return {name: value for name, value in plain if name and value not in ("", [], {})}


def _plain(value: Any, depth: int) -> Any:
    """Texts, lists and objects of texts: `flattened` compares nothing else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict) and depth:
        return _named(value, depth - 1)
    if isinstance(value, list) and depth:
        return [each for each in (_plain(one, depth - 1) for one in value) if each]
    return text_of(value, MOST_KEYWORD)


def _content(path: str, most_bytes: int) -> bytes | None:
    """Return a regular file's bytes; None without such a file."""
    with _opened(path) as file:
        if file is None:
            return None
        if os.fstat(file.fileno()).st_size > most_bytes:
            raise ValueError(_too_large(path, most_bytes))
        return file.read()


def _too_large(path: str, most_bytes: int) -> str:
    return f"{os.path.basename(path)} is larger than {most_bytes >> 20} MB"


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO | None]:
    """Open a regular file; None without such a file."""
    descriptor = None
    with suppress(FileNotFoundError, NotADirectoryError):
        # Without O_NONBLOCK the opening of a named pipe waits for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor is None:
        yield None
        return
    with os.fdopen(descriptor, "rb") as file:
        yield file if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
