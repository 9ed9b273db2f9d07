"""Values for any field of a mapping: what it takes, its limits, and what it does not take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from hypothesis import strategies as st


class Colour(Enum):
    RED = "red"


class Word(str):
    """A text of a class of its own, which another process may not know."""

    __slots__ = ()


_CYCLE: list[Any] = []
_CYCLE.append(_CYCLE)

# What JSON and a server's field of some type take or do not take.
NUMBERS = [
    0, -1, 5, 127, 128, -128, -129, 255, 32767, 32768, -32769, 2**31 - 1, 2**31, -(2**31) - 1,
    2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, 10**30, 10**400,
    0.5, -0.5, 127.5, -128.5, 128.5, 65504.0, 65520.0, -65520.0, 3.4e38, 3.5e38, -3.5e38, 1e39,
    1e300, 1e-300, 5e-324, 9.223372036854775e18, 9.3e18, 1e19,
]  # fmt: skip
TEXTS = [
    "", " ", "a", "true", "false", "12", "-3.5", "1e3", "1e400", "x", "\0",
    "a\0b", "a,b", "\u0130" * 20, "é" * 8191, "/".join("ab" * 800), "𝔘" * 4000,
]  # fmt: skip
# At the longest term of an index.
LONG_TEXTS = [
    "é" * 16383, "é" * 16384, "a" * 32766, "a" * 32767, "a" * 40_000, "word " * 8_000,
    "\U0001f4f7" * 8191, "\U0001f4f7" * 8192, "Ǆ" * 16383, "㎒" * 10922, "ﬃ" * 10922,
]  # fmt: skip
DATES = [
    "2024", "2024-05", "2024-05-06", "2024-05-06T07:08:09.123+02:00", "2024-05-06T07", "1601-01-01",
    "30828-09-14", "2300-01-01T00:00:00.000+00:00", "0000-01-01", "-0001-12-31", "-9999-01-01",
    "9999-12-31T23:59:59.999Z", "10000-01-01", "+10000-01-01", "2024-13-01", "2024-02-30",
    "2023-02-29", "2024-02-29", "1900-02-29", "0000-02-29", "2024-05-06T24:00:00",
    "2024-05-06T23:59:60Z", "2024-00-01", "2024-01-00", "2024:05:06 07:08:09",
    "2024-05-06 07:08:09", "2024-05-06T07:08:09+18:00", "2024-05-06T07:08:09+18:01",
    "2024-05-06T07:08:09-19:00", "2024-05-06T07:08:09+0200", "2024-05-06T07:08:09+02:60",
    "2024-05-06T07:08:09.1234567890", "2024-05-06Z", "20240506", "99999999999999999999",
    "-62167219200000", 0, -1, 1e12, 910_692_730_085_000,
]  # fmt: skip
PLACES = [
    {"lat": 1.5, "lon": -7}, {"lat": 90, "lon": 180}, {"lat": -90, "lon": -180},
    {"lat": 90.001, "lon": 0}, {"lat": 0, "lon": 180.001}, {"lat": 1e300, "lon": 0}, {"lat": 1},
    {"lon": 1}, {"lat": None, "lon": 1}, {"lat": "1", "lon": "2"}, {"lat": "x", "lon": 2},
    {"lat": [1], "lon": 2}, {"lat": 1, "lon": 2, "z": 3}, {"lat": 1, "lon": 2, "x": 3},
    {"lat": True, "lon": 2}, [1, 2], [1, 2, 3], [1, 91], [181, 1], [1], [1, "2"], [[1, 2], [3, 4]],
    "1,2", "91,2", "x,y", "1, 2", "1,2,3", "1,2,3,4", "u33", "POINT (1 2)", "POINT (200 2)",
    {"type": "Point", "coordinates": [1, 2]}, {"type": "Point", "coordinates": [200, 2]},
    {"type": "Point"}, {"geohash": "u33"},
]  # fmt: skip
OBJECTS = [
    {}, {"a": 1}, {"": "x"}, {"a.b": {"c": 1}}, {".": 1}, {"a\0b": 1}, {"a": "x\0y"}, {"a": None},
    {"a": [1, [2, {"b": 3}]]}, {"a": "b" * 32764}, {"a": "b" * 32765}, {"k" * 16_000: "v" * 16_000},
    {"k" * 16_000: "v" * 17_000}, {"a": 10**30, "b": 1e300, "c": True}, [{"a": 1}, {"b": 2}],
    [None], [1], {"at": "x"}, {"at": "2024"}, {"deep": {"n": 300}}, {"deep": {"n": 3}},
    {"deep": 5}, {"by": "me"}, {f"k{n}": n for n in range(3000)},
]  # fmt: skip
REGIONS = [
    [{"box": [0, 1, 2, 3]}], {"box": [1]}, [{"box": [2**31]}], [{"box": "x"}], [{"other": 1}],
    [{"box": [1], "embedding": [0] * 48}], [{}], [[{"box": [1]}]],
]  # fmt: skip


def _nested(levels: int, *, lists: bool = False) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if lists else {"a": value}
    return value


DEEP = [_nested(19), _nested(20), _nested(21), _nested(50, lists=True)]
PLAIN: list[Any] = [
    None,
    True,
    False,
    [],
    [[]],
    [None],
    *NUMBERS,
    *TEXTS,
    *DATES,
    *PLACES,
    *OBJECTS,
]
PLAIN += [*REGIONS, *DEEP]
# What Python has and JSON does not.
ODD: list[Any] = [
    "NaN", "Infinity", math.nan, math.inf, -math.inf, "\ud800", "a\udcff.jpg", ["a", "\udfff"],
    {"\ud800": "\udcff"},
    {"a": math.nan}, [math.nan, 1.0], {1: 2}, {None: 1}, {("a",): 1}, {1, 2}, frozenset(), b"bytes",
    object(), Path("/x"), Colour.RED, Word("word"), [Word("w")], UUID(int=5), 1j, range(3),
    datetime(2024, 5, 6, 7, tzinfo=UTC), date(2024, 5, 6), datetime.max.replace(tzinfo=UTC),
    date.min, _CYCLE,
    np.float32(0.1), np.float64("nan"), np.int64(2**62), np.uint64(2**64 - 1), np.bool_(True),
    np.str_("s"), np.datetime64("2024-05-06"), np.datetime64("NaT"), np.timedelta64(5, "s"),
    np.longdouble(1), np.float16(1), np.arange(3), np.zeros(3, np.float32),
    np.array([0.1, np.nan]), np.array([[1.0, 2.0], [3.0, 4.0]]), np.array(["a", "b"]),
    np.array([object(), 1], object), np.array(5.0), np.arange(6)[::2].astype(np.float32),
    np.array([1 + 2j]), lambda: 1, int, ..., [f"t{n}" for n in range(60_000)], _nested(150),
    [{"box": [1]}] * 12_000, "a" * 2_000_000, 10**5000,
]  # fmt: skip


def _vectors(mapping: Mapping[str, Any]) -> list[Any]:
    dims = mapping["dims"]
    if mapping.get("element_type", "float") != "float":
        length = dims // 8 if mapping["element_type"] == "bit" else dims
        return [
            "ab" * length, "00" * length, "AB" * length, "ab", "xy" * length,
            "a" * (2 * length + 1),
            [1] * length, [0] * length, [-128] * length, [128] * length, [1.0] * length,
            [1.5] * length, [1] * (length + 1), ["1"] * length,
        ]  # fmt: skip
    first = [0.0] * (dims - 1)
    return [
        [value, *first]
        for value in (1, 0, 0.5, 1e-45, 1e-30, 1e-22, 1e18, 1e30, 3.4e38, 1e39, 1e300, 1.0001, 1.1)
    ] + [[3e38] * dims, [1], [1.0] * (dims + 1), [[1.0, *first]], ["1", *first], [None, *first],
         [True, *first]]  # fmt: skip


def _arrays(mapping: Mapping[str, Any]) -> list[Any]:
    dims = mapping["dims"]
    return [
        np.zeros(dims), np.ones(dims), np.full(dims, np.nan), np.full(dims, np.inf),
        np.full(dims, 1e30, np.float32), np.full(dims, 1e-30, np.float32), np.eye(dims)[0],
        np.eye(dims, dtype=np.float32)[0], np.ones((1, dims)), np.ones(dims, np.int8),
        np.ones(dims, np.float16), np.ones(dims, bool), np.ones(2 * dims)[::2],
    ]  # fmt: skip


def plain_value(mapping: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """A value that JSON has for a field of this mapping, or several."""
    pool: list[Any] = [each for each in PLAIN if _is_json(each)]
    if mapping.get("type") == "dense_vector":
        return st.sampled_from([*_vectors(mapping), *pool[:60]])
    if mapping.get("type") == "date":
        # A millisecond that 8 refuses and 9 takes.
        pool.remove(-(2**63))
    if not any({"normalizer", "analyzer"} & each.keys() for each in _parts(mapping)):
        # Of the others not all that the server takes is left: what they make of it is not known.
        pool += LONG_TEXTS
    one = st.sampled_from(pool)
    return one | st.lists(st.sampled_from(pool[:80]), min_size=1, max_size=3)


def _parts(mapping: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [mapping, *mapping.get("fields", {}).values()]


def odd_value(mapping: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Any value for a field of this mapping, such as a describer may give."""
    pool = [*PLAIN, *LONG_TEXTS, *ODD]
    if mapping.get("type") == "dense_vector":
        pool = [*_vectors(mapping), *_arrays(mapping), *pool]
    one = st.sampled_from(pool)
    return one | st.lists(one, max_size=3) | st.text() | st.floats() | st.integers()


def _is_json(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return -(2**63) <= value < 2**64
    if isinstance(value, dict):
        return all(map(_is_json, value.values()))
    return all(map(_is_json, value)) if isinstance(value, list) else True
