"""Saved objects of Kibana 8.19: ids, versions, references, fields.

Shapes and versions follow Kibana's source code.  Each object is written in the oldest
version that has what it uses: Kibana brings older ones up to date and refuses newer ones.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

SavedObject = dict[str, Any]
Reference = dict[str, str]

CORE_VERSION: Final = "8.8.0"
# Model version of each type; a dashboard's is the last one before sections.
TYPE_VERSIONS: Final = {
    "index-pattern": "8.0.0",
    "search": "10.5.0",
    "lens": "8.9.0",
    "visualization": "8.5.0",
    "dashboard": "10.2.0",
}
# Saved object type of each kind of source.
TYPES: Final = {
    "data_views": "index-pattern",
    "discover": "search",
    "lens": "lens",
    "vega": "visualization",
    "dashboards": "dashboard",
}

GRID_COLUMNS: Final = 48
# Field name of a Lens column that counts documents.
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
_SEARCH_ATTRIBUTES = (
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
    """Build an id that stays the same for one index: a new import replaces objects."""
    return f"es-imgsearch-{index}-{name}"


def slug(text: str) -> str:
    """Turn a text into a part of an id: letters and digits joined by hyphens."""
    return re.sub(r"[\W_]+", "-", text.casefold()).strip("-")[:60] or "query"


def json_text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def saved_object(
    object_type: str,
    identifier: str,
    attributes: Mapping[str, Any],
    references: Iterable[Reference],
) -> SavedObject:
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


def data_view(identifier: str, source: Mapping[str, Any]) -> SavedObject:
    # The index of searches exists only if log_searches is on.
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
) -> SavedObject:
    """Build a saved search; `query` replaces the source's own KQL query."""
    attributes = {"title": source["title"], "description": ""}
    attributes |= {name: source[name] for name in _SEARCH_ATTRIBUTES if name in source}
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


def vega_panel(identifier: str, source: Mapping[str, Any]) -> SavedObject:
    state = {
        "title": source["title"],
        "type": "vega",
        "aggs": [],
        # Indented, since people edit it in Kibana.
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


def to_ndjson(objects: Sequence[SavedObject]) -> bytes:
    """Write an object per line, then a summary line as Kibana's own exports have."""
    summary = {
        "excludedObjects": [],
        "excludedObjectsCount": 0,
        "exportedCount": len(objects),
        "missingRefCount": 0,
        "missingReferences": [],
    }
    lines = [orjson.dumps(each, option=orjson.OPT_SORT_KEYS) for each in (*objects, summary)]
    return b"\n".join(lines) + b"\n"


_REFERENCE_SUFFIXES: Final = {
    "optionsListControl": "optionsListDataView",
    "rangeSliderControl": "rangeSliderDataView",
}


def reference_names(each: SavedObject) -> Iterator[str]:
    """Yield the reference names that an object's content uses.

    Raises KeyError or ValueError for a malformed object.
    """
    attributes = each["attributes"]
    if "kibanaSavedObjectMeta" in attributes:
        yield from _search_source_references(search_source(each))
    if each["type"] == "lens":
        for layer in attributes["state"]["datasourceStates"]["formBased"]["layers"]:
            yield f"indexpattern-datasource-layer-{layer}"
    if each["type"] == "dashboard":
        for panel in orjson.loads(attributes["panelsJSON"]):
            yield from _panel_references(panel)
        for name, control in orjson.loads(attributes["controlGroupInput"]["panelsJSON"]).items():
            if (reference := control_reference(name, control)) is not None:
                yield reference


def search_source(each: SavedObject) -> Mapping[str, Any]:
    """Parse the query and the filters of an object."""
    source: Mapping[str, Any] = orjson.loads(
        each["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"]
    )
    return source


def control_reference(name: str, control: Mapping[str, Any]) -> str | None:
    """Name of the reference to a control's data view; None if it needs none."""
    suffix = _REFERENCE_SUFFIXES.get(control["type"])
    return None if suffix is None else f"controlGroup_{name}:{suffix}"


def _search_source_references(source: Mapping[str, Any]) -> Iterator[str]:
    if "indexRefName" in source:
        yield source["indexRefName"]
    for pill in source["filter"]:
        if "indexRefName" in pill["meta"]:
            yield pill["meta"]["indexRefName"]


def _panel_references(panel: Mapping[str, Any]) -> Iterator[str]:
    panel_id = panel["panelIndex"]
    if "panelRefName" in panel:
        yield f"{panel_id}:{panel['panelRefName']}"
    for link in panel["embeddableConfig"].get("attributes", {}).get("links", []):
        if "destinationRefName" in link:
            yield f"{panel_id}:{link['destinationRefName']}"


NUMBERS: Final = frozenset({"long", "integer", "short", "byte", "float", "double", "half_float"})

FieldTypes = Mapping[str, str]


def field_types(
    properties: Mapping[str, Any], runtime: Mapping[str, Any] | None = None
) -> FieldTypes:
    """Map full field names, sub-fields and runtime fields included, to types."""
    return dict(_types(properties)) | {name: each["type"] for name, each in (runtime or {}).items()}


def _types(properties: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, mapping in properties.items():
        if "properties" in mapping:
            yield from _types(mapping["properties"], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", mapping["type"]
        for sub, each in mapping.get("fields", {}).items():
            yield f"{prefix}{name}.{sub}", each["type"]


# `size_bytes >= 1` and `taken_at: *`: a field name precedes a colon or a comparison.
_KQL_FIELD = re.compile(r"([\w.]+)\s*(?::|[<>]=?)")


def unknown_fields(names: Collection[str], types: FieldTypes | None) -> Iterator[str]:
    """Report names that an index does not have; nothing if `types` is None."""
    if types is None:
        return
    for name in names:
        if name not in types:
            yield f"the index has no field {name!r}"


def mismatched_field(
    name: str, types: FieldTypes | None, fitting: frozenset[str], purpose: str
) -> Iterator[str]:
    """Report a field that is missing or of another type; nothing without `types`."""
    if types is None:
        return
    if name not in types:
        yield f"the index has no field {name!r}"
    elif types[name] not in fitting:
        yield f"the field {name!r} is {types[name]}, which does not fit {purpose}"


def query_problems(query: Mapping[str, Any], types: FieldTypes | None) -> Iterator[str]:
    """Report unknown fields of a query in KQL or in Elasticsearch's query DSL."""
    text = query["query"]
    if query["language"] == "kuery":
        yield from unknown_fields(_KQL_FIELD.findall(text), types)
    elif isinstance(text, dict):
        yield from unknown_fields(referenced_fields(text), types)


def referenced_fields(body: Any) -> list[str]:
    """List the fields that a request body searches, aggregates, sorts or fetches."""
    if isinstance(body, list):
        return [name for each in body for name in referenced_fields(each)]
    if not isinstance(body, dict):
        return []
    names: list[str] = []
    for key, value in body.items():
        if key == "field" and isinstance(value, str):
            names.append(value)
        elif key == "sort":
            names += [name for each in value for name in each if not name.startswith("_")]
        elif key == "_source" and isinstance(value, list):
            names += value
        else:
            names += referenced_fields(value)
    return names
