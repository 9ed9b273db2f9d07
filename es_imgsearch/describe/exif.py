"""What the camera wrote: when, with what, where.

Tags as in CIPA DC-008 (Exif 2.32); cameras and editors break every rule of it, so each field
is read on its own and left out when it makes no sense.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from PIL import ExifTags, Image

_EARLIEST_YEAR = 1826  # the first photograph that is left


class Exif:
    """Fields taken_at, camera and location."""

    name = "exif"
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
    """ISO 8601 with milliseconds; without an offset where the camera wrote none."""
    details = exif.get_ifd(ExifTags.IFD.Exif)
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
        offset = _text(details.get(offset_tag))
        try:
            return datetime.fromisoformat(f"{moment.isoformat()}{offset}").isoformat()
        except ValueError:
            return moment.isoformat()
    return None


def _camera(exif: Image.Exif) -> str | None:
    make, model = _text(exif.get(ExifTags.Base.Make)), _text(exif.get(ExifTags.Base.Model))
    if model.lower().startswith(make.lower()):
        return model[:256] or None
    return f"{make} {model}".strip()[:256] or None


def _location(exif: Image.Exif) -> dict[str, float] | None:
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    latitude = _degrees(gps.get(ExifTags.GPS.GPSLatitude), _text(gps.get(1)), "S", 90)
    longitude = _degrees(gps.get(ExifTags.GPS.GPSLongitude), _text(gps.get(3)), "W", 180)
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):
        return None
    return {"lat": latitude, "lon": longitude}


def _degrees(value: Any, reference: str, negative: str, limit: int) -> float | None:
    try:
        degrees, minutes, seconds = (float(part) for part in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    angle = degrees + minutes / 60 + seconds / 3600
    if not math.isfinite(angle) or abs(angle) > limit:
        return None
    return round(-angle if reference.upper() == negative else angle, 7)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    return str(value).replace("\0", "").strip() if value is not None else ""
