"""Build filter clauses from {field: value}; parse `FIELD=VALUE` texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from os import PathLike
from typing import Any

import numpy as np

from es_imgsearch.errors import FilterInvalid, did_you_mean
from es_imgsearch.records import composed, folded, is_text, stored_path
from es_imgsearch.search.filtering.dates import (
    TAKEN_FIELDS,
    date_range,
    since_until_clause,
    taken_clause,
)
from es_imgsearch.search.filtering.given import Filters as Filters
from es_imgsearch.search.filtering.given import FilterValue as FilterValue
from es_imgsearch.search.filtering.given import GivenFilters as GivenFilters
from es_imgsearch.search.filtering.given import parse_filters as parse_filters
from es_imgsearch.search.filtering.values import (
    EXACT_FIELDS,
    EXACT_FIRST_FIELDS,
    MOST_FOLDED,
    met_filters,
    spellings_clause,
    stored_name,
)
from es_imgsearch.search.request_flow import RequestFlow

# Elasticsearch refuses a range with ends outside of the field type.
_INTEGERS = {
    kind: range(-(2 ** (bits - 1)), 2 ** (bits - 1))
    for kind, bits in (("long", 64), ("integer", 32), ("short", 16), ("byte", 8))
}
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}
_NUMBERS = {*_INTEGERS, "float", "double", "half_float"}
_INT64 = _INTEGERS["long"]
_PATHS = {"folder", "relative_path", "image_name"}
_NOT_FILTERABLE = {"dense_vector", "nested", "object"}
_RANGE = re.compile(r"^(?P<low>[^.]*(?:\.[^.]+)*)\.\.(?P<high>.*)$")

# A range as other programs write it.
_SPAN = re.compile(r"([0-9.]+) ?(?:-|\N{EN DASH}|:|,| to ) ?([0-9.]+)")
_DISTANCE = re.compile(r"(?P<length>[0-9]+(?:[.][0-9]+)?)\s*(?P<unit>km|m|mi|ft|nmi)")

_VALUES = (str, int, float, date, PathLike)


def filter_clauses(
    filters: Filters | None,
    properties: Mapping[str, Mapping[str, Any]],
    *,
    without: Filters | None = None,
    since: str | date | None = None,
    until: str | date | None = None,
) -> list[dict[str, Any]]:
    """Build one clause for each field, and one for all of `without`.

    A hit must meet all of `filters` and nothing of `without`.

        filter_clauses({"tags": ["cat", "dog"], "width": (640, None)}, info.properties)

    The value of a field is

    - a value; None for pictures without one;
    - a list: any of its values;
    - a keyword's value in any case and normal form, also one of a list of up to 50; formats and
      colours also by other names, such as jpg and gray; of `root`, `product_id` and `source_url` in
      another case only if no picture has the value as it is;
    - a pair (low, high), None for an open end: a range of numbers, dates or keywords; for numbers
      and dates also the string ``low..high``;
    - for `folder`, a folder with everything below it;
    - for `location`, (latitude, longitude, distance) in degrees and with a unit (m, km, mi, ft,
      nmi), such as (48.2, 16.37, "5km") or ``48.2,16.37,5km``.

    Dates of a picture are those of the camera's own clock, see `filtering.dates`; one with an
    offset from UTC is a moment.  `since` and `until` compare the day on which a picture was taken,
    or last modified (by the clock of this machine) if nothing says when it was taken.
    `properties` are the fields of the index's mapping.  Raises FilterInvalid.
    """
    clauses = [_clause(field, value, properties) for field, value in (filters or {}).items()]
    if without:
        unwanted = [_clause(field, value, properties) for field, value in without.items()]
        clauses.append({"bool": {"must_not": unwanted}})
    if since is not None or until is not None:
        ends = (_to_python("taken_at", end) for end in (since, until))
        clauses.append(since_until_clause(*ends))
    return clauses


def meant_clauses(
    index: str, given: GivenFilters, properties: Mapping[str, Mapping[str, Any]]
) -> RequestFlow[tuple[list[dict[str, Any]], list[str]]]:
    """Build the clauses of what the values mean, and notes on unknown ones."""
    filter_clauses(given.filters, properties, without=given.without)
    build = clause_of(properties)
    wanted = yield from met_filters(index, given.filters, properties, build)
    unwanted = yield from met_filters(index, given.without, properties, build)
    clauses = filter_clauses(wanted.filters, properties, without=unwanted.filters)
    return clauses, [*wanted.notes, *unwanted.notes]


def clause_of(
    properties: Mapping[str, Mapping[str, Any]],
) -> Callable[[str, Any], dict[str, Any]]:
    """Return the function that builds the clause of one value."""
    return lambda field, value: _clause(field, value, properties)


def _clause(field: str, value: Any, properties: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if not isinstance(field, str):
        raise FilterInvalid(f"A field to filter by is named by a string, not {field!r}.")
    name, _, key = field.partition(".")
    mapping = properties.get(name)
    if mapping is None or (key and _kind(mapping) != "flattened"):
        raise FilterInvalid(
            f"There is no field {field!r} to filter by; there are {_filterable(properties)}."
            f"{did_you_mean(name, properties)}"
        )
    kind = _kind(mapping)
    if not is_text(key):
        raise FilterInvalid(f"The name {field!r} of a field is not valid Unicode.")
    if kind == "geo_point" and isinstance(value, tuple):
        value = [value]
    if isinstance(value, tuple):
        if len(value) != 2:
            raise FilterInvalid(f"A range of {field!r} is a pair (low, high).")
        low, high = (stored_value(name, end) for end in value)
        return _range(field, low, high, kind)
    values = list(value) if isinstance(value, (list, set, frozenset)) else [value]
    if not values:
        return {"match_none": {}}
    is_exact = field in EXACT_FIELDS | EXACT_FIRST_FIELDS
    is_long = len(values) > (1 if is_exact else MOST_FOLDED)
    if kind == "keyword" and field != "folder" and is_long and None not in values:
        # One `terms` clause takes 65,536 values; the server may allow only about 1,000 clauses.
        return {"terms": {field: [str(stored_value(name, one)) for one in values]}}
    clauses = [
        # `_distance_clause` checks the three values of a place itself.
        _value_clause(field, one if kind == "geo_point" else stored_value(name, one), mapping)
        for one in values
    ]
    if len(clauses) == 1:
        return clauses[0]
    return {"bool": {"should": clauses, "minimum_should_match": 1}}


def stored_value(field: str, value: Any) -> Any:
    """Convert a value to its stored form: a path that is not Unicode is escaped.

    A Unicode path stays as it is, so that the fields of a hit can be used as filters.
    """
    value = _to_python(field, value)
    if value is not None and not isinstance(value, _VALUES):
        raise FilterInvalid(
            f"Field {field!r} is filtered by a value, a list of values, or a pair (low, high), not"
            f" {value!r}."
        )
    if not isinstance(value, (str, PathLike)) or is_text(str(value)):
        return value
    try:
        if field in _PATHS:
            return stored_path(str(value))
    except UnicodeEncodeError:
        pass
    raise FilterInvalid(f"The value {str(value)!r} for field {field!r} is not valid Unicode.")


def _to_python(field: str, value: Any) -> Any:
    """Convert a NumPy scalar to a Python value.  Raises FilterInvalid for NaN and NaT."""
    if isinstance(value, (float, date, np.generic)) and value != value:
        # NaN would be compared as the word nan.
        raise FilterInvalid(
            f"Field {field!r} cannot be filtered by {value}: leave it out (dropna), or give None"
            " for pictures without one."
        )
    if not isinstance(value, np.generic):
        return value
    if isinstance(value, np.datetime64) and not isinstance(value.item(), date):
        # `item` of datetime64[ns], the unit of data frames, returns an int.
        value = value.astype("datetime64[us]")
    return value.item()


def _value_clause(field: str, value: Any, mapping: Mapping[str, Any]) -> dict[str, Any]:
    kind = _kind(mapping)
    if value is None:
        return {"bool": {"must_not": [{"exists": {"field": field}}]}}
    if field == "folder":
        return spellings_clause("folder.tree", field, str(value).strip("/") or ".")
    if isinstance(value, str) and kind in {*_NUMBERS, "date"} and (parts := _RANGE.match(value)):
        return _range(field, parts["low"] or None, parts["high"] or None, kind)
    if kind == "date":
        return _range(field, value, value, kind)
    if kind == "geo_point":
        return _distance_clause(field, value)
    if kind in {"keyword", "flattened"}:
        name, _, key = field.partition(".")
        field = f"{name}.{stored_name(name, key)}" if name == "colour_shares" else field
        return spellings_clause(field, field, str(value))
    if kind in {*_NUMBERS, "boolean"}:
        return {"term": {field: _exact_value(field, value, kind)}}
    if kind == "text":
        if "keyword" in mapping.get("fields", {}):
            return spellings_clause(f"{field}.keyword", field, str(value))
        return {"match": {field: {"query": composed(str(value)), "operator": "and"}}}
    raise FilterInvalid(f"Field {field!r} is a {kind} and cannot be compared with a value.")


def _exact_value(field: str, value: Any, kind: str) -> Any:
    if kind in _NUMBERS:
        return _number(field, value)
    truth = value if isinstance(value, bool) else _TRUTHS.get(folded(str(value)))
    if truth is None:
        raise FilterInvalid(f"Field {field!r} holds true or false, not {value!r}.")
    return truth


def _range(field: str, low: Any, high: Any, kind: str) -> dict[str, Any]:
    if kind == "date":
        return (taken_clause if field in TAKEN_FIELDS else date_range)(field, low, high)
    if low is None and high is None:
        raise FilterInvalid(f"A range of {field!r} needs a low or a high end.")
    if kind in _NUMBERS:
        low, high = (None if end is None else _number(field, end) for end in (low, high))
        if low is not None and high is not None and low > high:
            raise FilterInvalid(f"{low} is more than {high}: nothing lies between them.")
        if kind in _INTEGERS:
            return _integer_range(field, low, high, _INTEGERS[kind])
    elif kind != "keyword":
        raise FilterInvalid(f"Field {field!r} is a {kind} and has no ranges.")
    return _range_clause(field, low, high)


def _range_clause(field: str, low: Any, high: Any) -> dict[str, Any]:
    bounds = {"gte": low, "lte": high}
    return {"range": {field: {name: end for name, end in bounds.items() if end is not None}}}


def _integer_range(
    field: str, low: float | None, high: float | None, values: range
) -> dict[str, Any]:
    """Clip a range to the values of the type; the server refuses ends outside of it."""
    if (low is not None and low > values[-1]) or (high is not None and high < values[0]):
        return {"match_none": {}}
    low = None if low is None else max(low, values[0])
    high = None if high is None else min(high, values[-1])
    return _range_clause(field, low, high)


def _distance_clause(field: str, value: Any) -> dict[str, Any]:
    parts = value.split(",") if isinstance(value, str) else value
    try:
        latitude, longitude, distance = parts
        latitude, longitude = float(latitude), float(longitude)
        match = _DISTANCE.fullmatch(str(distance).strip())
        if match is None or not (abs(latitude) <= 90 and abs(longitude) <= 180):
            raise ValueError
        if float(match["length"]) <= 0:
            raise ValueError
    except (TypeError, ValueError):
        raise FilterInvalid(
            f"Field {field!r} is filtered by latitude, longitude and distance, such as"
            f" 48.2,16.37,5km, not {value!r}."
        ) from None
    return {
        "geo_distance": {
            "distance": f"{match['length']}{match['unit']}",
            field: {"lat": latitude, "lon": longitude},
        }
    }


def _number(field: str, value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise FilterInvalid(f"Field {field!r} holds numbers, not {value!r}.")
    try:
        # A float would change an mtime_ns, which has more than 53 bits.
        number = int(value) if not isinstance(value, float) else _whole(value)
    except (ValueError, OverflowError):
        try:
            number = _whole(float(value))
        except (ValueError, OverflowError):
            shown = value[:40] if isinstance(value, str) else value
            span = _SPAN.fullmatch(str(shown))
            meant = f" A range is written {span[1]}..{span[2]}." if span else ""
            raise FilterInvalid(f"Field {field!r} holds numbers, not {shown!r}.{meant}") from None
    if isinstance(number, int) and number not in _INT64:
        # The number is not repeated: Python refuses to print very long ones.
        raise FilterInvalid(f"The number for field {field!r} is larger than 64 bits hold.")
    return number


def _whole(number: float) -> int | float:
    """Convert to int if nothing is lost; nan and inf raise."""
    return int(number) if int(number) == number and int(number) in _INT64 else number


def _filterable(properties: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(
        sorted(
            name for name, mapping in properties.items() if _kind(mapping) not in _NOT_FILTERABLE
        )
    )


def _kind(mapping: Mapping[str, Any]) -> str:
    # Elasticsearch leaves out the type of an object.
    return str(mapping.get("type", "object"))
