"""Fields that describers give: checked, put together, and what is noted of those that fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from es_imgsearch.pictures.decoding import utf8

ERRORS_FIELD = "describe_errors"
_ERROR_LENGTH = 500


def checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """These fields, if they can be written.  Raises what orjson does.

    What JSON cannot hold would fail when it is written, together with everybody else.
    """
    given = dict(fields)
    orjson.dumps(given, option=orjson.OPT_SERIALIZE_NUMPY)
    return given


def check_mapped(fields: Mapping[str, Any], mapping: Mapping[str, Any]) -> None:
    """Raise ValueError for fields that a describer did not map.

    Elasticsearch would refuse the whole document.
    """
    if unmapped := sorted(fields.keys() - mapping.keys()):
        raise ValueError(f"it gave fields that it did not map: {', '.join(unmapped)}")


def note_of(name: str, document: Mapping[str, Any]) -> str | None:
    """What a document notes of this describer's failure; None if it did not fail."""
    notes = (each for each in document.get(ERRORS_FIELD, ()) if each.startswith(f"{name}: "))
    return next(notes, None)


def failed(name: str, error: Exception) -> dict[str, Any]:
    """The fields of a describer that raised: what is noted of it."""
    return {ERRORS_FIELD: [utf8(f"{name}: {type(error).__name__}: {error}"[:_ERROR_LENGTH])]}


def merged(told: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of what several describers gave, by their names in the order in which they were asked, all
    fields; of two that give the same one the later counts.
    """
    fields: dict[str, Any] = {}
    for each in told.values():
        merge(fields, each)
    return fields


def merge(fields: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add fields to those of a picture; notes of failures are kept beside each other."""
    errors = [*fields.get(ERRORS_FIELD, ()), *more.get(ERRORS_FIELD, ())]
    fields.update(more)
    if errors:
        fields[ERRORS_FIELD] = errors
