"""Convert values of any type to the types that JSON has, element by element."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, time
from enum import Enum
from typing import Any, Final, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt

from es_imgsearch.records import utf8

# More than anybody writes of a picture; a bulk has 10 MB.
_MOST_TEXT = 1_000_000
_MOST_ELEMENTS = 50_000
_MOST_DEPTH = 100
_INTEGERS = range(-(2**63), 2**64)

# Takes in words what was left out of a value.
Report: TypeAlias = Callable[[str], None]


class Unfit(ValueError):
    """A value that cannot be stored."""


def plain(value: Any, report: Report, depth: int = 0) -> Any:
    """Return a value as builtin types, or as an array of finite floats.

    What JSON has no type for is left out of lists and objects, and lone surrogates are escaped.
    Raises Unfit if nothing is left.
    """
    if value is None or isinstance(value, bool):
        return value
    if depth >= _MOST_DEPTH:
        raise Unfit(f"it is nested deeper than {_MOST_DEPTH} levels")
    if (exactly := _EXACTLY.get(type(value))) is not None:
        return exactly(value, report, depth)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    for kind, convert in _CONVERTERS.items():
        if isinstance(value, kind):
            return convert(value, report, depth)
    raise Unfit(f"a {type(value).__name__} is no JSON")


def _integer(value: int, _report: Report, _depth: int) -> int:
    if value not in _INTEGERS:
        raise Unfit(f"an integer of {value.bit_length()} bits is too large")
    return int(value)


def _float(value: float, _report: Report, _depth: int) -> float:
    if not math.isfinite(value):
        raise Unfit(f"{value} is not finite")
    return float(value)


def _array(value: Any, report: Report, depth: int) -> Any:
    # Of floats as they are: JSON has fewer digits of float32 than of the same as float64.
    if value.dtype.kind == "f" and value.ndim and np.isfinite(value).all():
        return np.ascontiguousarray(value, np.float32 if value.itemsize <= 4 else np.float64)
    return plain(value.tolist(), report, depth)


def _scalar(value: Any, report: Report, depth: int) -> Any:
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    if isinstance(value, np.floating):
        # float32 in its own digits, as orjson writes them.
        return _float(float(str(value)), report, depth)
    item = value.item()
    if isinstance(item, np.generic):
        raise Unfit(f"a {type(value).__name__} is no JSON")
    return plain(item, report, depth)


def _object(value: Mapping[Any, Any], report: Report, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, each in value.items():
        if not isinstance(name, str):
            report(f"the name {shown(name)}, which is no text")
            continue
        try:
            found[utf8(name)] = plain(each, report, depth + 1)
        except Unfit as error:
            report(f"{utf8(name)[:200]}: {error}")
    return found


def _text(text: str, report: Report, _depth: int) -> str:
    # Of a subclass the plain text.
    text = str.__str__(text)
    if len(text) > _MOST_TEXT:
        report(f"the end of a text of {len(text)} characters")
        text = text[:_MOST_TEXT]
    return utf8(text)


def _list(values: Sequence[Any], report: Report, depth: int) -> list[Any]:
    return fit_each(values, lambda each: plain(each, report, depth + 1), report)


def _iso(value: date | time, _report: Report, _depth: int) -> str:
    return value.isoformat()


# The first class counts: NumPy has floats and texts that are Python's as well.
_CONVERTERS: Final[Mapping[type, Callable[[Any, Report, int], Any]]] = {
    Enum: lambda value, report, depth: plain(value.value, report, depth + 1),
    np.ndarray: _array,
    np.generic: _scalar,
    str: _text,
    int: _integer,
    float: _float,
    Mapping: _object,
    list: _list,
    tuple: _list,
    date: _iso,
    time: _iso,
    UUID: lambda value, _report, _depth: str(value),
}

# Almost every value is of one of these classes, of which the others need not be asked.
_EXACTLY: Final[Mapping[type, Callable[[Any, Report, int], Any]]] = {
    dict: _object,
    **{each: _CONVERTERS[each] for each in (str, int, float, list, tuple, np.ndarray)},
}


def fit_each(values: Sequence[Any], convert: Callable[[Any], Any], report: Report) -> list[Any]:
    """Convert the elements of a list; leave out those that are unfit."""
    if len(values) > _MOST_ELEMENTS:
        report(f"all but {_MOST_ELEMENTS} of {len(values)} values")
    found = []
    for each in values[:_MOST_ELEMENTS]:
        try:
            found.append(convert(each))
        except Unfit as error:
            report(str(error))
    return found


def shown(value: Any) -> str:
    """Return the beginning of a value's text, for a message."""
    try:
        return utf8(repr(value))[:60]
    except ValueError:
        # Of a number with too many digits.
        return f"a {type(value).__name__}"


# Of the square of a vector's length, as Elasticsearch compares it.
_UNIT_TOLERANCE = 1e-3


def has_length(vector: npt.ArrayLike, similarity: str | None) -> bool:
    """Return True if Elasticsearch can compare this vector: it computes with float32.

    Its square must not overflow, nor be 0 for cosine similarity, or other than 1 for dot_product.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = np.asarray(vector, np.float32)
        squared = float(np.dot(narrow, narrow))
    if not math.isfinite(squared) or (similarity == "cosine" and squared == 0):
        return False
    return similarity != "dot_product" or abs(squared - 1) < _UNIT_TOLERANCE
