"""Fit a value to its field, by the rules of Elasticsearch's types in mappings/.

What a field takes stays as it is.  Of anything else the part that cannot be stored is left out: an
element of a list, a name of an object, the end of a text.  The rules are those of 8.19.13, as
tests/contract/test_fitting_on_server.py finds them; a value of another type only has to be JSON.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import numpy as np
import orjson

from es_imgsearch.describe.plain_values import Report, Unfit, fit_each, has_length, plain, shown

# Lucene's longest term, in bytes of UTF-8.
_MOST_TERM_BYTES = 32_766
# A normalizer or an analyzer lengthens a text to 4/3 at most.  A path has 16,384 bytes at most:
# 4,096 bytes that are not UTF-8, each written as four.
_MOST_CHANGED_BYTES = 16_384
_WHOLE_TERMS: Final = frozenset({"keyword", "pattern", "folder_tree"})
_MOST_FLATTENED_DEPTH = 20
# Each has a hidden document, of which the server takes 10,000.
_MOST_NESTED = 1_000

_BITS: Final = {"byte": 7, "short": 15, "integer": 31, "long": 63}
# The least number that rounds to infinity.
_BEYOND_FLOAT64 = 2**1024 - 2**970
_LARGEST: Final = {
    "half_float": 65_520.0,
    "float": 3.4028235677973366e38,
    "double": _BEYOND_FLOAT64,
}
_NUMBER = re.compile(r"[+-]?(\d{1,400}(\.\d{0,400})?|\.\d{1,400})([eE][+-]?\d{1,4})?", re.ASCII)
_MILLISECONDS = re.compile(r"(-?\d{1,19})(\.\d{1,6})?", re.ASCII)
_DATE = re.compile(
    r"-?(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(?:(\d\d)(?::(\d\d)(?::(\d\d)(?:[.,]\d{1,9})?)?)?"
    r"(?:Z|[+-](\d\d)(?::?(\d\d)(?::?(\d\d))?)?)?)?)?)?)?",
    re.ASCII,
)

_GEOHASH = re.compile(r"[0-9b-hjkmnp-z]+")
_WKT = re.compile(r"POINT *\( *([^ ()]+) +([^ ()]+) *\)")

Mapped: TypeAlias = Mapping[str, Any]
Fitter: TypeAlias = Callable[[Any, Mapped, Report], Any]


def fit_value(value: Any, mapping: Mapped, report: Report) -> Any:
    """Fit the value of a field; `report` gets what was left out of it.

    Raises Unfit if nothing of it can be stored.
    """
    given = plain(value, report)
    fitted = _fit(given, mapping, report)
    if isinstance(fitted, (list, dict)) and not fitted and len(given):
        raise Unfit("nothing is left of it")
    return fitted


def _fit(value: Any, mapping: Mapped, report: Report) -> Any:
    return _FITTERS.get(mapping.get("type", "object"), _json)(value, mapping, report)


def _json(value: Any, _mapping: Mapped, _report: Report) -> Any:
    try:
        orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise Unfit(str(error)) from None
    return value


def _scalars(convert: Fitter) -> Fitter:
    """Make the fitter of a type that takes a value, or lists of them of any depth."""

    def fitter(value: Any, mapping: Mapped, report: Report) -> Any:
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, list):
            return fit_each(value, lambda one: fitter(one, mapping, report), report)
        return None if value is None else convert(value, mapping, report)

    return fitter


# -- Texts


def _as_text(value: Any) -> Any:
    if isinstance(value, dict):
        raise Unfit("an object is no text")
    return value


def _cut(text: str, most_bytes: int, report: Report) -> str:
    """Cut a text to so many bytes of UTF-8."""
    if len(text) * 4 <= most_bytes or len(raw := text.encode()) <= most_bytes:
        return text
    report(f"the end of a text of {len(raw)} bytes")
    return raw[:most_bytes].decode(errors="ignore")


def _keyword(value: Any, mapping: Mapped, report: Report) -> Any:
    value = _as_text(value)
    # Beyond `ignore_above`, in UTF-16, it is stored and not indexed.
    if not isinstance(value, str) or len(value) > mapping.get("ignore_above", math.inf):
        return value
    most_bytes = _MOST_CHANGED_BYTES if "normalizer" in mapping else _MOST_TERM_BYTES
    return _cut_terms(_cut(value, most_bytes, report), mapping, report)


def _text(value: Any, mapping: Mapped, report: Report) -> Any:
    value = _as_text(value)
    return _cut_terms(value, mapping, report) if isinstance(value, str) else value


def _cut_terms(text: str, mapping: Mapped, report: Report) -> str:
    """Cut a text of which an analyzer makes terms of any length.

    Most analyzers split at 255 letters.
    """
    parts = (mapping, *mapping.get("fields", {}).values())
    if any(part.get("analyzer") in _WHOLE_TERMS for part in parts):
        return _cut(text, _MOST_CHANGED_BYTES, report)
    return text


# -- Numbers, dates, places


def _number(value: Any) -> Any:
    """Return a number; None for an empty text, which the server takes for no value."""
    # Another type may compare element by element, as an array does.
    if isinstance(value, str) and not value:
        return None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value) if re.search(r"[.eE]", value) else int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unfit(f"{shown(value)} is no number")
    return value


def _whole(value: Any, mapping: Mapped, _report: Report) -> Any:
    number, limit = _number(value), 2 ** _BITS[mapping["type"]]
    if number is not None and not (-limit - 1 < number < limit and int(number) >= -limit):
        raise Unfit(f"{shown(value)} is out of the range of {mapping['type']}")
    return value


def _float(value: Any, mapping: Mapped, _report: Report) -> Any:
    number = _number(value)
    if number is not None and not abs(number) < _LARGEST[mapping["type"]]:
        raise Unfit(f"{shown(value)} is out of the range of {mapping['type']}")
    return value


def _boolean(value: Any, _mapping: Mapped, _report: Report) -> Any:
    if not (isinstance(value, bool) or str(value) in {"true", "false", ""}):
        raise Unfit(f"{shown(value)} is neither true nor false")
    return value


def _date(value: Any, mapping: Mapped, _report: Report) -> Any:
    is_text = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    # Another format is left to the server.
    if not is_text or not ("format" in mapping or _is_date(str(value))):
        raise Unfit(f"{shown(value)} is no date")
    return value


def _is_date(text: str) -> bool:
    """Return True for milliseconds since 1970, and ISO 8601 from -9999 to 9999."""
    if (found := _DATE.fullmatch(text)) is None:
        milliseconds = _MILLISECONDS.fullmatch(text)
        return milliseconds is not None and abs(int(milliseconds[1])) < 2**63
    year, month, day, *rest = found.groups("")
    hour, minute, second, hours, minutes, seconds = (int(each or 0) for each in rest)
    offset = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    try:
        # The calendar repeats itself every 400 years; datetime knows the years from 1 on.
        datetime(2000 + int(year) % 400, int(month or 1), int(day or 1), hour, minute, second)  # noqa: DTZ001
    except ValueError:
        return False
    return max(minutes, seconds) < 60 and offset <= timedelta(hours=18)


def _place(value: Any, _mapping: Mapped, report: Report) -> Any:
    """Fit a place or several, in any of the server's forms."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list) and not any(isinstance(each, (int, float)) for each in value):
        return fit_each(value, _checked_place, report)
    return _checked_place(value)


