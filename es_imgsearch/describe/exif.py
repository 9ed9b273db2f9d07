"""What the camera wrote: when, with what, where.

Tags as in CIPA DC-008 (Exif 2.32); cameras and editors break every rule of it, so each field
is read on its own and left out when it makes no sense.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

from PIL import ExifTags, Image

_EARLIEST_YEAR = 1826  # the first photograph that is left
_LARGEST_OFFSET = timedelta(hours=14)  # of the world's time zones; Elasticsearch takes 18


class Exif:
    """Fields taken_at, camera and location."""

    name = "exif"
    shorter_side_pixels = 0
    mapping: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "taken_at": {"type": "date"},
        "camera": {"type": "keyword"},
        "location": {"type": "geo_point"},
    }

    def describe(self, image: Image.Image, exif: Image.Exif, path: str) -> Mapping[str, Any]:
        _ = image, path
        fields = {
            "taken_at": _taken_at(exif),
            "camera": _camera(exif),
            "location": _location(exif),
        }
        return {name: value for name, value in fields.items() if value is not None}


def _taken_at(exif: Image.Exif) -> str | None:
    """ISO 8601 to the second; without an offset where the camera wrote none."""
    details = _part(exif, ExifTags.IFD.Exif)
    for moment_tag, offset_tag in (
        (ExifTags.Base.DateTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
        (ExifTags.Base.DateTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
    ):
        text = _text(details.get(moment_tag))
        try:
            moment = datetime.strptime(text[:19], "%Y:%m:%d %H:%M:%S")  # noqa: DTZ007
        except ValueError:
            continue
        if moment.year < _EARLIEST_YEAR:
            continue
        return moment.isoformat() + _offset(_text(details.get(offset_tag)))
    return None


def _offset(text: str) -> str:
    """`+HH:MM` as the camera wrote it, or nothing where that is none."""
    try:
        offset = datetime.strptime(text, "%z").utcoffset()
    except ValueError:
        return ""
    if offset is None or abs(offset) > _LARGEST_OFFSET:
        return ""
    minutes = round(offset.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _camera(exif: Image.Exif) -> str | None:
    make, model = _text(exif.get(ExifTags.Base.Make)), _text(exif.get(ExifTags.Base.Model))
    # "NIKON CORPORATION" makes the "NIKON D90".
    brand = make.partition(" ")[0].lower()
    if model.lower().startswith(brand):
        return model[:256] or None
    return f"{make} {model}".strip()[:256] or None


def _location(exif: Image.Exif) -> dict[str, float] | None:
    gps = _part(exif, ExifTags.IFD.GPSInfo)
    tags = ExifTags.GPS
    latitude = _degrees(gps.get(tags.GPSLatitude), gps.get(tags.GPSLatitudeRef), "NS", 90)
    longitude = _degrees(gps.get(tags.GPSLongitude), gps.get(tags.GPSLongitudeRef), "EW", 180)
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):
        return None
    return {"lat": latitude, "lon": longitude}


def _degrees(value: Any, reference: Any, halves: str, limit: int) -> float | None:
    """Signed degrees; None without the hemisphere, which half of all guesses would miss."""
    half = _text(reference)[:1].upper()
    if not half or half not in halves or not isinstance(value, (tuple, list)):
        return None
    try:
        degrees, minutes, seconds = (float(part) for part in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    angle = degrees + minutes / 60 + seconds / 3600
    if not math.isfinite(angle) or abs(angle) > limit:
        return None
    return round(-abs(angle) if half == halves[1] else angle, 7)


def _part(exif: Image.Exif, part: ExifTags.IFD) -> Mapping[int, Any]:
    try:
        return exif.get_ifd(part)
    except Exception:  # noqa: BLE001 - malformed EXIF raises anything; the other parts are good
        return {}


def _text(value: Any) -> str:
    """What stands before the first NUL; what is no text counts as absent."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    return value.partition("\0")[0].strip() if isinstance(value, str) else ""
