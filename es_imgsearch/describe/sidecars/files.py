"""Open and parse sidecar files: what one of them says of a picture."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Final

from es_imgsearch.describe.authored_metadata import MAPPING, MOST_KEYWORD, text_of
from es_imgsearch.describe.dates import Taken, read_date
from es_imgsearch.describe.fitting import Note
from es_imgsearch.describe.places import Place, read_place, xmp_place
from es_imgsearch.describe.sidecars import takeout
from es_imgsearch.describe.texts import decoded_text
from es_imgsearch.describe.xmp import DIGITIZED_DATES, ORIGINAL_DATES, xmp_properties
from es_imgsearch.records import open_at_once

_MOST_FILE_BYTES = 4 * 1024 * 1024
_MOST_DEPTH = 8
_MOST_NAME = 200  # characters
_MOST_ATTRIBUTES = 1000
_MOST_DIGITS = 300  # of a number; longer ones are no numbers

_UNDECODED = "\ufffd"

_OWN_NAMES: Final = {*MAPPING, "product_id", "source_url", "attributes"}
# All names that a statement takes a meaning from.
STATED_NAMES: Final = {*_OWN_NAMES, "taken_at", "location", "latitude", "longitude"}


@dataclass(slots=True)
class Statement:
    """What one sidecar says: raw fields, attributes, date, place, and notes.

    `notes` say what could not be read.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    taken: Taken | None = None
    place: Place | None = None
    notes: list[str] = field(default_factory=list)
    is_takeouts: bool = False


def read_xmp(path: str) -> Statement | None:
    """Read an XMP file; None without such a file.  Raises ValueError, OSError."""
    content = content_of(path, _MOST_FILE_BYTES)
    if content is None:
        return None
    found = xmp_properties(content)
    fields = {name: found[name] for name in MAPPING if name in found}
    fields |= {"product_id": found.get("identifier"), "source_url": found.get("source")}
    statement = Statement(fields)
    for name in (*ORIGINAL_DATES, *DIGITIZED_DATES):
        if statement.taken is None:
            statement.taken = _date(name, found.get(name, ""), statement.notes)
    reasons: list[str] = []
    statement.place = xmp_place(found, reasons.append)
    statement.notes += (f"location {reason}" for reason in reasons)
    return statement


def read_json(path: str, picture: str, *, only_takeouts: bool) -> Statement | None:
    """Read a JSON file about a picture; None without one, or of another picture.

    With `only_takeouts` others than Google's are ignored.  Raises ValueError, OSError.
    """
    content = content_of(path, _MOST_FILE_BYTES)
    if content is None:
        return None
    try:
        # NaN, lone surrogates and bare line ends cost themselves, not the file.
        found = json.loads(decoded_text(content), strict=False, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        if only_takeouts:
            return None
        raise ValueError(f"is no JSON: {error}") from None
    if not isinstance(found, dict):
        if only_takeouts:
            return None
        raise ValueError("holds no JSON object")
    if takeout.is_takeout(found):
        return _of_takeout(found) if takeout.may_be_of(found, picture) else None
    return None if only_takeouts else statement_of(found)


def statement_of(found: Mapping[str, Any]) -> Statement:
    """Read our own names; everything else goes into the attributes."""
    undecoded = [name for name, value in found.items() if _UNDECODED in f"{name}{value}"]
    found = {name: value for name, value in found.items() if name not in undecoded}
    own = {name: value for name, value in found.items() if name in _OWN_NAMES}
    free = {name: value for name, value in found.items() if name not in _OWN_NAMES}
    attributes = own.pop("attributes", None)
    if attributes is not None:
        free |= attributes if isinstance(attributes, dict) else {"attributes": attributes}
    statement = Statement(own)
    statement.attributes = _attributes(free, statement.notes)
    statement.notes += (f"{name} is in an unknown encoding" for name in undecoded)
    statement.taken = _date("taken_at", found.get("taken_at"), statement.notes)
    try:
        where = found.get("location")
        if where is None:
            where = {"lat": found.get("latitude"), "lon": found.get("longitude")}
        statement.place = read_place(where)
    except ValueError as error:
        statement.notes.append(f"location {error}")
    return statement


def _of_takeout(found: dict[str, Any]) -> Statement:
    # Its title is the picture's first name.
    title = found.pop("title", None)
    statement = statement_of(found)
    reasons: list[str] = []
    if name := text_of(title, MOST_KEYWORD, reasons.append):
        statement.attributes["title"] = name
    statement.notes += (f"title {reason}" for reason in reasons)
    statement.is_takeouts = True
    statement.taken = takeout.taken_of(found, statement.notes)
    statement.place = takeout.place_of(found, statement.notes)
    return statement


def _date(name: str, value: Any, notes: list[str]) -> Taken | None:
    reasons: list[str] = []
    text = value if isinstance(value, str) else text_of(value, MOST_KEYWORD, reasons.append)
    notes += (f"{name} {reason}" for reason in reasons)
    try:
        taken = read_date(text)
    except ValueError as error:
        notes.append(f"{name} {error}")
        return None
    return None if taken is None else replace(taken, source="sidecar")


def _integer(digits: str) -> int | float:
    # Python refuses to convert very long ones.
    return int(digits) if len(digits) <= _MOST_DIGITS else math.nan


def _attributes(found: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    named = _named(found, _MOST_DEPTH, notes.append)
    if len(named) > _MOST_ATTRIBUTES:
        notes.append(f"attributes: of {len(named):,} the first {_MOST_ATTRIBUTES:,} are stored")
    return dict(list(named.items())[:_MOST_ATTRIBUTES])


def _named(found: Mapping[str, Any], depth: int, note: Note) -> dict[str, Any]:
    # A `flattened` field takes no name that is empty or holds a NUL.
    named = {}
    for name, value in found.items():
        plain = _plain(value, depth, _under(name, note))
        if (key := text_of(name, _MOST_NAME, note)) and plain not in ("", [], {}):
            named[key] = plain
    return named


def _under(name: str, note: Note) -> Note:
    return lambda reason: note(f"{name[:40]} {reason}")


def _plain(value: Any, depth: int, note: Note) -> Any:
    """Texts, lists and objects of texts: `flattened` compares nothing else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict) and depth:
        return _named(value, depth - 1, note)
    if isinstance(value, list) and depth:
        return [each for each in (_plain(one, depth - 1, note) for one in value) if each]
    return text_of(value, MOST_KEYWORD, note)


# -- Files


def content_of(path: str, most_bytes: int) -> bytes | None:
    """Return a regular file's bytes; None without one.  Raises ValueError, OSError."""
    with opened(path) as file:
        if file is None:
            return None
        if os.fstat(file.fileno()).st_size > most_bytes:
            raise ValueError(too_large(most_bytes))
        return file.read()


def too_large(most_bytes: int) -> str:
    return f"is larger than {most_bytes >> 20} MB"


@contextmanager
def opened(path: str) -> Iterator[BinaryIO | None]:
    """Open a regular file; None without such a file."""
    descriptor = None
    with suppress(FileNotFoundError, NotADirectoryError):
        descriptor = open_at_once(path)
    if descriptor is None:
        yield None
        return
    with os.fdopen(descriptor, "rb") as file:
        yield file if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
