"""What Kibana would send for a panel: data view, KQL, filters, time range, Lens, Vega."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

Body = dict[str, Any]

_COMPARISONS = {">=": "gte", "<=": "lte", ">": "gt", "<": "lt"}
_KQL = re.compile(r"([\w.]+)\s*(:|>=|<=|>|<)\s*(.+)")


class SavedObjects:
    """The objects of one file, and the requests they lead to."""

    def __init__(self, objects: list[Body]) -> None:
        self._by_key = {(each["type"], each["id"]): each for each in objects}

    def of(self, kind: str) -> list[Body]:
        return [each for (of_kind, _), each in self._by_key.items() if of_kind == kind]

    def view_of(self, each: Body) -> Body:
        (found,) = {
            reference["id"]
            for reference in each["references"]
            if reference["type"] == "index-pattern"
        }
        return self._by_key["index-pattern", found]["attributes"]

    def view(self, title: str) -> Body:
        (found,) = [
            each for each in self.of("index-pattern") if each["attributes"]["title"] == title
        ]
        return found["attributes"]

    def controls(self, dashboard: Body) -> set[str]:
        """Fields that a dashboard's controls choose values of."""
        controls = json.loads(dashboard["attributes"]["controlGroupInput"]["panelsJSON"])
        fields = [each["explicitInput"].get("fieldName") for each in controls.values()]
        return {each for each in fields if each is not None}

    def panels(self, dashboard: Body) -> Iterator[Body]:
        ids = {each["name"]: each for each in dashboard["references"]}
        for panel in json.loads(dashboard["attributes"]["panelsJSON"]):
            if "panelRefName" in panel:
                target = ids[f"{panel['panelIndex']}:{panel['panelRefName']}"]
                yield self._by_key[target["type"], target["id"]]


def kql(query: str) -> list[Body]:
    """The clauses of `field: value`, `field: *` and `field >= number`, which sources use."""
    if not query:
        return []
    match = _KQL.fullmatch(query)
    assert match is not None, f"a query that this translation does not know: {query}"
    field, operator, value = match.groups()
    if operator in _COMPARISONS:
        return [{"range": {field: {_COMPARISONS[operator]: value}}}]
    return [{"exists": {"field": field}} if value == "*" else {"match": {field: value}}]


def filled_bool(
    view: Mapping[str, Any],
    *,
    query: Mapping[str, Any] | None = None,
    pills: tuple[Body, ...] = (),
    chosen: Mapping[str, Any] | None = None,
    since: str = "now-50y",
    until: str = "now+1d",
) -> Body:
    """The `bool` of a dashboard: its query, its pills, what its controls chose, its time range."""
    must, filters = [], [each["query"] for each in pills]
    if query is not None:
        if query["language"] == "lucene":
            must.append(query["query"])
        else:
            filters += kql(query["query"])
    for field, value in (chosen or {}).items():
        filters.append({"match_phrase": {field: value}})
    if view["timeFieldName"] is not None:
        time = {"gte": since, "lte": until, "format": "strict_date_optional_time"}
        filters.append({"range": {view["timeFieldName"]: time}})
    return {"bool": {"must": must, "filter": filters, "should": [], "must_not": []}}


def base_request(view: Mapping[str, Any], query: Body) -> Body:
    return {
        "query": query,
        "runtime_mappings": json.loads(view.get("runtimeFieldMap", "{}")),
        "track_total_hits": True,
    }


def session_request(
    each: Body, view: Mapping[str, Any], *, query: Body | None = None, **given: Any
) -> Body:
    """A Discover session: columns as `fields`, the session's own sort and query."""
    attributes = each["attributes"]
    source = json.loads(attributes["kibanaSavedObjectMeta"]["searchSourceJSON"])
    given = {**session_times(each), **given}
    body = base_request(view, query or filled_bool(view, query=source["query"], **given))
    return body | {
        "size": 500,
        "sort": [{name: {"order": order}} for name, order in attributes["sort"]],
        "fields": [{"field": name} for name in attributes["columns"]],
        "_source": {"excludes": _source_filters(view)},
    }


def session_times(each: Body) -> dict[str, str]:
    """What Discover shows of a session at first: its own range, else the last 15 minutes."""
    attributes = each["attributes"]
    times = attributes["timeRange"] if attributes.get("timeRestore") else {"from": "now-15m"}
    return {"since": times["from"], "until": times.get("to", "now")}


def _source_filters(view: Mapping[str, Any]) -> list[str]:
    return [each["value"] for each in json.loads(view.get("sourceFilters", "[]"))]


def lens_layer(each: Body) -> Mapping[str, Any]:
    (layer,) = each["attributes"]["state"]["datasourceStates"]["formBased"]["layers"].values()
    return layer


def time_fields(each: Body, view: Mapping[str, Any]) -> list[str]:
    """The fields that the time range goes by.

    Lens names those of all date histograms that do not ignore it (to_expression.ts); if there are
    none, it is the data view's own (esaggs).
    """
    named = [
        column["sourceField"]
        for column in lens_layer(each)["columns"].values()
        if column["operationType"] == "date_histogram"
        and not column["params"].get("ignoreTimeRange")
    ]
    return named or [view["timeFieldName"]]


def bool_of(query: str) -> Body:
    return {"bool": {"filter": kql(query)}}


