"""Read title, description, creator, keywords and rating from the file.

From the two forms of IPTC (Photo Metadata Standard 2023.1: XMP, and the older IIM 4.2) and
from EXIF.  Where they differ, XMP counts first and EXIF last, as programs always write XMP
(Metadata Working Group, Guidelines for Handling Image Metadata 2.0, 2010).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from PIL import ExifTags, Image

from es_imgsearch.describe.authored_metadata import MAPPING, written_fields
from es_imgsearch.describe.fitting import ERRORS_FIELD, Note, ignore, notes, noting
from es_imgsearch.describe.texts import decoded_value, text_of_tag
from es_imgsearch.describe.xmp import packet_properties

# Where a file keeps IIM: a resource of Photoshop's (in JPEG), a tag of TIFF.
_IIM_RESOURCE = 0x0404
_IIM_TAG = 33723

_MARKER = 0x1C
_HEADER_BYTES = 5
# Record and number of a dataset.
_IIM_CHARACTERS = (1, 90)
_IIM_UTF8 = b"\x1b%G"
_IIM_NAMES = {(2, 5): "title", (2, 120): "description", (2, 80): "creator", (2, 25): "keywords"}
_IIM_LISTS = {"creator", "keywords"}
_IIM_DATES = {"DateCreated": ((2, 55), (2, 60)), "DigitalCreationDate": ((2, 62), (2, 63))}
_IIM_TIME = re.compile(r"[0-9]{2}:?[0-9]{2}")
_EXTENDED_LENGTH = 0x8000

_XP_TITLE, _XP_KEYWORDS, _RATING = 0x9C9B, 0x9C9E, 0x4746

# Cameras write their maker's name here.
_NO_DESCRIPTION = ("digital camera", "samsung", "dcim", "default", "untitled")


class Iptc:
    """Fields title, description, creator, keywords and rating."""

    name = "iptc"
    shorter_side_pixels = 0
    mapping: ClassVar[Mapping[str, Mapping[str, Any]]] = MAPPING

    def describe(self, image: Image.Image, exif: Image.Exif, path: str) -> Mapping[str, Any]:
        _ = path
        left_out: dict[str, list[str]] = {}
        fields = _of_exif(exif, left_out)
        fields |= written_fields(_iim(image, exif, noting(left_out, "IPTC")), left_out)
        packet = packet_properties(image, noting(left_out, "XMP"))
        fields |= written_fields(packet, left_out)
        return fields | ({ERRORS_FIELD: notes(left_out, self.name)} if left_out else {})


def _of_exif(exif: Image.Exif, left_out: dict[str, list[str]]) -> dict[str, Any]:
    description = text_of_tag(exif.get(ExifTags.Base.ImageDescription))
    if description.lower().endswith(_NO_DESCRIPTION):
        description = ""
    return written_fields(
        {
            "title": _windows_text(exif.get(_XP_TITLE)),
            "description": description,
            "creator": text_of_tag(exif.get(ExifTags.Base.Artist)).split(";"),
            "keywords": _windows_text(exif.get(_XP_KEYWORDS)).split(";"),
            "rating": exif.get(_RATING),
        },
        left_out,
    )


def _windows_text(value: Any) -> str:
    """Decode UTF-16 as Windows writes it: bytes, or a tuple of their values."""
    try:
        return bytes(value).decode("utf-16-le").partition("\0")[0].strip()
    except (TypeError, ValueError):
        return ""


def iim_dates(image: Image.Image, exif: Image.Exif) -> dict[str, str]:
    """Return the texts of the date sets of IIM by their names, each with its time."""
    found: dict[tuple[int, int], str] = {}
    for dataset, value in _datasets(_iim_block(image, exif)):
        found.setdefault(dataset, value.decode("ascii", "replace").strip())
    dates = {}
    for name, (day, time) in _IIM_DATES.items():
        if day in found:
            moment = found.get(time, "")
            dates[name] = f"{found[day]}T{moment}" if _IIM_TIME.match(moment) else found[day]
    return dates


def _iim_block(image: Image.Image, exif: Image.Exif) -> bytes:
    resources = image.info.get("photoshop")
    block = resources.get(_IIM_RESOURCE) if isinstance(resources, Mapping) else None
    if block is None:
        block = exif.get(_IIM_TAG)
    return block if isinstance(block, bytes) else b""


def _iim(image: Image.Image, exif: Image.Exif, note: Note) -> dict[str, Any]:
    raw: dict[str, Any] = {}
    is_utf8 = False
    for dataset, value in _datasets(_iim_block(image, exif), note):
        if dataset == _IIM_CHARACTERS:
            is_utf8 = value == _IIM_UTF8
        if (name := _IIM_NAMES.get(dataset)) is None:
            continue
        text = value.decode("utf-8", "replace") if is_utf8 else decoded_value(value)
        if name in _IIM_LISTS:
            raw.setdefault(name, []).append(text)
        else:
            raw.setdefault(name, text)
    return raw


def _datasets(block: bytes, note: Note = ignore) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yield (record, number) and bytes of each dataset, up to a malformed one."""
    at = 0
    while at + _HEADER_BYTES <= len(block) and block[at] == _MARKER:
        length = int.from_bytes(block[at + 3 : at + 5])
        start = at + _HEADER_BYTES
        if length >= _EXTENDED_LENGTH or start + length > len(block):
            break
        yield (block[at + 1], block[at + 2]), block[start : start + length]
        at = start + length
    # (Blocks are padded.)
    if block[at:].strip(b"\0 "):
        note(f"is malformed from byte {at:,} of {len(block):,}")
