"""Fields: how one value of a document is checked and indexed, by the type of its field.

A parser takes a value and returns what is indexed: strings, integers, floats, booleans, a vector as
a tuple of float32 or of bytes, dates in milliseconds.  It raises Unfit for a value that the
server refuses.
"""

from __future__ import annotations

import binascii
import math
import re
from array import array
from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeAlias

Parser: TypeAlias = Callable[[Any], Any]

# Lucene's longest term.
_MOST_TERM_BYTES = 32766
_LARGEST_FLOAT32 = 3.4028235677973366e38
_RANGES = {"byte": 7, "short": 15, "integer": 31, "long": 63}
_DAYS_IN_400_YEARS = 146_097
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE = re.compile(
    r"(-?)(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(?:(\d\d)(?::(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?"
    r"(Z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?)?)?)?)?"
)


class Unfit(ValueError):
    """A value that the server refuses for a field."""


def parser(mapping: Mapping[str, Any]) -> Parser:
    """Make the parser for a field of this mapping."""
    kind = mapping["type"]
    if kind in _RANGES:
        return _whole(_RANGES[kind])
    if kind == "keyword":
        return _keyword(mapping)
    if kind == "dense_vector":
        return _vector(mapping)
    return _PARSERS[kind]


def _text(value: Any) -> str:
    if isinstance(value, (dict, list)):
        raise Unfit("Can't get text on a START_OBJECT")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _keyword(mapping: Mapping[str, Any]) -> Parser:
    longest = mapping.get("ignore_above", 2**31 - 1)
    lowers = mapping.get("normalizer") == "lowercase"

    def parse(value: Any) -> str | None:
        text = value if type(value) is str else _text(value)
        if len(text) > longest or (
            len(text) * 2 > longest and len(text.encode("utf-16-le")) > 2 * longest
        ):
            return None
        if lowers:
            text = text.lower()
        if len(text) * 4 > _MOST_TERM_BYTES and len(text.encode()) > _MOST_TERM_BYTES:
            raise Unfit("immense term")
        return text

    return parse


def _number(value: Any) -> float | int:
    if isinstance(value, (bool, dict, list)):
        raise Unfit(f"not a number: {value!r}")
    if isinstance(value, str):
        if not re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", value):
            raise Unfit(f'For input string: "{value}"')
        return float(value) if re.search(r"[.eE]", value) else int(value)
    number: float | int = value
    return number


def _whole(bits: int) -> Parser:
    low, high = -(2**bits), 2**bits - 1

    def parse(value: Any) -> int | None:
        if value == "":
            return None
        number = value if type(value) is int else _number(value)
        if isinstance(number, float) and not math.isfinite(number):
            raise Unfit("not finite")
        whole = int(number)
        if not low <= whole <= high:
            raise Unfit(f"Value [{value}] is out of range")
        return whole

    return parse


def _float32(value: Any) -> float | None:
    if value == "":
        return None
    number = float(_number(value))
    if not abs(number) < _LARGEST_FLOAT32:
        raise Unfit(f"[float] supports only finite values, but got [{value}]")
    return array("f", (number,))[0]


def _double(value: Any) -> float | None:
    if value == "":
        return None
    number = float(_number(value))
    if not math.isfinite(number):
        raise Unfit(f"[double] supports only finite values, but got [{value}]")
    return number


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false", ""):
        return bool(value == "true")
    raise Unfit(f"Failed to parse value [{value}] as only [true] or [false] are allowed.")


def parse_date(value: Any) -> int:
    """Milliseconds since 1970 of a date, as the server's default format reads it."""
    if isinstance(value, (bool, dict, list)):
        raise Unfit(f"not a date: {value!r}")
    # Java writes such numbers with an exponent, which the format does not have.
    if isinstance(value, float) and value != 0 and not 1e-3 <= abs(value) < 1e7:
        raise Unfit(f"failed to parse date field [{value}]")
    text = str(value)
    if (found := _DATE.fullmatch(text)) is None:
        if not re.fullmatch(r"-?\d{1,19}(\.\d+)?", text):
            raise Unfit(f"failed to parse date field [{text}]")
        milliseconds = math.floor(float(text)) if "." in text else int(text)
        if not -(2**63) <= milliseconds < 2**63:
            raise Unfit(f"failed to parse date field [{text}]")
        return milliseconds
    sign, year, month, day, hour, minute, second, fraction, zone = found.groups()
    nanos = int((fraction or "").ljust(9, "0"))
    # The calendar repeats itself every 400 years; datetime knows the years from 1 on.
    cycles, near = divmod(-int(year) if sign else int(year), 400)
    moment = datetime(
        2000 + near, int(month or 1), int(day or 1), int(hour or 0), int(minute or 0),
        int(second or 0), tzinfo=_zone(zone),
    )  # fmt: skip
    days = (cycles - 5) * _DAYS_IN_400_YEARS
    milliseconds = (moment - _EPOCH) // timedelta(milliseconds=1)
    return milliseconds + days * 86_400_000 + nanos // 1_000_000


