"""Read EXIF: date, camera, lens, exposure and location.

Tags as in CIPA DC-008 (Exif 2.32); cameras and editors break every rule of it, so each field
is read on its own and left out when it makes no sense.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, ClassVar

from PIL import ExifTags, Image

from es_imgsearch.describe.dates import TAKEN_MAPPING, date_in_name
from es_imgsearch.describe.exif_dates import embedded_date, part_of
from es_imgsearch.describe.fitting import ERRORS_FIELD, Note, ignore, notes, noting
from es_imgsearch.describe.places import Place, place, xmp_place
from es_imgsearch.describe.plain_values import shown
from es_imgsearch.describe.texts import text_of_tag
from es_imgsearch.describe.xmp import packet_properties

# Beyond what any camera does: seconds, focal ratio, ISO speed, millimetres.
_MOST_EXPOSURE_SECONDS = 1e5
_MOST_F_NUMBER = 1e3
_MOST_ISO = 100_000_000
_MOST_FOCAL_LENGTH_MM = 1e5


class Exif:
    """Fields of date, camera, lens, location and exposure.

    The date and the place may come from XMP and IPTC in the file, the date from its name, too.
    """

    name = "exif"
    shorter_side_pixels = 0
    mapping: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **TAKEN_MAPPING,
        "camera": {"type": "keyword"},
        "lens": {"type": "keyword"},
        "exposure_seconds": {"type": "float"},
        "f_number": {"type": "float"},
        "iso": {"type": "integer"},
        "focal_length_mm": {"type": "float"},
        "location": {"type": "geo_point"},
    }

    def describe(self, image: Image.Image, exif: Image.Exif, path: str) -> Mapping[str, Any]:
        left_out: dict[str, list[str]] = {}
        details = part_of(exif, ExifTags.IFD.Exif, noting(left_out, "EXIF"))
        taken = embedded_date(image, exif, left_out)
        taken = taken or date_in_name(os.path.basename(path))
        tags = ExifTags.Base
        iso = _number(details.get(tags.ISOSpeedRatings), _MOST_ISO)
        fields: dict[str, Any] = {
            **(taken.fields() if taken else {}),
            "camera": _device(exif.get(tags.Make), exif.get(tags.Model)),
            "lens": _device(details.get(tags.LensMake), details.get(tags.LensModel)),
            "exposure_seconds": _number(details.get(tags.ExposureTime), _MOST_EXPOSURE_SECONDS),
            "f_number": _number(details.get(tags.FNumber), _MOST_F_NUMBER),
            "iso": None if iso is None else round(iso) or None,
            "focal_length_mm": _number(details.get(tags.FocalLength), _MOST_FOCAL_LENGTH_MM),
            "location": embedded_place(image, exif, noting(left_out, "location")),
        }
        if left_out:
            fields[ERRORS_FIELD] = notes(left_out, self.name)
        return {name: value for name, value in fields.items() if value is not None}


def _device(maker: Any, name: Any) -> str | None:
    make, model = text_of_tag(maker), text_of_tag(name)
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


def embedded_place(image: Image.Image, exif: Image.Exif, note: Note = ignore) -> Place | None:
    """Return the place that the file names: in EXIF, or else in XMP.

    Notes what is no place.
    """
    gps = part_of(exif, ExifTags.IFD.GPSInfo, note)
    tags = ExifTags.GPS
    latitude = _degrees(gps.get(tags.GPSLatitude), gps.get(tags.GPSLatitudeRef), "NS", 90)
    longitude = _degrees(gps.get(tags.GPSLongitude), gps.get(tags.GPSLongitudeRef), "EW", 180)
    if latitude is not None and longitude is not None:
        return place(latitude, longitude)
    angles = gps.get(tags.GPSLatitude), gps.get(tags.GPSLongitude)
    if not all(map(_is_blank, angles)):
        north, east = gps.get(tags.GPSLatitudeRef), gps.get(tags.GPSLongitudeRef)
        written = f"{shown(angles[0])} {shown(north)}, {shown(angles[1])} {shown(east)}"
        note(f"GPS {written} is no place")
    return xmp_place(packet_properties(image), note)


def _is_blank(value: Any) -> bool:
    """Return True for zeros, 0/0 and blanks, which cameras write without a place."""
    if isinstance(value, (tuple, list)):
        return all(map(_is_blank, value))
    if isinstance(value, (str, bytes)):
        return not text_of_tag(value)
    return not getattr(value, "numerator", value)


def _degrees(value: Any, reference: Any, halves: str, limit: int) -> float | None:
    """Return signed degrees; None without the hemisphere, which cannot be guessed."""
    half = text_of_tag(reference)[:1].upper()
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
