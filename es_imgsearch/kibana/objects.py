"""Saved objects of Kibana 8.19 as values: ids, versions, references; data views, Discover, Vega.

Shapes and versions are those of Kibana's own sources.  Each object is written in the oldest
version that has what it uses: Kibana brings older ones up to date and refuses newer ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

Object = dict[str, Any]
Reference = dict[str, str]

CORE_VERSION: Final = "8.8.0"
# The shape each type is written in; a dashboard's is that before sections.
TYPE_VERSIONS: Final = {
    "index-pattern": "8.0.0",
    "search": "10.5.0",
    "lens": "8.9.0",
    "visualization": "8.5.0",
    "dashboard": "10.2.0",
}
# What stands under each kind of source.
TYPES: Final = {
    "data_views": "index-pattern",
    "discover": "search",
    "lens": "lens",
    "vega": "visualization",
    "dashboards": "dashboard",
}

GRID_COLUMNS: Final = 48
# What a Lens column counts that has no field.
RECORDS: Final = "___records___"
SEARCH_SOURCE: Final = "kibanaSavedObjectMeta.searchSourceJSON"
# These are strings that hold JSON; Kibana parses them when it loads a data view.
_JSON_OF_DATA_VIEW = (
    "fields",
    "fieldFormatMap",
    "fieldAttrs",
    "runtimeFieldMap",
    "sourceFilters",
    "typeMeta",
)
_OF_SEARCH = (
    "description",
    "columns",
    "sort",
    "grid",
    "rowHeight",
    "rowsPerPage",
    "hideChart",
    "breakdownField",
    "timeRestore",
    "timeRange",
)


def object_id(index: str, name: str) -> str:
    """Always the same for one index, so that importing anew replaces instead of adding."""
    return f"es-imgsearch-{index}-{name}"


def slug(text: str) -> str:
    """A text as part of an id: letters and digits of any script, joined by hyphens."""
    return re.sub(r"[\W_]+", "-", text.casefold()).strip("-")[:60] or "query"


def json_text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def saved_object(
    object_type: str,
    identifier: str,
    attributes: Mapping[str, Any],
    references: Iterable[Reference],
) -> Object:
    return {
        "type": object_type,
        "id": identifier,
        "attributes": dict(attributes),
        "references": sorted(references, key=lambda each: each["name"]),
        "coreMigrationVersion": CORE_VERSION,
        "typeMigrationVersion": TYPE_VERSIONS[object_type],
    }


def reference(object_type: str, identifier: str, name: str) -> Reference:
    return {"type": object_type, "id": identifier, "name": name}


def kql(query: str) -> dict[str, str]:
    return {"query": query, "language": "kuery"}


def data_view(identifier: str, source: Mapping[str, Any]) -> Object:
    # The index of searches is there only where log_searches is on.
    attributes: dict[str, Any] = {"allowNoIndex": True, "fields": "[]", "runtimeFieldMap": "{}"}
    for name, value in source.items():
        if name == "sourceFilters":
            value = [{"value": each} for each in value]
        attributes[name] = json_text(value) if name in _JSON_OF_DATA_VIEW else value
    return saved_object("index-pattern", identifier, attributes, [])


def discover_session(
    identifier: str,
    source: Mapping[str, Any],
    data_view_id: str,
    query: Mapping[str, Any] | None = None,
) -> Object:
    """A saved search; `query` takes the place of the source's own, which is KQL."""
    attributes = {"title": source["title"], "description": ""}
    attributes |= {name: source[name] for name in _OF_SEARCH if name in source}
    attributes |= {"isTextBasedQuery": False, "usesAdHocDataView": False}
    attributes["kibanaSavedObjectMeta"] = {
        "searchSourceJSON": json_text(
            {
                "query": kql(source.get("query", "")) if query is None else query,
                "filter": [],
                "indexRefName": f"{SEARCH_SOURCE}.index",
            }
        )
    }
    index = reference("index-pattern", data_view_id, f"{SEARCH_SOURCE}.index")
    return saved_object("search", identifier, attributes, [index])


def vega_panel(identifier: str, source: Mapping[str, Any]) -> Object:
    state = {
        "title": source["title"],
        "type": "vega",
        "aggs": [],
        # Kept as it is laid out in its file: people edit it in Kibana.
        "params": {"spec": orjson.dumps(source["spec"], option=orjson.OPT_INDENT_2).decode()},
    }
    attributes = {
        "title": source["title"],
        "description": source.get("description", ""),
        "version": 1,
        "uiStateJSON": "{}",
        "visState": json_text(state),
        "kibanaSavedObjectMeta": {
            "searchSourceJSON": json_text({"query": kql(""), "filter": []}),
        },
    }
    return saved_object("visualization", identifier, attributes, [])


def to_ndjson(objects: Sequence[Object]) -> bytes:
    """One object a line, and the summary that Kibana's own exports end with."""
    summary = {
        "excludedObjects": [],
        "excludedObjectsCount": 0,
        "exportedCount": len(objects),
        "missingRefCount": 0,
        "missingReferences": [],
    }
    lines = [orjson.dumps(each, option=orjson.OPT_SORT_KEYS) for each in (*objects, summary)]
    return b"\n".join(lines) + b"\n"
