"""Check whether Kibana would import saved objects and could open them.

Kibana's import checks only versions, attributes, and references to data views and sessions: it
imports a dashboard that refers to a missing panel, and then cannot open it.  So this checks
everything: shapes (`kibana/schemas`), versions, references in both directions, the grid, JSON
within JSON, and the type of every field.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any, Final

import orjson

from es_imgsearch.elastic.mapping import load_json
from es_imgsearch.errors import FileInvalid
from es_imgsearch.kibana.objects import (
    CORE_VERSION,
    GRID_COLUMNS,
    NUMBERS,
    RECORDS,
    SEARCH_SOURCE,
    TYPE_VERSIONS,
    FieldTypes,
    SavedObject,
    control_reference,
    mismatched_field,
    query_problems,
    reference_names,
    referenced_fields,
    search_source,
    unknown_fields,
)

# Types with doc values, by which documents can be grouped and sorted.
_VALUES: Final = NUMBERS | frozenset({"keyword", "boolean", "ip", "date"})
_DATES: Final = frozenset({"date"})
_FITTING: Final[Mapping[str, frozenset[str]]] = {
    "date_histogram": _DATES,
    "range": NUMBERS,
    **dict.fromkeys(("terms", "unique_count"), _VALUES),
    **dict.fromkeys(("min", "max"), NUMBERS | _DATES),
    **dict.fromkeys(("average", "median", "percentile", "sum"), NUMBERS),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Defect of one object; `where` is its type/id."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def parse_ndjson(content: bytes) -> list[SavedObject]:
    """Parse the objects of a file without its summary line; raise FileInvalid."""
    objects = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise FileInvalid(f"Line {number} is not JSON: {error}.") from error
        if not isinstance(value, dict):
            raise FileInvalid(f"Line {number} is not an object.")
        if "exportedCount" in value:
            continue
        if not all(isinstance(value.get(name), str) for name in ("type", "id")):
            raise FileInvalid(f"Line {number} has no type and id of a saved object.")
        objects.append(value)
    if not objects:
        raise FileInvalid("The file holds no saved objects.")
    return objects


def find_problems(
    objects: Sequence[SavedObject], types: Mapping[str, FieldTypes] | None = None
) -> list[Problem]:
    """List the defects of saved objects.

    `types` are the fields' types of each index by its alias; without them fields are not checked.
    """
    return list(_Checker(objects, types or {}).problems())


class _Checker:
    def __init__(self, objects: Sequence[SavedObject], types: Mapping[str, FieldTypes]) -> None:
        self._objects = objects
        self._by_key = {(each["type"], each["id"]): each for each in objects}
        self._types = types

    def problems(self) -> Iterator[Problem]:
        for (kind, identifier), count in Counter(
            (each["type"], each["id"]) for each in self._objects
        ).items():
            if count > 1:
                yield Problem(f"{kind}/{identifier}", f"the file has it {count} times")
        for each in self._objects:
            where = f"{each['type']}/{each['id']}"
            try:
                for what in self._object_problems(each):
                    yield Problem(where, what)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                # A defect that the schema has reported already, or JSON that does not parse.
                yield Problem(where, f"it cannot be read further ({type(error).__name__}: {error})")

    def _object_problems(self, each: SavedObject) -> Iterator[str]:
        kind = each["type"]
        if kind not in TYPE_VERSIONS:
            yield f"the type {kind!r} is none of {', '.join(TYPE_VERSIONS)}"
            return
        yield from _version_problems(each)
        yield from _schema_problems(kind, each["attributes"])
        references = {name["name"]: name for name in each["references"]}
        if len(references) < len(each["references"]):
            yield "two references have the same name"
        used = set(reference_names(each))
        for name in sorted(used - references.keys()):
            yield f"it uses the reference {name!r}, which it does not have"
        for name in sorted(references.keys() - used):
            yield f"it has the reference {name!r}, which it does not use"
        for name, target in references.items():
            if (target["type"], target["id"]) not in self._by_key:
                missing = f"{target['type']}/{target['id']}"
                yield f"the reference {name!r} leads to {missing}, which the file does not have"
        checks = {
            "index-pattern": self._data_view,
            "search": self._session,
            "lens": self._lens,
            "visualization": self._vega,
            "dashboard": self._dashboard,
        }
        yield from checks[kind](each, references)

    # -- checks of one type each -------------------------------------------------------------------

    def _data_view(self, each: SavedObject, _: Mapping[str, Any]) -> Iterator[str]:
        attributes = each["attributes"]
        types = self._types_of(each)
        for name in ("fieldFormatMap", "fieldAttrs"):
            yield from unknown_fields(orjson.loads(attributes.get(name, "{}")), types)
        if (time := attributes.get("timeFieldName")) is not None:
            yield from mismatched_field(time, types, _DATES, "as the time")

    def _session(self, each: SavedObject, references: Mapping[str, Any]) -> Iterator[str]:
        attributes = each["attributes"]
        types = self._types_behind(references, f"{SEARCH_SOURCE}.index")
        yield from unknown_fields(attributes.get("columns", []), types)
        for name, _ in attributes.get("sort", []):
            if name != "_score":
                yield from mismatched_field(name, types, _VALUES, "to sort by")
        if (name := attributes.get("breakdownField")) is not None:
            yield from mismatched_field(name, types, frozenset({"keyword"}), "to break down by")
        yield from query_problems(search_source(each)["query"], types)

    def _lens(self, each: SavedObject, references: Mapping[str, Any]) -> Iterator[str]:
        state = each["attributes"]["state"]
        for name, layer in state["datasourceStates"]["formBased"]["layers"].items():
            types = self._types_behind(references, f"indexpattern-datasource-layer-{name}")
            columns = layer["columns"]
            if set(layer["columnOrder"]) != columns.keys():
                yield "columnOrder names other columns than there are"
            is_bucket = [columns[column]["isBucketed"] for column in layer["columnOrder"]]
            if is_bucket != sorted(is_bucket, reverse=True):
                yield "a metric precedes a bucket"
            for column in columns.values():
                field, operation = column["sourceField"], column["operationType"]
                if field != RECORDS:
                    yield from mismatched_field(
                        field, types, _FITTING[operation], f"for {operation}"
                    )
                ordered_by = column.get("params", {}).get("orderBy", {}).get("columnId")
                if ordered_by is not None and ordered_by not in columns:
                    yield f"a column is ordered by {ordered_by!r}, which does not exist"
            yield from query_problems(state["query"], types)
        shown = set(_accessors(state["visualization"]))
        defined = {
            column
            for layer in state["datasourceStates"]["formBased"]["layers"].values()
            for column in layer["columns"]
        }
        for column in sorted(shown ^ defined):
            yield f"the column {column!r} is either not shown or not defined"

    def _vega(self, each: SavedObject, _: Mapping[str, Any]) -> Iterator[str]:
        spec = orjson.loads(orjson.loads(each["attributes"]["visState"])["params"]["spec"])
        if not str(spec.get("$schema", "")).startswith("https://vega.github.io/schema/vega"):
            yield "its specification names no Vega schema"
        for data in spec["data"]:
            url = data.get("url")
            if not isinstance(url, dict):
                continue
            if extra := url.keys() - {"index", "body", "%context%", "%timefield%"}:
                yield f"a query has {', '.join(sorted(extra))}, which Kibana does not pass on"
            if "%context%" in url and "query" in url["body"]:
                yield "a query has %context% and a query of its own; Kibana allows only one of them"
            types = self._types.get(url["index"])
            if self._types and types is None:
                yield f"it queries the index {url['index']!r}, which no data view has"
            if (time := url.get("%timefield%")) is not None:
                yield from mismatched_field(time, types, _DATES, "as the time")
            yield from unknown_fields(referenced_fields(url["body"]), types)

    def _dashboard(self, each: SavedObject, references: Mapping[str, Any]) -> Iterator[str]:
        attributes = each["attributes"]
        yield from _grid_problems(orjson.loads(attributes["panelsJSON"]), references)
        controls = orjson.loads(attributes["controlGroupInput"]["panelsJSON"])
        yield from _schema_problems("controls", controls)
        for name, control in controls.items():
            if control["explicitInput"]["id"] != name:
                yield f"the control {name!r} has another id in explicitInput"
            if (reference := control_reference(name, control)) is not None:
                types = self._types_behind(references, reference)
                field = control["explicitInput"]["fieldName"]
                yield from mismatched_field(field, types, _VALUES, "for a control")

    # -- fields ----------------------------------------------------------------------------

    def _types_of(self, view: SavedObject) -> FieldTypes | None:
        attributes = view["attributes"]
        types = self._types.get(attributes["title"])
        if types is None:
            return None
        runtime = orjson.loads(attributes.get("runtimeFieldMap", "{}"))
        return {**types, **{name: each["type"] for name, each in runtime.items()}}

    def _types_behind(self, references: Mapping[str, Any], name: str) -> FieldTypes | None:
        """Field types of the data view that a reference leads to; None if unknown."""
        target = references.get(name)
        view = None if target is None else self._by_key.get((target["type"], target["id"]))
        return None if view is None else self._types_of(view)


# -- checks without the other objects -----------------------------------------------------


def _version_problems(each: SavedObject) -> Iterator[str]:
    for name, newest in (
        ("coreMigrationVersion", CORE_VERSION),
        ("typeMigrationVersion", TYPE_VERSIONS[each["type"]]),
    ):
        version = each.get(name)
        if version is None:
            yield f"it has no {name}, so that Kibana would run every migration since 6.0 on it"
        elif _parts(version) > _parts(newest):
            yield f"its {name} {version} is newer than {newest}, which Kibana 8.19 may refuse"


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


@cache
def _validator(name: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(load_json("kibana", f"schemas/{name}.json"))


def _schema_problems(name: str, value: Any) -> Iterator[str]:
    for error in _validator(name).iter_errors(value):
        path = ".".join(map(str, error.absolute_path)) or "it"
        yield f"{path}: {error.message[:300]}"


def _grid_problems(
    panels: Sequence[Mapping[str, Any]], references: Mapping[str, Any]
) -> Iterator[str]:
    yield from _schema_problems("panels", panels)
    for panel in panels:
        grid = panel["gridData"]
        if panel["panelIndex"] != grid["i"]:
            yield f"the panel {panel['panelIndex']!r} has the id {grid['i']!r} on the grid"
        if grid["x"] + grid["w"] > GRID_COLUMNS:
            yield f"the panel {panel['panelIndex']!r} is wider than the grid"
        if panel["type"] == "links":
            yield from _schema_problems("links", panel["embeddableConfig"]["attributes"])
        elif (name := f"{panel['panelIndex']}:{panel['panelRefName']}") in references:
            target = references[name]["type"]
            if target != panel["type"]:
                yield f"the panel {panel['panelIndex']!r} is no {target}"
    if len({panel["panelIndex"] for panel in panels}) < len(panels):
        yield "two panels have the same panelIndex"
    for one, other in combinations(panels, 2):
        if _overlap(one["gridData"], other["gridData"]):
            yield f"the panels {one['panelIndex']!r} and {other['panelIndex']!r} overlap"


def _overlap(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def _accessors(state: Any) -> Iterator[str]:
    """Yield the columns that a Lens visualisation shows."""
    if isinstance(state, list):
        for each in state:
            yield from _accessors(each)
    elif isinstance(state, dict):
        for name, value in state.items():
            if name in {"metricAccessor", "xAccessor", "splitAccessor", "columnId"}:
                yield value
            elif name in {"accessors", "metrics", "primaryGroups"}:
                yield from value
            else:
                yield from _accessors(value)
