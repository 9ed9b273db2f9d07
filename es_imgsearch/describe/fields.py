"""Runs the describers that work on vectors, each held to what it promised."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from es_imgsearch.describe.registry import VectorDescriber, VectorSpace, foreign_describers
from es_imgsearch.describe.sidecar import SIDECAR_ID
from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.errors import GenerationSwitched, StoreError, StoreRejected
from es_imgsearch.records import unit, utf8

Vectors = npt.NDArray[np.float32]

# Not the describer's doing: its requests wait out an outage until the process has to end.
_ENDS = (Stopped, GenerationSwitched)


class VectorDescribers:
    """Several describers as one: whatever one of them does costs its own fields only."""

    def __init__(self, describers: Sequence[VectorDescriber]) -> None:
        self._describers = describers
        # Of those that could not begin, what is noted in every picture.
        self._not_begun: dict[str, Mapping[str, Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._describers)

    def begin(self, space: VectorSpace) -> None:
        """Let each get ready; call it before `told`."""
        for describer in self._describers:
            try:
                describer.begin(space)
            except _ENDS:
                raise
            except Exception as error:  # noqa: BLE001 - a plug-in's failure costs its fields only
                self._not_begun[describer.name] = failed(describer.name, error)

    def told(self, vectors: Vectors) -> list[dict[str, Mapping[str, Any]]]:
        """Of each of the n vectors, of shape (n, dims) and any length, each describer's fields.

        What went wrong stands in `describe_errors`.
        """
        found: list[dict[str, Mapping[str, Any]]] = [{} for _ in vectors]
        unit_vectors = unit(vectors)
        for describer in self._describers:
            note = self._not_begun.get(describer.name)
            given = _given(describer, unit_vectors) if note is None else [note] * len(vectors)
            for each, fields in zip(found, given, strict=True):
                each[describer.name] = fields
        return found


def _given(describer: VectorDescriber, vectors: Vectors) -> list[Mapping[str, Any]]:
    try:
        given = [checked(fields) for fields in describer.describe_vectors(vectors)]
        if len(given) != len(vectors):
            raise ValueError(f"it described {len(given)} of {len(vectors)} vectors")
        for fields in given:
            check_mapped(fields, describer.mapping)
    except _ENDS:
        raise
    except Exception as error:  # noqa: BLE001 - a plug-in's failure costs its fields only
        if len(vectors) == 1:
            return [failed(describer.name, error)]
        return [each for row in vectors for each in _given(describer, row[None])]
    return list(given)


# Fields that describers give: checked, put together, and what is noted of those that fail.

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


# Fields that Elasticsearch refuses: they cost what one describer gave, not the picture.

# Whatever goes wrong with a field, 8.19 names it in one of these ways:
#   failed to parse field [mood] of type [long] in document with id '4f'
#   mapping set to strict, dynamic introduction of [shade] within [mood] is not allowed
#   Document contains at least one immense term in field="mood"
# Types and values stand in brackets as well.
_NAMED = re.compile(
    r"(?:field|object mapping for|introduction of|within) \[([^\[\]]+)\]|field=\"([^\"]+)\"",
    re.IGNORECASE,
)


# Documents of earlier versions name a class of its own for what was too large.
_REFUSALS = (StoreRejected.__name__, "StoreTooLarge")


def without_refused(
    told: Mapping[str, Mapping[str, Any]], error: StoreError
) -> dict[str, Mapping[str, Any]] | None:
    """What describers told, by their names in order, less what Elasticsearch refuses of it.

    Of the describers that gave a field named in the error, the last counts: it was its value.
    Where none is named, all from other packages are left out.  A note takes the place of the
    fields.  None where there is nothing to leave out, so that the picture itself is refused.
    """
    names = set(_giving(told, str(error))[-1:])
    if not names:
        names = {name for name in foreign_describers() & told.keys() if _fields(told[name])}
    if not names:
        return None
    return {
        name: _refused(name, fields, error) if name in names else fields
        for name, fields in told.items()
    }


def is_refusal(note: str) -> bool:
    """Whether a describer's note tells of fields that Elasticsearch refused."""
    return note.partition(": ")[2].startswith(_REFUSALS)


def _refused(name: str, fields: Mapping[str, Any], error: StoreError) -> dict[str, Any]:
    # By its hash a later comparison knows that the same would be refused again.
    kept = {SIDECAR_ID: fields[SIDECAR_ID]} if SIDECAR_ID in fields else {}
    return {**failed(name, error), **kept}


def _giving(told: Mapping[str, Mapping[str, Any]], reason: str) -> list[str]:
    """Describers that gave one of the fields named; what the file itself tells is nobody's."""
    # (The preview may hold anything.)
    reason = reason.partition("Preview of field's value")[0]
    named = {bracketed or quoted for bracketed, quoted in _NAMED.findall(reason)}
    named |= {each.partition(".")[0] for each in named}
    return [name for name, fields in told.items() if name and _fields(fields) & named]


def _fields(fields: Mapping[str, Any]) -> set[str]:
    return fields.keys() - {ERRORS_FIELD}
