"""Notes of what a describer could not read, in the field `describe_errors`.

A describer that raises gives a note and nothing else.  One that reads everything but a value
gives its fields and a note of that value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from es_imgsearch.records import utf8

ERRORS_FIELD: Final = "describe_errors"
# Hash of what the sidecars of a picture say, by which a change of them is noticed.
SIDECAR_ID: Final = "sidecar_id"

_NOTE_LENGTH = 500
_MOST_NOTES = 20


def failed(name: str, error: Exception) -> dict[str, Any]:
    """Return the fields of a describer that raised: only a note."""
    return {ERRORS_FIELD: [_note(name, type(error).__name__, str(error))]}


def with_notes(name: str, fields: Mapping[str, Any], reasons: Iterable[str]) -> dict[str, Any]:
    """Add notes of values that could not be read to the fields of a describer."""
    notes = list(dict.fromkeys(_note(name, ValueError.__name__, each) for each in reasons))
    return {**fields, ERRORS_FIELD: notes[:_MOST_NOTES]} if notes else dict(fields)


def is_failure(fields: Mapping[str, Any]) -> bool:
    """Return True for the fields of a describer that gave only notes."""
    return ERRORS_FIELD in fields and fields.keys() <= {ERRORS_FIELD, SIDECAR_ID}


def note_of(name: str, document: Mapping[str, Any]) -> str | None:
    """Return the first note of this describer in a document, if any."""
    notes = (each for each in document.get(ERRORS_FIELD, ()) if each.startswith(f"{name}: "))
    return next(notes, None)


def _note(name: str, kind: str, reason: str) -> str:
    return utf8(f"{name}: {kind}: {reason}"[:_NOTE_LENGTH])
