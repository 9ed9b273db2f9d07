"""Saved objects of Kibana 8.19 as values: ids, versions, references; data views, Discover, Vega.

Shapes and versions are those of Kibana's own sources.  Each object is written in the oldest
version that has what it uses: Kibana brings older ones up to date and refuses newer ones.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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


# The names of the references that an object's content uses, whatever references it has.

_ENDS: Final = {
    "optionsListControl": "optionsListDataView",
    "rangeSliderControl": "rangeSliderDataView",
}


def reference_names(each: Object) -> Iterator[str]:
    """Of any saved object; raises KeyError or ValueError for one that is not as it should be."""
    attributes = each["attributes"]
    if "kibanaSavedObjectMeta" in attributes:
        yield from _of_search_source(search_source(each))
    if each["type"] == "lens":
        for layer in attributes["state"]["datasourceStates"]["formBased"]["layers"]:
            yield f"indexpattern-datasource-layer-{layer}"
    if each["type"] == "dashboard":
        for panel in orjson.loads(attributes["panelsJSON"]):
            yield from _of_panel(panel)
        for name, control in orjson.loads(attributes["controlGroupInput"]["panelsJSON"]).items():
            if (reference := control_reference(name, control)) is not None:
                yield reference


def search_source(each: Object) -> Mapping[str, Any]:
    """The query and the filters of an object that has them."""
    found: Mapping[str, Any] = orjson.loads(
        each["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"]
    )
    return found


def control_reference(name: str, control: Mapping[str, Any]) -> str | None:
    """The name of the reference to a control's data view; None for one that needs none."""
    end = _ENDS.get(control["type"])
    return None if end is None else f"controlGroup_{name}:{end}"


def _of_search_source(source: Mapping[str, Any]) -> Iterator[str]:
    if "indexRefName" in source:
        yield source["indexRefName"]
    for pill in source["filter"]:
        if "indexRefName" in pill["meta"]:
            yield pill["meta"]["indexRefName"]


def _of_panel(panel: Mapping[str, Any]) -> Iterator[str]:
    place = panel["panelIndex"]
    if "panelRefName" in panel:
        yield f"{place}:{panel['panelRefName']}"
    for link in panel["embeddableConfig"].get("attributes", {}).get("links", []):
        if "destinationRefName" in link:
            yield f"{place}:{link['destinationRefName']}"


# Which fields a data view has, and of what type: those of a mapping, and its runtime fields.

NUMBERS: Final = frozenset({"long", "integer", "short", "byte", "float", "double", "half_float"})

Types = Mapping[str, str]


def field_types(properties: Mapping[str, Any], runtime: Mapping[str, Any] | None = None) -> Types:
    """Types by the names that queries use, multi-fields and sub-fields of objects included."""
    found = dict(_types(properties))
    return found | {name: each["type"] for name, each in (runtime or {}).items()}


def _types(properties: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, mapping in properties.items():
        if "properties" in mapping:
            yield from _types(mapping["properties"], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", mapping["type"]
        for sub, each in mapping.get("fields", {}).items():
            yield f"{prefix}{name}.{sub}", each["type"]


# Fields that queries, sorts and panels use, held against those that an index has.
#
# Without an index to compare with (types None) nothing is wrong.

# `size_bytes >= 1` and `taken_at: *`: names of fields stand before a colon or a comparison.
_KQL_FIELD = re.compile(r"([\w.]+)\s*(?::|[<>]=?)")


def unknown(names: Collection[str], types: Types | None) -> Iterator[str]:
    if types is None:
        return
    for name in names:
        if name not in types:
            yield f"the index has no field {name!r}"


def unfit(name: str, types: Types | None, fitting: frozenset[str], what_for: str) -> Iterator[str]:
    if types is None:
        return
    if name not in types:
        yield f"the index has no field {name!r}"
    elif types[name] not in fitting:
        yield f"the field {name!r} is {types[name]}, which does not fit {what_for}"


def query_problems(query: Mapping[str, Any], types: Types | None) -> Iterator[str]:
    """Of a query in KQL, or of one in Elasticsearch's own language."""
    text = query["query"]
    if query["language"] == "kuery":
        yield from unknown(_KQL_FIELD.findall(text), types)
    elif isinstance(text, dict):
        yield from unknown(fields_in(text), types)


def fields_in(body: Any) -> list[str]:
    """Every field that a request's body names to search, aggregate, sort or fetch."""
    if isinstance(body, list):
        return [name for each in body for name in fields_in(each)]
    if not isinstance(body, dict):
        return []
    found: list[str] = []
    for key, value in body.items():
        if key == "field" and isinstance(value, str):
            found.append(value)
        elif key == "sort":
            found += [name for each in value for name in each if not name.startswith("_")]
        elif key == "_source" and isinstance(value, list):
            found += value
        else:
            found += fields_in(value)
    return found
