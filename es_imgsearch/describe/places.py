"""Read where a picture was taken: coordinates as programs write them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from es_imgsearch.describe.fitting import Note, ignore

Place: TypeAlias = dict[str, float]

_DIGITS = 7  # of a degree; 1 cm
_MOST_CHARACTERS = 64  # of a coordinate
# 48,12,30N or 48,12.5N as in XMP; the hemisphere and the parts after the first may be missing.
# No repeat gives back what it took, so that the time is linear in the length.
_COORDINATE = re.compile(
    r"(?P<degrees>[+-]?[0-9]{1,3}(?:\.[0-9]+)?)(?:[,°\s]\s*+(?P<minutes>[0-9]{1,2}(?:\.[0-9]+)?))?"
    r"(?:[,'′\s]\s*+(?P<seconds>[0-9]{1,2}(?:\.[0-9]+)?))?[\"″\s]*+(?P<half>[NSEWnsew]?)"
)


def place(latitude: float, longitude: float) -> Place | None:
    """Return a geo_point; None for no place, and for 0, 0, which means none."""
    if not (math.isfinite(latitude) and math.isfinite(longitude)):
        return None
    if abs(latitude) > 90 or abs(longitude) > 180 or (latitude == 0 and longitude == 0):
        return None
    return {"lat": round(latitude, _DIGITS), "lon": round(longitude, _DIGITS)}


def xmp_place(properties: Mapping[str, Any], note: Note = ignore) -> Place | None:
    """Return the place in properties of XMP, if any; note one that cannot be."""
    latitude, longitude = (properties.get(f"exif:GPS{each}") for each in ("Latitude", "Longitude"))
    return place_of_pair(latitude, longitude, note)


def place_of_pair(latitude: Any, longitude: Any, note: Note) -> Place | None:
    """Return the place of these coordinates; None with a note if they are none."""
    try:
        return read_place({"lat": latitude, "lon": longitude})
    except ValueError as error:
        note(str(error))
        return None


def read_place(value: Any) -> Place | None:
    """Read a place: {"lat", "lon"}, "48.2,16.37", GeoJSON's [16.37, 48.2].

    None for a value without numbers, such as the name of a town, and for 0, 0.  Raises ValueError
    for anything else.
    """
    latitude, longitude = _pair(value)
    if isinstance(value, Mapping) and "coordinates" not in value:
        if _is_blank(latitude) and _is_blank(longitude):
            return None
    elif not re.search("[0-9]", f"{latitude} {longitude}"):
        return None
    north, east = coordinate(latitude, "NS"), coordinate(longitude, "EW")
    if north is None or east is None or abs(north) > 90 or abs(east) > 180:
        raise ValueError(f"{str(value)[:60]!r} is no place")
    return place(north, east)


def _pair(value: Any) -> tuple[Any, Any]:
    if isinstance(value, Mapping):
        for names in (("lat", "lon"), ("latitude", "longitude"), ("lat", "lng")):
            if value.keys() >= set(names):
                return value[names[0]], value[names[1]]
        if found := value.keys() & {"lat", "lon", "lng", "latitude", "longitude"}:
            # One without the other is no place.
            return value[min(found)], None
        return _pair(value["coordinates"]) if "coordinates" in value else (None, None)
    if isinstance(value, str):
        parts = re.split(r"[,;\s]+", value.strip())
        return (parts[0], parts[1]) if len(parts) == 2 else (value, None)
    if isinstance(value, Sequence) and len(value) == 2:
        return value[1], value[0]
    return value, None


def _is_blank(value: Any) -> bool:
    return value in (None, [], {}) or (isinstance(value, str) and not value.strip("\0 \t\r\n"))


def coordinate(value: Any, halves: str) -> float | None:
    """Return signed degrees of a number or a text with or without its hemisphere."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value) if abs(value) <= 180 else None
    text = value.strip() if isinstance(value, str) else ""
    found = _COORDINATE.fullmatch(text) if len(text) <= _MOST_CHARACTERS else None
    if found is None:
        return None
    half = found["half"].upper()
    if half and half not in halves:
        return None
    minutes, seconds = (float(found[name] or 0) for name in ("minutes", "seconds"))
    degrees = float(found["degrees"])
    angle = abs(degrees) + minutes / 60 + seconds / 3600
    return -angle if half == halves[1] or degrees < 0 else angle