def _checked_place(value: Any) -> Any:
    if value is not None and not (isinstance(value, str) and _GEOHASH.fullmatch(value)):
        for degrees, most in zip(_degrees(value), (90, 180), strict=True):
            number = _number(degrees)
            if number is None or not abs(number) <= most:
                raise Unfit(f"{shown(degrees)} is not in the range of -{most} to {most} degrees")
    return value


def _degrees(place: Any) -> tuple[Any, Any]:
    """Return latitude and longitude."""
    match place:
        case [longitude, latitude] | [longitude, latitude, _]:
            return latitude, longitude
        case {"type": "Point", "coordinates": [longitude, latitude]} if len(place) == 2:
            return latitude, longitude
        case {"lat": latitude, "lon": longitude} if place.keys() <= {"lat", "lon", "z"}:
            return latitude, longitude
        case str() if 1 <= place.count(",") <= 2:
            latitude, longitude, *_ = (each.strip() for each in place.split(","))
            return latitude, longitude
        case str() if found := _WKT.fullmatch(place):
            return found[2], found[1]
    raise Unfit(f"{shown(place)} is no place")


# -- Objects


def _flattened(value: Any, mapping: Mapped, report: Report) -> Any:
    if isinstance(value, list):
        return fit_each(value, lambda one: _flattened(one, mapping, report), report)
    if not isinstance(value, (dict, type(None))):
        raise Unfit(f"{shown(value)} is no object")
    return _flat(value, "", mapping.get("depth_limit", _MOST_FLATTENED_DEPTH), report)


