"""Aggregations: terms, the largest value, a filter and percentiles."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tests.simulation.elastic.fields import format_date
from tests.simulation.elastic.indices import StoredDocument
from tests.simulation.elastic.queries import Queries


def aggregated(
    documents: Sequence[StoredDocument], asked: Mapping[str, Any], queries: Queries
) -> dict[str, Any]:
    """Answer the aggregations of a search over these documents."""
    return {name: _one(documents, body, queries) for name, body in asked.items()}


def _one(
    documents: Sequence[StoredDocument], body: Mapping[str, Any], queries: Queries
) -> dict[str, Any]:
    inner = body.get("aggs", {})
    ((kind, options),) = ((name, value) for name, value in body.items() if name != "aggs")
    if kind == "terms":
        return _terms(documents, options, inner, queries)
    if kind == "filter":
        matches = queries.matching(options)
        kept = [each for each in documents if matches(each)]
        return {"doc_count": len(kept), **aggregated(kept, inner, queries)}
    if inner:
        raise NotImplementedError(f"aggregations in {kind}")
    values = sorted(value for each in documents for value in each.values.get(options["field"], ()))
    if kind == "max":
        largest: dict[str, Any] = {"value": float(values[-1]) if values else None}
        if values and queries.kind(options["field"]) == "date":
            largest["value_as_string"] = format_date(values[-1])
        return largest
    if kind == "percentiles":
        return {
            "values": {f"{each:.1f}": _percentile(values, each) for each in options["percents"]}
        }
    raise NotImplementedError(f"the aggregation {kind}")


def _terms(
    documents: Sequence[StoredDocument],
    options: Mapping[str, Any],
    inner: Mapping[str, Any],
    queries: Queries,
) -> dict[str, Any]:
    if options.keys() - {"field", "size"}:
        raise NotImplementedError(f"the aggregation terms {options}")
    field = options["field"]
    counts = Counter(value for each in documents for value in set(each.values.get(field, ())))
    buckets = []
    for key, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        within = [each for each in documents if key in each.values.get(field, ())]
        buckets.append({"key": key, "doc_count": count, **aggregated(within, inner, queries)})
    size = options.get("size", 10)
    return {
        "doc_count_error_upper_bound": 0,
        "sum_other_doc_count": sum(each["doc_count"] for each in buckets[size:]),
        "buckets": buckets[:size],
    }


def _percentile(values: Sequence[float], percent: float) -> float | None:
    """Near the value that the server's estimate (a t-digest) gives."""
    if not values:
        return None
    return float(values[min(len(values) - 1, math.floor(len(values) * percent / 100))])
