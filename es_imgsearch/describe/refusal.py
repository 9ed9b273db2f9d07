"""Fields that Elasticsearch refuses: they cost what one describer gave, not the picture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from es_imgsearch.describe import foreign_describers
from es_imgsearch.describe.sidecar import SIDECAR_ID
from es_imgsearch.described import ERRORS_FIELD, failed
from es_imgsearch.errors import StoreError, StoreRejected, StoreTooLarge

# Whatever goes wrong with a field, 8.19 names it in one of these ways:
#   failed to parse field [mood] of type [long] in document with id '4f'
#   mapping set to strict, dynamic introduction of [shade] within [mood] is not allowed
#   Document contains at least one immense term in field="mood"
# Types and values stand in brackets as well.
_NAMED = re.compile(
    r"(?:field|object mapping for|introduction of|within) \[([^\[\]]+)\]|field=\"([^\"]+)\"",
    re.IGNORECASE,
)


_REFUSALS = (StoreRejected.__name__, StoreTooLarge.__name__)


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
