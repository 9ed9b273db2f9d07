"""What Kibana would send for a panel: data view, KQL, filters, time range, Lens, Vega."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
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
    time = {"gte": since, "lte": until, "format": "strict_date_optional_time"}
    filters.append({"range": {view["timeFieldName"]: time}})
    return {"bool": {"must": must, "filter": filters, "should": [], "must_not": []}}


def base_request(view: Mapping[str, Any], query: Body) -> Body:
    return {
        "query": query,
        "runtime_mappings": json.loads(view.get("runtimeFieldMap", "{}")),
        "track_total_hits": True,
    }


def session_request(each: Body, view: Mapping[str, Any], **given: Any) -> Body:
    """A Discover session: columns as `fields`, the session's own sort and query."""
    attributes = each["attributes"]
    source = json.loads(attributes["kibanaSavedObjectMeta"]["searchSourceJSON"])
    times = attributes.get("timeRange", {})
    given = {"since": times.get("from", "now-50y"), **given}
    body = base_request(view, filled_bool(view, query=source["query"], **given))
    return body | {
        "size": 500,
        "sort": [{name: {"order": order}} for name, order in attributes["sort"]],
        "fields": [{"field": name} for name in attributes["columns"]],
        "_source": {"excludes": _source_filters(view)},
    }


def _source_filters(view: Mapping[str, Any]) -> list[str]:
    return [each["value"] for each in json.loads(view.get("sourceFilters", "[]"))]


def lens_request(each: Body, view: Mapping[str, Any], **given: Any) -> Body:
    """A Lens panel: buckets within one another in their order, metrics in the innermost."""
    state = each["attributes"]["state"]
    (layer,) = state["datasourceStates"]["formBased"]["layers"].values()
    columns = [(name, layer["columns"][name]) for name in layer["columnOrder"]]
    body = base_request(view, filled_bool(view, query=state["query"], **given))
    metrics = {name: _metric(column) for name, column in columns if not column["isBucketed"]}
    aggregations = {name: metric for name, metric in metrics.items() if metric is not None}
    for name, column in reversed([each for each in columns if each[1]["isBucketed"]]):
        bucket = _bucket(column, metrics)
        aggregations = {name: bucket | ({"aggs": aggregations} if aggregations else {})}
    return body | {"size": 0, "aggs": aggregations}


def _metric(column: Mapping[str, Any]) -> Body | None:
    field = {"field": column["sourceField"]}
    metric = {
        "count": None,
        "average": {"avg": field},
        "sum": {"sum": field},
        "min": {"min": field},
        "max": {"max": field},
        "unique_count": {"cardinality": field},
        "median": {"percentiles": {**field, "percents": [50]}},
        "percentile": {"percentiles": {**field, "percents": [column["params"].get("percentile")]}},
    }[column["operationType"]]
    if "filter" not in column:
        return metric
    clauses = kql(column["filter"]["query"])
    filtered = {"filter": {"bool": {"filter": clauses}}}
    return filtered if metric is None else {**filtered, "aggs": {"value": metric}}


def _bucket(column: Mapping[str, Any], metrics: Mapping[str, Body | None]) -> Body:
    field, params = column["sourceField"], column["params"]
    if column["operationType"] == "terms":
        ordered_by = params["orderBy"]["columnId"]
        metric = metrics[ordered_by]
        by_count = metric is None or "filter" in metric
        order = {"_count" if by_count else ordered_by: params["orderDirection"]}
        return {"terms": {"field": field, "size": params["size"], "order": order}}
    if column["operationType"] == "date_histogram":
        # Kibana takes an interval of its own that fits the time range.
        histogram = {"field": field, "fixed_interval": "30d", "min_doc_count": 1}
        return {"date_histogram": histogram}
    return {"histogram": {"field": field, "interval": 0.1, "min_doc_count": 1}}


def vega_requests(each: Body, **given: Any) -> Iterator[tuple[str, Body]]:
    """Index and body of each query of a Vega panel, with the dashboard's context put in."""
    spec = json.loads(json.loads(each["attributes"]["visState"])["params"]["spec"])
    for data in spec["data"]:
        url = data.get("url")
        if not isinstance(url, dict):
            continue
        body = orjson.loads(orjson.dumps(url["body"]))
        if url.get("%context%"):
            assert "query" not in body
            body["query"] = filled_bool({"timeFieldName": url["%timefield%"]}, **given)
        yield url["index"], body


def leaf_buckets(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The innermost buckets of an answer with nested ones."""
    found = []
    for aggregation in answer.values():
        if isinstance(aggregation, dict) and "buckets" in aggregation:
            for bucket in aggregation["buckets"]:
                found += leaf_buckets(bucket) or [bucket]
    return found
