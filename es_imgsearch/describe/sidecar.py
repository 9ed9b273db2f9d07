"""Files beside a picture that say more of it: JSON, XMP, or a row of a table.

    metadata.csv               a row for each picture in the folder, named by the column file_name
    NAME.xmp, NAME.jpg.xmp     XMP, as photo managers write it
    NAME.json, NAME.jpg.json   an object

Where several say something different, the later in this list counts.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import PurePath
from typing import Any, ClassVar, Final

import orjson
from PIL import Image

from es_imgsearch.decoding import utf8
from es_imgsearch.describe.written import MAPPING, MOST_KEYWORD, text_of, written_fields
from es_imgsearch.describe.xmp import xmp_properties

TABLE: Final = "metadata.csv"
_SUFFIXES: Final = (".xmp", ".json")
SIDECAR_ID: Final = "sidecar_id"

# The datasets library of Hugging Face calls it so, in a file of the same name.
_FILE_COLUMN: Final = "file_name"

_MOST_FILE_BYTES = 4 * 1024 * 1024
# 300,000 rows of 200 characters.
_MOST_TABLE_BYTES = 64 * 1024 * 1024
_MOST_URL = 4096  # characters; longer ones are not indexed
_MOST_DEPTH = 8
_MOST_NAME = 200  # characters
_MOST_ATTRIBUTES = 1000

_ORIGIN_ATTRIBUTE = "user.xdg.origin.url"
_OWN_NAMES = {*MAPPING, "product_id", "source_url", "attributes"}


class Sidecar:
    """Fields product_id, source_url, attributes, and those of `written.MAPPING`.

    `sidecar_id` is a hash of what the files beside the picture say: it tells that they changed.
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
    """Whether a file of this name may say something of a picture beside it."""
    return name == TABLE or name.endswith(_SUFFIXES)


def pictures_of(sidecar_name: str, names: list[str]) -> list[str]:
    """Those of a folder's file names that are pictures this file may say something of."""
    if sidecar_name == TABLE:
        return [name for name in names if not is_sidecar(name)]
    stem = sidecar_name[: sidecar_name.rindex(".")]
    return [name for name in names if not is_sidecar(name) and stem in (name, PurePath(name).stem)]


def sidecar_fields(path: str) -> dict[str, Any]:
    """What the files beside a picture say of it, with its `sidecar_id`; empty where there is none.

    Raises ValueError for a file that cannot be understood, OSError for one that cannot be read.
    """
    folder, name = os.path.split(path)
    stem = PurePath(name).stem
    said: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    for raw in (
        _row(os.path.join(folder, TABLE), name),
        *(_xmp(os.path.join(folder, f"{each}.xmp")) for each in (stem, name)),
        *(_object(os.path.join(folder, f"{each}.json")) for each in (stem, name)),
    ):
        attributes |= raw.pop("attributes", {})
        said |= {name: value for name, value in raw.items() if value is not None}
    fields = written_fields(said)
    if product_id := text_of(said.get("product_id"), MOST_KEYWORD):
        fields["product_id"] = product_id
    if source_url := text_of(said.get("source_url"), _MOST_URL):
        fields["source_url"] = source_url
    if attributes:
        fields["attributes"] = attributes
    if fields:
        known = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
        fields[SIDECAR_ID] = hashlib.blake2b(known, digest_size=16).hexdigest()
    return fields


def _origin(path: str) -> str:
    """Where a browser or wget says that it has the file from."""
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
    return _sorted_out(found)


def _row(path: str, name: str) -> dict[str, Any]:
    try:
        status = os.stat(path)
    except OSError:
        return {}
    columns, rows = _table(path, status.st_mtime_ns, status.st_size, status.st_ino)
    row = rows.get(name)
    if row is None:
        return {}
    cells = {column: cell.strip() for column, cell in zip(columns, row, strict=False) if column}
    found: dict[str, Any] = {
        column: cell for column, cell in cells.items() if cell and column != _FILE_COLUMN
    }
    for column in ("creator", "keywords"):
        if column in found:
            found[column] = [each.strip() for each in cells[column].split(";")]
    return _sorted_out(found)


# One folder's pictures come one after the other, and every worker reads some of them.
@lru_cache(maxsize=2)
def _table(
    path: str, mtime_ns: int, size_bytes: int, inode: int
) -> tuple[list[str], dict[str, list[str]]]:
    """The columns, and the rows by file name, of a table in this state."""
    _ = mtime_ns, size_bytes, inode
    content = _content(path, _MOST_TABLE_BYTES)
    if content is None:
        return [], {}
    reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    try:
        columns = [column.strip() for column in next(reader, [])]
        if _FILE_COLUMN not in columns:
            raise ValueError(f"{TABLE} has no column {_FILE_COLUMN}")
        at = columns.index(_FILE_COLUMN)
        return columns, {row[at].strip(): row for row in reader if len(row) > at}
    except csv.Error as error:
        raise ValueError(f"{TABLE} is no CSV: {error}") from None


def _sorted_out(found: Mapping[str, Any]) -> dict[str, Any]:
    """Our own names as they are; everything else among `attributes`."""
    own = {name: value for name, value in found.items() if name in _OWN_NAMES}
    free = {name: value for name, value in found.items() if name not in _OWN_NAMES}
    given = own.pop("attributes", None)
    if given is not None:
        free |= given if isinstance(given, dict) else {"attributes": given}
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
    """A regular file's bytes; None where there is none."""
    try:
        # Without O_NONBLOCK the opening of a named pipe waits for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return None
        if status.st_size > most_bytes:
            raise ValueError(f"{os.path.basename(path)} is larger than {most_bytes >> 20} MB")
        return file.read()
