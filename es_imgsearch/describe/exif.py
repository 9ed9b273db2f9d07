"""Read EXIF: date, camera, lens, exposure and location.

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


# Beyond what any camera does: seconds, focal ratio, ISO speed, millimetres.
_MOST_EXPOSURE_SECONDS = 1e5
_MOST_F_NUMBER = 1e3
_MOST_ISO = 100_000_000
_MOST_FOCAL_LENGTH_MM = 1e5


class Exif:
    """Fields taken_at, camera, lens, location and those of the exposure."""

    name = "exif"
    shorter_side_pixels = 0
    mapping: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "taken_at": {"type": "date"},
        "camera": {"type": "keyword"},
        "lens": {"type": "keyword"},
        "exposure_seconds": {"type": "float"},
        "f_number": {"type": "float"},
        "iso": {"type": "integer"},
        "focal_length_mm": {"type": "float"},
        "location": {"type": "geo_point"},
    }

    def describe(self, image: Image.Image, exif: Image.Exif, path: str) -> Mapping[str, Any]:
        _ = image, path
        details = _part(exif, ExifTags.IFD.Exif)
        tags = ExifTags.Base
        iso = _number(details.get(tags.ISOSpeedRatings), _MOST_ISO)
        fields = {
            "taken_at": _taken_at(details),
            "camera": _device(exif.get(tags.Make), exif.get(tags.Model)),
            "lens": _device(details.get(tags.LensMake), details.get(tags.LensModel)),
            "exposure_seconds": _number(details.get(tags.ExposureTime), _MOST_EXPOSURE_SECONDS),
            "f_number": _number(details.get(tags.FNumber), _MOST_F_NUMBER),
            "iso": None if iso is None else round(iso) or None,
            "focal_length_mm": _number(details.get(tags.FocalLength), _MOST_FOCAL_LENGTH_MM),
            "location": _location(exif),
        }
        return {name: value for name, value in fields.items() if value is not None}


def _taken_at(details: Mapping[int, Any]) -> str | None:
    """Return ISO 8601 to the second, with an offset only if the camera wrote one."""
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
    """Return the offset as `+HH:MM`; empty if it is missing or invalid."""
    try:
        offset = datetime.strptime(text, "%z").utcoffset()
    except ValueError:
        return ""
    if offset is None or abs(offset) > _LARGEST_OFFSET:
        return ""
    minutes = round(offset.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _device(maker: Any, name: Any) -> str | None:
    make, model = _text(maker), _text(name)
    # "NIKON CORPORATION" makes the "NIKON D90".
    brand = make.partition(" ")[0].lower()
    if model.lower().startswith(brand):
        return model[:256] or None
    return f"{make} {model}".strip()[:256] or None


def _number(value: Any, most: float) -> float | None:
    """Return a positive number of at most `most`, to six digits; else None."""
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    # Comparing with NaN is never true.
    return float(f"{number:.6g}") if 0 < number <= most else None


def _location(exif: Image.Exif) -> dict[str, float] | None:
    gps = _part(exif, ExifTags.IFD.GPSInfo)
    tags = ExifTags.GPS
    latitude = _degrees(gps.get(tags.GPSLatitude), gps.get(tags.GPSLatitudeRef), "NS", 90)
    longitude = _degrees(gps.get(tags.GPSLongitude), gps.get(tags.GPSLongitudeRef), "EW", 180)
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):
        return None
    return {"lat": latitude, "lon": longitude}


def _degrees(value: Any, reference: Any, halves: str, limit: int) -> float | None:
    """Return signed degrees; None without the hemisphere, which cannot be guessed."""
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
    """Return the text before the first NUL; empty for a value that is no text."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    return value.partition("\0")[0].strip() if isinstance(value, str) else ""
