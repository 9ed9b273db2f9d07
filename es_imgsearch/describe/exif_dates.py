"""Find in a picture's file when it was taken: EXIF, XMP and IPTC.

First what dates the moment itself, then what dates its digitizing, as in the Guidelines for
Handling Image Metadata 2.0 (Metadata Working Group, 2010): a scan of 2024 shows 1954.

    EXIF DateTimeOriginal · XMP exif:DateTimeOriginal, photoshop:DateCreated · IPTC DateCreated
    EXIF DateTimeDigitized · XMP xmp:CreateDate, exif:DateTimeDigitized · IPTC DigitalCreationDate
    GPS time · EXIF DateTime
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from PIL import ExifTags, Image

from es_imgsearch.describe.dates import Taken, read_date
from es_imgsearch.describe.fitting import Note, ignore
from es_imgsearch.describe.iptc import iim_dates
from es_imgsearch.describe.texts import text_of_tag
from es_imgsearch.describe.xmp import DIGITIZED_DATES, ORIGINAL_DATES, packet_properties

_TAGS = ExifTags.Base
_FRACTIONS = {
    _TAGS.DateTimeOriginal: _TAGS.SubsecTimeOriginal,
    _TAGS.DateTimeDigitized: _TAGS.SubsecTimeDigitized,
    _TAGS.DateTime: _TAGS.SubsecTime,
}
# Of each date its own offset counts first.
_OFFSETS = {
    _TAGS.DateTimeOriginal: _TAGS.OffsetTimeOriginal,
    _TAGS.DateTimeDigitized: _TAGS.OffsetTimeDigitized,
    _TAGS.DateTime: _TAGS.OffsetTime,
}
_ANY_OFFSET = (_TAGS.OffsetTime, _TAGS.OffsetTimeOriginal, _TAGS.OffsetTimeDigitized)
_MOST_HOURS = 14  # of an offset


class _Claim(NamedTuple):
    """A date as it stands in the file, under this name."""

    name: str
    source: str
    text: str
    offset: str = ""
    fraction: str = ""


def embedded_date(
    image: Image.Image, exif: Image.Exif, left_out: dict[str, list[str]]
) -> Taken | None:
    """Return the first date of the file that can be read; None without one.

    Adds to `left_out` the reasons for those before it that cannot be, by name.
    """
    for claim in _claims(image, exif):
        try:
            taken = read_date(claim.text, offset=claim.offset, fraction=claim.fraction)
        except ValueError as error:
            left_out[claim.name] = [str(error)]
            continue
        if taken is not None:
            if taken.offset is None and claim.offset:
                left_out[f"offset of {claim.name}"] = [
                    f"{claim.offset[:40]!r} is no offset from UTC"
                ]
            return replace(taken, source=claim.source)
    return None


def _claims(image: Image.Image, exif: Image.Exif) -> Iterator[_Claim]:
    details = part_of(exif, ExifTags.IFD.Exif)
    properties = packet_properties(image)
    iim = iim_dates(image, exif)
    for tag, names, set_name in (
        (_TAGS.DateTimeOriginal, ORIGINAL_DATES, "DateCreated"),
        (_TAGS.DateTimeDigitized, DIGITIZED_DATES, "DigitalCreationDate"),
    ):
        yield _of_tag(tag, exif, details)
        for name in names:
            yield _Claim(name, "xmp", str(properties.get(name, "")))
        yield _Claim(f"IPTC {set_name}", "iptc", iim.get(set_name, ""))
    yield _of_gps(part_of(exif, ExifTags.IFD.GPSInfo))
    yield _of_tag(_TAGS.DateTime, exif, details)


def _of_tag(tag: ExifTags.Base, exif: Image.Exif, details: Mapping[int, Any]) -> _Claim:
    # Some writers put tags of the one directory into the other.
    def value(tag: int) -> Any:
        return details.get(tag, exif.get(tag))

    offsets = (text_of_tag(value(each)) for each in (_OFFSETS[tag], *_ANY_OFFSET))
    offset = next((each for each in offsets if any(map(str.isalnum, each))), "")
    return _Claim(
        tag.name,
        "exif",
        text_of_tag(value(tag)),
        offset or _zone(value(_TAGS.TimeZoneOffset)),
        text_of_tag(value(_FRACTIONS[tag])),
    )


def _zone(value: Any) -> str:
    """Return the offset of TIFF/EP, in hours, as a text."""
    hours = value[0] if isinstance(value, (tuple, list)) and value else value
    return f"{hours:+}" if isinstance(hours, int) and abs(hours) <= _MOST_HOURS else ""


def _of_gps(gps: Mapping[int, Any]) -> _Claim:
    """Return the time of the satellites, which is UTC."""
    claim = _Claim("GPSDateStamp", "gps", "")
    day, time = text_of_tag(gps.get(ExifTags.GPS.GPSDateStamp)), gps.get(ExifTags.GPS.GPSTimeStamp)
    if not day or not isinstance(time, (tuple, list)):
        return claim
    try:
        hour, minute, second = (float(part) for part in time)
        text = f"{day} {int(hour):02}:{int(minute):02}:{second:06.3f}"
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return claim
    return claim._replace(text=text, offset="Z")


def part_of(exif: Image.Exif, part: ExifTags.IFD, note: Note = ignore) -> Mapping[int, Any]:
    """Return a directory of EXIF; empty if it is missing, or malformed and noted."""
    try:
        return exif.get_ifd(part)
    except Exception as error:  # noqa: BLE001 - malformed EXIF raises anything; the rest is good
        note(f"{part.name} is malformed: {type(error).__name__}: {error}")
        return {}