def _flat(value: Any, key: str, levels: int, report: Report) -> Any:
    """Fit a part of a `flattened` field.

    Each leaf is a term: its key, a NUL and its text.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return fit_each(value, lambda one: _flat(one, key, levels, report), report)
    if not isinstance(value, dict):
        value = _as_text(value)
        room = _MOST_TERM_BYTES - 1 - len(key.encode())
        return _cut(value, room, report) if isinstance(value, str) else value
    if not levels:
        raise Unfit("it has too many levels")
    found = {}
    for name, each in value.items():
        path = f"{key}.{name}" if key else name
        if "\0" in name or len(path.encode()) > _MOST_TERM_BYTES // 2:
            report(f"the name {shown(name)}")
            continue
        try:
            found[name] = _flat(each, path, levels - 1, report)
        except Unfit as error:
            report(f"{path[:200]}: {error}")
    return found


def _object(value: Any, mapping: Mapped, report: Report) -> Any:
    """Fit an object, or several, by the mapping of its fields."""
    if mapping.get("enabled") is False or str(mapping.get("dynamic", "strict")) != "strict":
        return _json(value, mapping, report)
    if isinstance(value, list):
        if mapping.get("type") == "nested" and len(value) > _MOST_NESTED:
            report(f"all but {_MOST_NESTED} of {len(value)} values")
            value = value[:_MOST_NESTED]
        return fit_each(value, lambda one: _object(one, mapping, report), report)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Unfit(f"{shown(value)} is no object")
    properties = mapping.get("properties", {})
    found = {}
    for name, each in value.items():
        try:
            if name not in properties:
                raise Unfit("the index does not map this field")
            found[name] = _fit(each, properties[name], report)
        except Unfit as error:
            report(f"{name[:200]}: {error}")
    return found


# -- Vectors


def _vector(value: Any, mapping: Mapped, _report: Report) -> Any:
    if value is None:
        return None
    element, dims = mapping.get("element_type", "float"), mapping.get("dims")
    if element == "bit" and dims is not None:
        dims //= 8
    numbers = value
    if isinstance(value, str) and element != "float":
        numbers = _from_hexadecimal(value)
    elif not (isinstance(value, np.ndarray) and value.ndim == 1) and not (
        isinstance(value, list) and all(type(each) in {int, float} for each in value)
    ):
        raise Unfit("a vector is a list of numbers")
    if dims not in {None, len(numbers)}:
        raise Unfit(f"a vector of {len(numbers)} numbers instead of {dims}")
    if element != "float" and not all(-128 <= n <= 127 and n == int(n) for n in numbers):
        raise Unfit("the bytes of a vector are whole numbers from -128 to 127")
    similarity = mapping.get("similarity", "cosine") if mapping.get("index", True) else None
    if element != "bit" and not has_length(
        numbers, similarity if element == "float" or similarity == "cosine" else None
    ):
        raise Unfit("a vector of this length cannot be compared")
    return value


def _from_hexadecimal(digits: str) -> list[int]:
    if len(digits) % 2 or not re.fullmatch(r"[0-9a-fA-F]*", digits):
        raise Unfit(f"{shown(digits)} is not hexadecimal")
    return [each - 256 if each > 127 else each for each in bytes.fromhex(digits)]


_FITTERS: Final[Mapping[str, Fitter]] = {
    "keyword": _scalars(_keyword),
    "text": _scalars(_text),
    **dict.fromkeys(_BITS, _scalars(_whole)),
    **dict.fromkeys(_LARGEST, _scalars(_float)),
    "boolean": _scalars(_boolean),
    "date": _scalars(_date),
    "geo_point": _place,
    "flattened": _flattened,
    "object": _object,
    "nested": _object,
    "dense_vector": _vector,
}
