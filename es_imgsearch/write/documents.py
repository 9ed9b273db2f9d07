"""Make the document of a picture, or of a failure."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from es_imgsearch.elastic.mapping import VECTOR_FIELD
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
    stored_path,
)

# `folder` of a file that lies in the root itself; an empty keyword cannot be seen in Kibana.
TOP_FOLDER = "."


def picture_document(
    change: Change,
    picture: Picture,
    embedded: Embedded,
    embed_ms: float | None,
    *,
    with_ctime: bool = True,
) -> dict[str, Any]:
    """Return a picture's document; `embed_ms` is None for a reused vector.

    `with_ctime` is False for an index that does not map the field.
    """
    now = time.time()
    document: dict[str, Any] = {
        **_path_fields(change),
        **picture.fields,
        **embedded.fields,
        "content_id": picture.content_id,
        **_state_fields(picture.state),
        "indexed_at": _date_field(now),
        # A clock set back between event and write would give a negative lag.
        "ingest_lag_ms": max(0, round((now - change.detected_at) * 1000)),
        **vector_fields(embedded),
    }
    if with_ctime:
        document["ctime_ns"] = picture.signature.ctime_ns
    if embed_ms is not None:
        document["embed_ms"] = round(embed_ms, 3)
    return document


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

    The store adds the attempts.
    """
    document: dict[str, Any] = {
        **_path_fields(change),
        "failed_at": _date_field(time.time()),
        "error_class": error.error_class,
        "message": error.message,
    }
    if state is not None:
        document |= _state_fields(state)
    return document


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
        "size_bytes": state.size_bytes,
        "mtime_ns": state.mtime_ns,
        "modified_at": _date_field(state.mtime_ns / 1e9),
    }


def _date_field(seconds: float) -> str:
    """Format seconds since 1970 as a date field."""
    return iso_timestamp(datetime.fromtimestamp(seconds, tz=UTC), "milliseconds")
