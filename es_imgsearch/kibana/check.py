"""Whether Kibana would take saved objects, and could open what it took.

Kibana's import looks at versions, at attributes, and at references to data views and sessions
only.  A dashboard that refers to a panel that is not there is imported and then does not open; so
everything is looked at here: shapes (`kibana/schemas`), versions, references both ways, the grid,
JSON within JSON, and every field with the type it needs.
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
    Object,
    Types,
    control_reference,
    fields_in,
    query_problems,
    reference_names,
    search_source,
    unfit,
    unknown,
)

# Types with values that stand in columns of their own, by which documents are grouped and sorted.
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
    """One thing that is wrong with one object, named as type/id."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def parse_ndjson(content: bytes) -> list[Object]:
    """The objects of a file, its summary left out.  Raises FileInvalid."""
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


def check(objects: Sequence[Object], types: Mapping[str, Types] | None = None) -> list[Problem]:
    """What is wrong, nothing if all is well.

    `types` are the fields' types of each index by its alias; without them fields are not looked at.
    """
    return list(_Checker(objects, types or {}).problems())


class _Checker:
    def __init__(self, objects: Sequence[Object], types: Mapping[str, Types]) -> None:
        self._objects = objects
        self._by_key = {(each["type"], each["id"]): each for each in objects}
        self._types = types

    def problems(self) -> Iterator[Problem]:
        for (kind, identifier), count in Counter(
            (each["type"], each["id"]) for each in self._objects
        ).items():
            if count > 1:
                yield Problem(f"{kind}/{identifier}", f"it is there {count} times")
        for each in self._objects:
            where = f"{each['type']}/{each['id']}"
            try:
                for what in self._of(each):
                    yield Problem(where, what)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                # What its schema has told of already, or JSON that does not parse.
                yield Problem(where, f"it cannot be read further ({type(error).__name__}: {error})")

    def _of(self, each: Object) -> Iterator[str]:
        kind = each["type"]
        if kind not in TYPE_VERSIONS:
            yield f"the type {kind!r} is none of {', '.join(TYPE_VERSIONS)}"
            return
        yield from _version_problems(each)
        yield from _schema_problems(kind, each["attributes"])
        references = {name["name"]: name for name in each["references"]}
        if len(references) < len(each["references"]):
            yield "two references have the same name"
        wanted = set(reference_names(each))
        for name in sorted(wanted - references.keys()):
            yield f"it uses the reference {name!r}, which it does not have"
        for name in sorted(references.keys() - wanted):
            yield f"it has the reference {name!r}, which it does not use"
        for name, target in references.items():
            if (target["type"], target["id"]) not in self._by_key:
                yield f"the reference {name!r} leads to {target['type']}/{target['id']}, not there"
        looks = {
            "index-pattern": self._data_view,
            "search": self._session,
            "lens": self._lens,
            "visualization": self._vega,
            "dashboard": self._dashboard,
        }
        yield from looks[kind](each, references)

    # -- one kind each ---------------------------------------------------------------------

    def _data_view(self, each: Object, _: Mapping[str, Any]) -> Iterator[str]:
        attributes = each["attributes"]
        types = self._types_of(each)
        for name in ("fieldFormatMap", "fieldAttrs"):
            yield from unknown(orjson.loads(attributes.get(name, "{}")), types)
        if (time := attributes.get("timeFieldName")) is not None:
            yield from unfit(time, types, _DATES, "as the time")

    def _session(self, each: Object, references: Mapping[str, Any]) -> Iterator[str]:
        attributes = each["attributes"]
        types = self._types_behind(references, f"{SEARCH_SOURCE}.index")
        yield from unknown(attributes.get("columns", []), types)
        for name, _ in attributes.get("sort", []):
            if name != "_score":
                yield from unfit(name, types, _VALUES, "to sort by")
        if (name := attributes.get("breakdownField")) is not None:
            yield from unfit(name, types, frozenset({"keyword"}), "to break down by")
        yield from query_problems(search_source(each)["query"], types)

    def _lens(self, each: Object, references: Mapping[str, Any]) -> Iterator[str]:
        state = each["attributes"]["state"]
        for name, layer in state["datasourceStates"]["formBased"]["layers"].items():
            types = self._types_behind(references, f"indexpattern-datasource-layer-{name}")
            columns = layer["columns"]
            if set(layer["columnOrder"]) != columns.keys():
                yield "columnOrder names other columns than there are"
            is_bucket = [columns[column]["isBucketed"] for column in layer["columnOrder"]]
            if is_bucket != sorted(is_bucket, reverse=True):
                yield "a metric stands before a bucket"
            for column in columns.values():
                field, operation = column["sourceField"], column["operationType"]
                if field != RECORDS:
                    yield from unfit(field, types, _FITTING[operation], f"for {operation}")
                ordered_by = column.get("params", {}).get("orderBy", {}).get("columnId")
                if ordered_by is not None and ordered_by not in columns:
                    yield f"a column is ordered by {ordered_by!r}, which is not there"
            yield from query_problems(state["query"], types)
        shown = set(_accessors(state["visualization"]))
        there = {
            column
            for layer in state["datasourceStates"]["formBased"]["layers"].values()
            for column in layer["columns"]
        }
        for column in sorted(shown ^ there):
            yield f"the column {column!r} is shown and not there, or there and not shown"

    def _vega(self, each: Object, _: Mapping[str, Any]) -> Iterator[str]:
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
                yield "a query has %context% and a query of its own, of which Kibana allows one"
            types = self._types.get(url["index"])
            if self._types and types is None:
                yield f"it asks the index {url['index']!r}, which no data view has"
            if (time := url.get("%timefield%")) is not None:
                yield from unfit(time, types, _DATES, "as the time")
            yield from unknown(fields_in(url["body"]), types)

    def _dashboard(self, each: Object, references: Mapping[str, Any]) -> Iterator[str]:
        attributes = each["attributes"]
        yield from _grid_problems(orjson.loads(attributes["panelsJSON"]), references)
        controls = orjson.loads(attributes["controlGroupInput"]["panelsJSON"])
        yield from _schema_problems("controls", controls)
        for name, control in controls.items():
            if control["explicitInput"]["id"] != name:
                yield f"the control {name!r} has another id within"
            if (reference := control_reference(name, control)) is not None:
                types = self._types_behind(references, reference)
                field = control["explicitInput"]["fieldName"]
                yield from unfit(field, types, _VALUES, "for a control")

    # -- fields ----------------------------------------------------------------------------

    def _types_of(self, view: Object) -> Types | None:
        attributes = view["attributes"]
        types = self._types.get(attributes["title"])
        if types is None:
            return None
        runtime = orjson.loads(attributes.get("runtimeFieldMap", "{}"))
        return {**types, **{name: each["type"] for name, each in runtime.items()}}

    def _types_behind(self, references: Mapping[str, Any], name: str) -> Types | None:
        """Of the data view that a reference leads to; None where that is not known."""
        target = references.get(name)
        view = None if target is None else self._by_key.get((target["type"], target["id"]))
        return None if view is None else self._types_of(view)


# -- what does not need the other objects --------------------------------------------------


def _version_problems(each: Object) -> Iterator[str]:
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
        place = ".".join(map(str, error.absolute_path)) or "it"
        yield f"{place}: {error.message[:300]}"


def _grid_problems(
    panels: Sequence[Mapping[str, Any]], references: Mapping[str, Any]
) -> Iterator[str]:
    yield from _schema_problems("panels", panels)
    for panel in panels:
        grid = panel["gridData"]
        if panel["panelIndex"] != grid["i"]:
            yield f"the panel {panel['panelIndex']!r} stands on the grid as {grid['i']!r}"
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
    """The columns that a Lens visualisation shows."""
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
