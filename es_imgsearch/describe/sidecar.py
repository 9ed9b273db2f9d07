"""Read sidecar files of a picture: JSON, XMP, or a row of a table.

    metadata.csv               a row for each picture, named by the column file_name
    NAME.jpg.json and others   of Google Takeout
    NAME.xmp, NAME.jpg.xmp     XMP, as photo managers write it
    NAME.json, NAME.jpg.json   an object

Where several differ, the later in this list counts.  What cannot be read costs itself only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import orjson
from PIL import Image

from es_imgsearch.describe.authored_metadata import (
    MAPPING,
    MOST_KEYWORD,
    text_of,
    written_fields,
)
from es_imgsearch.describe.dates import TAKEN_MAPPING, Taken
from es_imgsearch.describe.exif import embedded_place
from es_imgsearch.describe.exif_dates import embedded_date
from es_imgsearch.describe.fitting import ERRORS_FIELD, notes, noting
from es_imgsearch.describe.places import Place
from es_imgsearch.describe.registry import WORDS
from es_imgsearch.describe.sidecars.files import Statement, read_json, read_xmp
from es_imgsearch.describe.sidecars.names import (
    TABLE,
    Listing,
    SidecarName,
    likely_sidecars,
    listed,
)
from es_imgsearch.describe.sidecars.table import read_rows
from es_imgsearch.records import utf8

SIDECAR_ID: Final = "sidecar_id"
# Values of `taken_from`.
OF_SIDECARS: Final = frozenset({"sidecar", "takeout"})

_MOST_URL = 4096  # characters; longer ones are not indexed
_ORIGIN_ATTRIBUTE = "user.xdg.origin.url"

# Folders up to which tables are looked for: the watched ones.
_tops: Collection[str] = ()


class Sidecar:
    """Fields product_id, source_url, attributes, date, place, and authored metadata.

    `sidecar_id` is a hash of what sidecars say, to detect that it changed.
    """

    name = "sidecar"
    shorter_side_pixels = 0
    mapping: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **MAPPING,
        **TAKEN_MAPPING,
        "location": {"type": "geo_point"},
        "product_id": {"type": "keyword", "fields": {"text": WORDS}},
        "source_url": {"type": "keyword", "ignore_above": 4096},
        "attributes": {"type": "flattened"},
        SIDECAR_ID: {"type": "keyword"},
    }

    def describe(self, image: Image.Image, exif: Image.Exif, path: str) -> Mapping[str, Any]:
        said = _said(path, None, _tops)
        fields = said.fields()
        if said.taken or said.takeouts_date:
            of_file = embedded_date(image, exif, {})
            if said.taken is not None:
                fields |= said.taken.refined(of_file).fields()
            elif of_file is not None:
                # Takeout knows no more than the file, and that in UTC.
                fields = {name: fields[name] for name in fields.keys() - TAKEN_MAPPING.keys()}
        if said.place is None and said.takeouts_place and embedded_place(image, exif):
            del fields["location"]
        if "source_url" not in fields and (url := _origin(path)):
            fields["source_url"] = url
        return fields


def look_for_tables_up_to(folders: Collection[str]) -> None:
    """Set the watched folders, for a table describes pictures below it, too."""
    global _tops
    _tops = tuple(folders)


def sidecar_fields(
    path: str, *, listing: Listing | None = None, tops: Collection[str] | None = None
) -> dict[str, Any]:
    """Read what a picture's sidecars say, with `sidecar_id`; empty without any.

    `listing` is that of its folder, if it is known.  What cannot be understood is noted.  Raises
    ValueError if nothing can be, OSError for a file that cannot be read.
    """
    return _said(path, listing, _tops if tops is None else tops).fields()


@dataclass(slots=True)
class _Said:
    """What all sidecars of a picture say together; `raw` is understood already."""

    raw: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    taken: Taken | None = None
    place: Place | None = None
    takeouts_date: Taken | None = None
    takeouts_place: Place | None = None
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def add(self, said: Statement, file: str) -> None:
        self.attributes |= said.attributes
        left_out: dict[str, list[str]] = {}
        found = _understood(said.fields, left_out)
        for name, value in said.fields.items():
            if name in found:
                self.raw[name] = found[name]
            elif value is not None and name not in left_out:
                self.raw.pop(name, None)  # a blank
        self.note(file, said.notes)
        self.note(file, [f"{name} {each}" for name in left_out for each in left_out[name]])
        if said.is_takeouts:
            self.takeouts_date = said.taken or self.takeouts_date
            self.takeouts_place = said.place or self.takeouts_place
        else:
            self.taken = said.taken or self.taken
            self.place = said.place or self.place

    def note(self, file: str, reasons: Collection[str]) -> None:
        if reasons:
            self.left_out.setdefault(utf8(file), []).extend(reasons)

    def fields(self) -> dict[str, Any]:
        """Return the fields, notes and hash.  Raises ValueError if there are only notes."""
        fields = dict(self.raw)
        if self.attributes:
            fields["attributes"] = self.attributes
        if taken := self.taken or self.takeouts_date:
            fields |= taken.fields()
        if place := self.place or self.takeouts_place:
            fields["location"] = place
        if self.left_out and not fields:
            found = ((name, each) for name, reasons in self.left_out.items() for each in reasons)
            raise ValueError("; ".join(f"{name} {each}" for name, each in found))
        if self.left_out:
            fields[ERRORS_FIELD] = notes(self.left_out, Sidecar.name)
        if fields:
            known = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
            fields[SIDECAR_ID] = hashlib.blake2b(known, digest_size=16).hexdigest()
        return fields


def _said(path: str, listing: Listing | None, tops: Collection[str]) -> _Said:
    folder, name = os.path.split(path)
    said = _Said()
    for row in read_rows(folder, name, tops):
        said.add(row, TABLE)
    statements = []
    for each in _sidecars(folder, name, listing):
        file = os.path.join(folder, each.name)
        try:
            if each.is_xmp:
                statement = read_xmp(file)
            else:
                statement = read_json(file, name, only_takeouts=each.is_takeouts)
        except ValueError as error:
            said.note(each.name, [str(error)])
            continue
        if statement is not None:
            statements.append((statement, each.name))
    # Of what people wrote themselves more is true.
    for statement, file in sorted(statements, key=lambda each: not each[0].is_takeouts):
        said.add(statement, file)
    return said


def _understood(raw: Mapping[str, Any], left_out: dict[str, list[str]]) -> dict[str, Any]:
    fields = written_fields(raw, left_out)
    for name, most in (("product_id", MOST_KEYWORD), ("source_url", _MOST_URL)):
        if text := text_of(raw.get(name), most, noting(left_out, name)):
            fields[name] = text
    return fields


def _sidecars(folder: str, name: str, listing: Listing | None) -> Iterator[SidecarName]:
    is_complete = True
    if listing is None:
        listing, is_complete = listed(folder)
    found = listing.sidecars_of(name)
    if not is_complete:
        known = {each.name for each in found}
        likely = [each for each in likely_sidecars(name) if each.name not in known]
        found = sorted([*found, *likely], key=lambda each: (not each.is_takeouts, not each.is_xmp))
    yield from found


def _origin(path: str) -> str:
    """Return the URL that a browser or wget stored as an extended attribute."""
    if not hasattr(os, "getxattr"):
        return ""
    try:
        return utf8(os.fsdecode(os.getxattr(path, _ORIGIN_ATTRIBUTE))).strip()[:_MOST_URL]
    except OSError:
        # Not there, or a file system that has none.
        return ""