def _zone(text: str | None) -> timezone:
    if text is None or text == "Z":
        return UTC
    digits = text[1:].replace(":", "").ljust(6, "0")
    hours, minutes, seconds = (int(digits[n : n + 2]) for n in (0, 2, 4))
    if hours > 18 or minutes > 59 or seconds > 59:
        raise Unfit(f"no time zone: {text}")
    offset = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return timezone(-offset if text[0] == "-" else offset)


def format_date(milliseconds: int) -> str:
    """Format a date as the server's default format does."""
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03}Z"


def _geo_point(value: Any) -> tuple[float, float]:
    if not isinstance(value, dict) or value.keys() != {"lat", "lon"}:
        raise NotImplementedError(f"a geo_point written as {value!r}")
    lat, lon = float(_number(value["lat"])), float(_number(value["lon"]))
    if not -90 <= lat <= 90:
        raise Unfit(f"illegal latitude value [{lat}]")
    if not -180 <= lon <= 180:
        raise Unfit(f"illegal longitude value [{lon}]")
    return lat, lon


def _flattened(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        raise Unfit("Failed to parse object: expecting token of type [START_OBJECT]")
    return value if _count_leaves(value, "") else None


def _count_leaves(value: Any, key: str) -> int:
    if isinstance(value, dict):
        return sum(
            _count_leaves(inner, f"{key}.{name}" if key else name) for name, inner in value.items()
        )
    if isinstance(value, list):
        return sum(_count_leaves(each, key) for each in value)
    if value is not None:
        if "\0" in key:
            raise Unfit("Do not include null bytes in a key")
        # A keyed value is key, separator, value.
        if len(key.encode()) + 1 + len(_text(value).encode()) > _MOST_TERM_BYTES:
            raise Unfit("Flattened field contains one immense field")
    return value is not None


def _binary(value: Any) -> bytes:
    if not isinstance(value, str):
        raise Unfit("not base64")
    try:
        return b64decode(value, validate=True)
    except binascii.Error as error:
        raise Unfit(str(error)) from None


def _vector(mapping: Mapping[str, Any]) -> Parser:
    element, dims = mapping.get("element_type", "float"), mapping["dims"]
    if element in {"bit", "byte"}:
        return _bytes(dims // 8 if element == "bit" else dims)
    similarity = mapping.get("similarity", "cosine") if mapping.get("index", True) else None

    def parse(value: Any) -> tuple[float, ...]:
        if not isinstance(value, list):
            raise Unfit("a vector is an array")
        if len(value) != dims:
            raise Unfit(f"has [{len(value)}] dimensions instead of [{dims}]")
        if not all(type(each) in {float, int} for each in value):
            raise Unfit("a vector holds numbers")
        if any(abs(each) >= _LARGEST_FLOAT32 for each in value):
            raise Unfit("a vector holds finite numbers")
        vector = tuple(array("f", value))
        if similarity is not None:
            _check_length(vector, similarity)
        return vector

    return parse


def _check_length(vector: tuple[float, ...], similarity: str) -> None:
    squared = math.fsum(each * each for each in vector)
    if similarity == "cosine" and squared == 0:
        raise Unfit("The [cosine] similarity does not support vectors with zero magnitude.")
    if similarity == "dot_product" and abs(squared - 1) > 1e-4:
        raise Unfit("The [dot_product] similarity can only be used with unit-length vectors.")


def _bytes(length: int) -> Parser:
    def parse(value: Any) -> tuple[int, ...]:
        if isinstance(value, str):
            try:
                found = tuple(array("b", bytes.fromhex(value)))
            except ValueError:
                raise Unfit("not hexadecimal") from None
        elif isinstance(value, list) and all(type(each) in {int, float} for each in value):
            found = tuple(int(each) for each in value)
            if found != tuple(value):
                raise Unfit("bytes are whole numbers")
        else:
            raise Unfit("bytes are hexadecimal or an array of whole numbers")
        if any(not -128 <= each <= 127 for each in found):
            raise Unfit("a byte is from -128 to 127")
        if len(found) != length:
            raise Unfit(f"has [{len(found)}] bytes instead of [{length}]")
        return found

    return parse


_PARSERS: dict[str, Parser] = {
    "text": _text,
    "float": _float32,
    "double": _double,
    "boolean": _boolean,
    "date": parse_date,
    "geo_point": _geo_point,
    "flattened": _flattened,
    "binary": _binary,
}
