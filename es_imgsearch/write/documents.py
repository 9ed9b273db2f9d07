"""Make the document of a picture, or of a failure."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from es_imgsearch.describe.fields import with_composed_texts
from es_imgsearch.describe.fitting import fit, fit_document
from es_imgsearch.elastic.mapping import VECTOR_FIELD, failures_body, load_json
from es_imgsearch.errors import ReadError
from es_imgsearch.records import (
    REGIONS_FIELD,
    Change,
    Embedded,
    FileState,
    Picture,
    Region,
    composed,
    iso_timestamp,
    stored_ns,
    stored_path,
    utf8,
)

# `folder` of a file that lies in the root itself; an empty keyword cannot be seen in Kibana.
TOP_FOLDER = "."

# Who gave what was left out, in notes: an encoder's own fields, such as a caption.
_ENCODER: Final = "encoder"
_ANY_TYPE: Final = {"type": "any"}
# Of a failure, what a comparison of folder and index needs.
_LEAST_FIELDS: Final = frozenset(
    {"image_id", "root", "relative_path", "size_bytes", "mtime_ns", "failed_at", "error_class"}
)
_MOST_MESSAGE: Final = 10_000  # characters
_MOST_REASON: Final = 500


def picture_document(
    change: Change,
    picture: Picture,
    embedded: Embedded,
    embed_ms: float | None,
    *,
    with_ctime: bool = True,
    more: Mapping[str, Any] = MappingProxyType({}),
    properties: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a picture's document; `embed_ms` is None for a reused vector.

    `with_ctime` is False for an index that does not map the field; `more` are fields that the index
    holds already or maps for sure.  What the `properties` of the index, by default those of
    mappings/, cannot hold is left out with a note.
    """
    now = time.time()
    document: dict[str, Any] = {
        **picture.fields,
        **with_composed_texts(embedded.fields),
        **more,
        **_path_fields(change),
        "content_id": picture.content_id,
        **_state_fields(picture.state),
        "indexed_at": _date_field(now),
        # A clock set back between event and write would give a negative lag.
        "ingest_lag_ms": max(0, round((now - change.detected_at) * 1000)),
        **vector_fields(embedded),
    }
    if with_ctime:
        document["ctime_ns"] = stored_ns(picture.signature.ctime_ns)
    if embed_ms is not None:
        document["embed_ms"] = round(embed_ms, 3)
    given = {**picture.fields_by_source, _ENCODER: embedded.fields}
    if properties is None:
        common = load_json("mappings", "common.json")["mappings"]["properties"]
        properties = {**dict.fromkeys(document, _ANY_TYPE), **common}
    # A field of `more` may have been mapped since `properties` were read.
    return fit_document(document, {**dict.fromkeys(more, _ANY_TYPE), **properties}, given)


def vector_fields(embedded: Embedded) -> dict[str, Any]:
    """Return the vector fields of a picture's document."""
    fields: dict[str, Any] = {VECTOR_FIELD: embedded.vector}
    if embedded.regions:
        fields[REGIONS_FIELD] = region_fields(embedded.regions)
    return fields


def region_fields(regions: Sequence[Region]) -> list[dict[str, Any]]:
    """Return the value of the regions field of a picture's document."""
    return [{"box": list(each.box), "embedding": each.vector} for each in regions]


def failure_document(change: Change, error: ReadError, state: FileState | None) -> dict[str, Any]:
    """Return the document of a file that could not be read.

    What cannot be stored is left out.  The store adds the attempts.
    """
    document: dict[str, Any] = {
        **_path_fields(change),
        "failed_at": _date_field(time.time()),
        "error_class": error.error_class,
        "message": error.message[:_MOST_MESSAGE],
    }
    if state is not None:
        document |= _state_fields(state)
    return fit(document, failures_body()["mappings"]["properties"]).fields


def least_failure(failure: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """Return what comparisons need of a failure that was refused, with the reason."""
    kept = {name: value for name, value in failure.items() if name in _LEAST_FIELDS}
    return {**kept, "message": utf8(reason)[:_MOST_REASON]}


def _path_fields(change: Change) -> dict[str, Any]:
    path = stored_path(change.relative_path)
    folder, name = posixpath.split(path)
    return {
        "image_id": change.image_id,
        "image_name": composed(name),
        "root": change.root.name,
        "relative_path": path,
        "folder": composed(folder) or TOP_FOLDER,
    }


def _state_fields(state: FileState) -> dict[str, Any]:
    return {
        "size_bytes": stored_ns(state.size_bytes),
        "mtime_ns": stored_ns(state.mtime_ns),
        "modified_at": _date_field(stored_ns(state.mtime_ns) / 1e9),
    }


def _date_field(seconds: float) -> str:
    """Format seconds since 1970 as a date field."""
    return iso_timestamp(datetime.fromtimestamp(seconds, tz=UTC), "milliseconds")
