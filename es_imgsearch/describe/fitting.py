"""Fit the fields of a document to the mapping of its index; note the rest.

Elasticsearch refuses a whole document for one value that its field cannot hold, and no picture
should be lost for that.  `field_values` has the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from es_imgsearch.describe.field_values import fit_value
from es_imgsearch.describe.plain_values import Unfit, plain, shown
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.records import REGIONS_FIELD, utf8

ERRORS_FIELD = "describe_errors"
# How the reason of a note begins whose describer gave more than could be stored.
LEFT_OUT = "left out"

# A request has at most 10 MB.
_MOST_BYTES = 8_000_000
_NOTE_LENGTH = 500
_MOST_NOTES = 10


# Takes the reason why a value, or a part of it, is left out.
Note: TypeAlias = Callable[[str], object]


def ignore(reason: str) -> None:
    """Note nothing."""
    _ = reason


def noting(left_out: dict[str, list[str]], name: str) -> Note:
    """Return what adds a reason to those of this name."""
    return lambda reason: left_out.setdefault(name, []).append(reason)


class Fitted(NamedTuple):
    """Fields that the mapping takes, and what was left out, in words, by field."""

    fields: dict[str, Any]
    left_out: dict[str, list[str]]


def fit(fields: Mapping[Any, Any], properties: Mapping[str, Any] | None = None) -> Fitted:
    """Fit fields to the `properties` of a mapping; without them, to JSON.

    A value that cannot be stored is left out, or the part of it that cannot.
    """
    fitted: dict[str, Any] = {}
    left_out: dict[str, list[str]] = {}
    for name, value in fields.items():
        reasons: list[str] = []
        try:
            if not isinstance(name, str):
                raise Unfit("the name of a field is a text")
            if properties is None:
                fitted[name] = plain(value, reasons.append)
            elif name in properties:
                fitted[name] = fit_value(value, properties[name], reasons.append)
            else:
                raise Unfit("the index does not map it")
        except Unfit as error:
            reasons.append(str(error))
        if reasons:
            left_out[utf8(name)[:200] if isinstance(name, str) else shown(name)] = reasons
    for name in _largest(fitted):
        del fitted[name]
        left_out.setdefault(name, []).append("its document is too large")
    return Fitted(fitted, left_out)


def fit_document(
    document: Mapping[str, Any],
    properties: Mapping[str, Any],
    by_source: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Fit a document to the `properties` of its index; notes say what was left out.

    `by_source` are fields by the describer that gave them, of which the later counts.  The
    vectors of the picture stay as they are: without them it would not be found.
    """
    own = {name: document[name] for name in (VECTOR_FIELD, REGIONS_FIELD) if name in document}
    fitted, left_out = fit(
        {name: value for name, value in document.items() if name not in own}, properties
    )
    givers = list(by_source)[::-1]
    by_giver: dict[str, dict[str, list[str]]] = {}
    for name, reasons in left_out.items():
        giver = next((each for each in givers if name in by_source[each]), "")
        by_giver.setdefault(giver or "file", {})[name] = reasons
    found = [each for giver in by_giver for each in notes(by_giver[giver], giver)]
    if found and ERRORS_FIELD in properties:
        fitted[ERRORS_FIELD] = [*texts_in(fitted.get(ERRORS_FIELD)), *found]
    return {**fitted, **own}


def texts_in(value: Any) -> list[str]:
    """Return the notes in `describe_errors`; a describer may give anything."""
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str)]


def notes(left_out: Mapping[str, Iterable[str]], source: str) -> list[str]:
    """Return notes for `describe_errors` on what was left out of a source's fields."""
    found = [
        f"{source}: {LEFT_OUT}: {name}: {reason}"[:_NOTE_LENGTH]
        for name, reasons in left_out.items()
        for reason in reasons
    ]
    more = [f"{source}: {LEFT_OUT}: {len(found) - _MOST_NOTES} more values"]
    return found if len(found) <= _MOST_NOTES else found[:_MOST_NOTES] + more


def _largest(fields: Mapping[str, Any]) -> list[str]:
    """Return the largest fields of those that are too large together."""
    sizes = {name: _size(value) for name, value in fields.items()}
    beyond = sum(sizes.values()) - _MOST_BYTES
    largest = []
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        if beyond <= 0:
            break
        largest.append(name)
        beyond -= sizes[name]
    return largest


def _size(value: Any) -> int:
    """Return about how many bytes of JSON a value takes."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    if isinstance(value, dict):
        return sum(len(name) + _size(each) for name, each in value.items())
    if isinstance(value, list):
        return sum(map(_size, value))
    return 12 * value.size if isinstance(value, np.ndarray) else 8
