"""Saved objects of Kibana 8.19: ids, versions, references.

Shapes and versions follow Kibana's source code.  Each object is written in the oldest
version that has what it uses: Kibana brings older ones up to date and refuses newer ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

SavedObject = dict[str, Any]
Reference = dict[str, str]

CORE_VERSION: Final = "8.8.0"
# Lowest version of each type with the shape that is used here.  Lens gets `metrics` of a pie in the
# migrations up to 8.9; dashboards and sessions have not changed since in what is written here.
TYPE_VERSIONS: Final = {
    "index-pattern": "8.0.0",
    "search": "8.0.0",
    "lens": "8.9.0",
    "visualization": "8.5.0",
    "dashboard": "8.9.0",
    "query": "8.0.0",
    "tag": "8.0.0",
}
# Kibana's own list of types with tags, as far as they are written here.
TAGGED: Final = frozenset({"search", "lens", "visualization", "dashboard"})
# Saved object type of each kind of source.
TYPES: Final = {
    "data_views": "index-pattern",
    "discover": "search",
    "lens": "lens",
    "vega": "visualization",
    "dashboards": "dashboard",
}

GRID_COLUMNS: Final = 48
_TAG_COLOUR: Final = "#6092C0"
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


def saved_query(identifier: str, title: str, description: str, query: Any) -> SavedObject:
    """Build a query for every search bar of Kibana; `query` is in the query DSL."""
    attributes = {
        "title": title,
        "description": description,
        # Kibana sends the object of a query in Lucene's language as it is.
        "query": {"language": "lucene", "query": query},
        "filters": [],
    }
    return saved_object("query", identifier, attributes, [])


def tag(identifier: str, name: str, description: str) -> SavedObject:
    attributes = {"name": name, "description": description, "color": _TAG_COLOUR}
    return saved_object("tag", identifier, attributes, [])


def tagged(each: SavedObject, tag_id: str) -> SavedObject:
    """Refer an object to a tag, if objects of its type can have one."""
    if each["type"] not in TAGGED:
        return each
    references = [*each["references"], reference("tag", tag_id, tag_reference(tag_id))]
    return {**each, "references": sorted(references, key=lambda one: one["name"])}


def tag_reference(tag_id: str) -> str:
    return f"tag-ref-{tag_id}"


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
    for target in each["references"]:
        if target["type"] == "tag":
            yield tag_reference(target["id"])
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