def lens_request(
    each: Body,
    view: Mapping[str, Any],
    *,
    query: Body | None = None,
    translate: Callable[[str], Body] = bool_of,
    **given: Any,
) -> Body:
    """A Lens panel: buckets within one another in their order, metrics in the innermost.

    `translate` makes the queries of filtered columns from KQL.
    """
    state, layer = each["attributes"]["state"], lens_layer(each)
    columns = [(name, layer["columns"][name]) for name in layer["columnOrder"]]
    if query is None:
        if layer.get("ignoreGlobalFilters"):
            given = {name: value for name, value in given.items() if name in {"since", "until"}}
        (time,) = time_fields(each, view)
        query = filled_bool({**view, "timeFieldName": time}, query=state["query"], **given)
    body = base_request(view, query)
    metrics = {
        name: _metric(column, translate) for name, column in columns if not column["isBucketed"]
    }
    aggregations = {name: metric for name, metric in metrics.items() if metric is not None}
    for name, column in reversed([each for each in columns if each[1]["isBucketed"]]):
        bucket = _bucket(column, metrics)
        aggregations = {name: bucket | ({"aggs": aggregations} if aggregations else {})}
    return body | {"size": 0, "aggs": aggregations}


# Computed by Lens itself from other columns.
_COMPUTED = {"cumulative_sum", "formula", "math", "interval"}


def _metric(column: Mapping[str, Any], translate: Callable[[str], Body]) -> Body | None:
    if column["operationType"] in _COMPUTED:
        return None
    field = {"field": column["sourceField"]}
    params = column.get("params", {})
    metric = {
        "count": None,
        "average": {"avg": field},
        "sum": {"sum": field},
        "min": {"min": field},
        "max": {"max": field},
        "unique_count": {"cardinality": field},
        "median": {"percentiles": {**field, "percents": [50]}},
        "percentile": {"percentiles": {**field, "percents": [params.get("percentile")]}},
        # With showArrayValues (last_value.tsx, top_hit.ts); top_metrics without.
        "last_value": {
            "top_hits": {
                "size": 1,
                "sort": [{params.get("sortField"): {"order": "desc"}}],
                "docvalue_fields": [field],
                "_source": column["sourceField"],
            }
        },
    }[column["operationType"]]
    if "filter" not in column:
        return metric
    filtered = {"filter": translate(column["filter"]["query"])}
    return filtered if metric is None else {**filtered, "aggs": {"value": metric}}


# Kibana takes an interval of its own that fits the time range.
AUTO_INTERVAL = "30d"
RANGE_INTERVAL = 0.37


def _bucket(column: Mapping[str, Any], metrics: Mapping[str, Body | None]) -> Body:
    field, params = column["sourceField"], column["params"]
    if column["operationType"] == "terms":
        ordered_by = params["orderBy"].get("columnId", "_key")
        metric = metrics.get(ordered_by)
        by_count = ordered_by != "_key" and (metric is None or "filter" in metric)
        order = {"_count" if by_count else ordered_by: params["orderDirection"]}
        return {"terms": {"field": field, "size": params["size"], "order": order}}
    if column["operationType"] == "date_histogram":
        histogram = {"field": field, "min_doc_count": 1}
        interval = params["interval"]
        if interval == "auto":
            return {"date_histogram": {**histogram, "fixed_interval": AUTO_INTERVAL}}
        # Months and years are calendar intervals (parse_es_interval.ts).
        return {"date_histogram": {**histogram, "calendar_interval": interval}}
    return {"histogram": {"field": field, "interval": RANGE_INTERVAL, "min_doc_count": 1}}


def vega_spec(each: Body) -> Body:
    spec: Body = json.loads(json.loads(each["attributes"]["visState"])["params"]["spec"])
    return spec


def vega_requests(
    each: Body, *, query: Body | None = None, view: Mapping[str, Any] | None = None, **given: Any
) -> Iterator[tuple[str, Body]]:
    """Index and body of each query of a Vega panel, with the dashboard's context put in.

    Kibana adds the runtime fields of the data view of this title (search_api.ts).
    """
    for data in vega_spec(each)["data"]:
        url = data.get("url")
        if not isinstance(url, dict):
            continue
        body = orjson.loads(orjson.dumps(url["body"]))
        time = {"gte": given.get("since", "now-50y"), "lte": given.get("until", "now+1d")}
        if url.get("%context%"):
            assert "query" not in body
            body["query"] = query or filled_bool({"timeFieldName": url["%timefield%"]}, **given)
        else:
            context = query or filled_bool({"timeFieldName": None}, **given)
            body["query"] = _expanded(body["query"], context["bool"], time)
        if view is not None:
            body["runtime_mappings"] = json.loads(view.get("runtimeFieldMap", "{}"))
        yield url["index"], body


_CLAUSE = re.compile(r"%dashboard_context-(must|filter|must_not)_clause%")


def _expanded(value: Any, context: Mapping[str, Any], time: Mapping[str, Any]) -> Any:
    """Put the dashboard's clauses and time range in place of Vega's placeholders."""
    if isinstance(value, list):
        found: list[Any] = []
        for each in value:
            match = _CLAUSE.fullmatch(each) if isinstance(each, str) else None
            found += [_expanded(each, context, time)] if match is None else context[match[1]]
        return found
    if isinstance(value, dict):
        if value.get("%timefilter%") is True:
            return dict(time)
        return {name: _expanded(each, context, time) for name, each in value.items()}
    return value


def leaf_buckets(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The innermost buckets of an answer with nested ones."""
    found = []
    for aggregation in answer.values():
        if isinstance(aggregation, dict) and "buckets" in aggregation:
            for bucket in aggregation["buckets"]:
                found += leaf_buckets(bucket) or [bucket]
    return found
