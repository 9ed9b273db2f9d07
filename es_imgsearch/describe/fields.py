"""Run the vector describers; check and merge the fields of all describers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from es_imgsearch.describe.fitting import ERRORS_FIELD, LEFT_OUT, fit, notes, texts_in
from es_imgsearch.describe.registry import VectorDescriber, VectorSpace, foreign_describers
from es_imgsearch.describe.sidecar import SIDECAR_ID
from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.errors import GenerationSwitched, StoreError, StoreRejected
from es_imgsearch.records import composed, unit, utf8

Vectors = npt.NDArray[np.float32]

# No fault of the describer: its requests wait out an outage until the process ends.
_ENDS = (Stopped, GenerationSwitched)


class VectorDescribers:
    """Several describers run as one; a failing one costs its own fields only."""

    def __init__(self, describers: Sequence[VectorDescriber]) -> None:
        self._describers = describers
        # Of those whose `begin` failed: the note for every picture.
        self._not_begun: dict[str, Mapping[str, Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._describers)

    def begin(self, space: VectorSpace) -> None:
        """Prepare every describer; call it before `describe`."""
        for describer in self._describers:
            try:
                describer.begin(space)
            except _ENDS:
                raise
            except Exception as error:  # noqa: BLE001 - a plug-in's failure costs its fields only
                self._not_begun[describer.name] = failed(describer.name, error)

    def describe(self, vectors: Vectors) -> list[dict[str, Mapping[str, Any]]]:
        """Return the fields of each vector, by describer; (n, dims), any length.

        Errors are noted in the field `describe_errors`.
        """
        described: list[dict[str, Mapping[str, Any]]] = [{} for _ in vectors]
        unit_vectors = unit(vectors)
        for describer in self._describers:
            note = self._not_begun.get(describer.name)
            results = (
                _fields_of_vectors(describer, unit_vectors)
                if note is None
                else [note] * len(vectors)
            )
            for each, fields in zip(described, results, strict=True):
                each[describer.name] = fields
        return described


def _fields_of_vectors(describer: VectorDescriber, vectors: Vectors) -> list[Mapping[str, Any]]:
    try:
        described = describer.describe_vectors(vectors)
        name, mapping = describer.name, describer.mapping
        results = [checked(mapped_only(fields, name, mapping), name) for fields in described]
        if len(results) != len(vectors):
            raise ValueError(f"it described {len(results)} of {len(vectors)} vectors")
    except _ENDS:
        raise
    except Exception as error:  # noqa: BLE001 - a plug-in's failure costs its fields only
        if len(vectors) == 1:
            return [failed(describer.name, error)]
        return [each for row in vectors for each in _fields_of_vectors(describer, row[None])]
    return list(results)


# -- Check and merge fields; notes of failures

_ERROR_LENGTH = 500


def checked(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a describer's fields as JSON types; notes say what was left out.

    A value of another type may not survive the way to another process, and the whole bulk request
    would fail when it is written.
    """
    fitted, left_out = fit(fields)
    if errors := [*texts_in(fitted.pop(ERRORS_FIELD, None)), *notes(left_out, name)]:
        fitted[ERRORS_FIELD] = errors
    return with_composed_texts(fitted)


# The way to the file, the root that ids are made of, addresses and hashes: kept as they are.
_UNCHANGED = frozenset(
    {"image_id", "root", "relative_path", "content_id", "source_url", SIDECAR_ID}
)


def with_composed_texts(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with their texts composed (NFC), as `records.composed`."""
    return {
        name: value if name in _UNCHANGED else _with_composed(value)
        for name, value in fields.items()
    }


def _with_composed(value: Any) -> Any:
    if isinstance(value, str):
        return composed(value)
    if isinstance(value, (list, tuple)):
        # Numbers of a vector need no look each.
        return value if value and isinstance(value[0], float) else [*map(_with_composed, value)]
    if isinstance(value, Mapping):
        # Names that are no texts are left out later, with a note.
        return {
            composed(name) if isinstance(name, str) else name: _with_composed(each)
            for name, each in value.items()
        }
    return value


def mapped_only(
    fields: Mapping[str, Any], name: str, mapping: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Leave out, with a note, fields that a describer did not map.

    Elasticsearch would refuse the whole document.  Notes need no mapping of their own.
    """
    unmapped = {each: ["the describer does not map it"] for each in fields if each not in mapping}
    unmapped.pop(ERRORS_FIELD, None)
    if not unmapped:
        return fields
    left = {each: value for each, value in fields.items() if each not in unmapped}
    merge(left, {ERRORS_FIELD: notes(unmapped, name)})
    return left


def note_of(name: str, document: Mapping[str, Any]) -> str | None:
    """Return the document's note of this describer's failure, if any."""
    own = (each for each in document.get(ERRORS_FIELD, ()) if each.startswith(f"{name}: "))
    return next(own, None)


def failed(name: str, error: Exception) -> dict[str, Any]:
    """Return the fields of a describer that raised: only a note."""
    return {ERRORS_FIELD: [utf8(f"{name}: {type(error).__name__}: {error}"[:_ERROR_LENGTH])]}


def has_failed(fields: Mapping[str, Any]) -> bool:
    """Return True if a describer raised, or all its fields were refused."""
    return any(
        not each.partition(": ")[2].startswith(LEFT_OUT) for each in fields.get(ERRORS_FIELD, ())
    )


def merged(described: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Merge the fields of describers, in order; of equal names the later counts."""
    fields: dict[str, Any] = {}
    for each in described.values():
        merge(fields, each)
    return fields


def merge(fields: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add fields to those of a picture; notes of failures are appended."""
    errors = [*fields.get(ERRORS_FIELD, ()), *more.get(ERRORS_FIELD, ())]
    fields.update(more)
    if errors:
        fields[ERRORS_FIELD] = errors


# -- Fields that Elasticsearch refuses cost those of one describer, not the picture

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
_REFUSALS = (StoreRejected.__name__, "StoreTooLarge", LEFT_OUT)


def without_refused(
    described: Mapping[str, Mapping[str, Any]], error: StoreError
) -> dict[str, Mapping[str, Any]] | None:
    """Leave out the fields that Elasticsearch refused; None if there are none.

    Of the describers that gave a field named in the error, the last counts: it was its value.
    Where none is named, all of other packages are left out.  A note replaces the fields.  None
    means that the picture itself is refused.
    """
    names = set(_describers_named_in(described, str(error))[-1:])
    if not names:
        names = {
            name for name in foreign_describers() & described.keys() if _fields(described[name])
        }
    if not names:
        return None
    return {
        name: _refused(name, fields, error) if name in names else fields
        for name, fields in described.items()
    }


def is_refusal(note: str) -> bool:
    """Return True if a describer's note is of fields that Elasticsearch refused."""
    return note.partition(": ")[2].startswith(_REFUSALS)


def _refused(name: str, fields: Mapping[str, Any], error: StoreError) -> dict[str, Any]:
    # By this hash a later comparison knows that the same would be refused again.
    sidecar_id = {SIDECAR_ID: fields[SIDECAR_ID]} if SIDECAR_ID in fields else {}
    return {**failed(name, error), **sidecar_id}


def _describers_named_in(described: Mapping[str, Mapping[str, Any]], reason: str) -> list[str]:
    """Return the describers that gave a field named in the error's reason."""
    # The preview may hold anything.
    reason = reason.partition("Preview of field's value")[0]
    named = {bracketed or quoted for bracketed, quoted in _NAMED.findall(reason)}
    named |= {each.partition(".")[0] for each in named}
    return [name for name, fields in described.items() if name and _fields(fields) & named]


def _fields(fields: Mapping[str, Any]) -> set[str]:
    return fields.keys() - {ERRORS_FIELD}
