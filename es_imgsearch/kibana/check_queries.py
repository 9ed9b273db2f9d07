"""Check data views, sessions, saved queries and Vega panels, and their queries."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from es_imgsearch.kibana.check_context import DATES, VALUES, Context, References, is_hash
from es_imgsearch.kibana.fields import (
    FieldTypes,
    mismatched_field,
    query_problems,
    referenced_fields,
    unknown_fields,
)
from es_imgsearch.kibana.objects import SEARCH_SOURCE, SavedObject, search_source

# Queries that fail on an index without their field, unless they have ignore_unmapped.
_STRICT: Final = ("geo_bounding_box", "geo_distance", "geo_polygon", "geo_shape", "nested")
_ADDS_FILTER: Final = re.compile(r"kibanaAddFilter\(.*", re.DOTALL)
_IGNORES_UNMAPPED: Final = re.compile(r"ignore_unmapped['\"]?\s*:\s*true")
# The keyword of these ends at 1024 characters: a column of it would lack the longer ones.
_LONG_TEXTS: Final = frozenset({"message", "title"})
_PROMISES_ORDER: Final = re.compile(r"\b(best|nearest) first\b", re.IGNORECASE)


def data_view_problems(each: SavedObject, _: References, context: Context) -> Iterator[str]:
    attributes = each["attributes"]
    types = context.types_of(each)
    for name in ("fieldFormatMap", "fieldAttrs"):
        yield from unknown_fields(orjson.loads(attributes.get(name, "{}")), types)
    if (time := attributes.get("timeFieldName")) is not None:
        yield from mismatched_field(time, types, DATES, "as the time")
    title = attributes["title"]
    if context.indices is not None and "*" not in title and title not in context.indices:
        yield (
            f"there is no index {title!r}, so its panels say “Field {time} was not found”: create"
            " it with `es-imgsearch init` (log_searches = true makes that of searches), or build"
            " the file again, which leaves them out"
        )


def session_problems(each: SavedObject, references: References, context: Context) -> Iterator[str]:
    attributes = each["attributes"]
    view = context.target(references, f"{SEARCH_SOURCE}.index")
    types = context.types_of(view)
    yield from unknown_fields(attributes.get("columns", []), types)
    for name in attributes.get("columns", []):
        is_text = types is not None and types.get(name) == "text" and name not in _LONG_TEXTS
        if is_text and types is not None and f"{name}.keyword" in types:
            yield f"the column {name!r} cannot be sorted by; {name}.keyword can"
        if is_hash(name, view):
            yield f"the column {name!r} shows hashes; thumbnail shows the picture"
    by_score = False
    for name, _ in attributes.get("sort", []):
        by_score = by_score or name == "_score"
        if name != "_score":
            yield from mismatched_field(name, types, VALUES, "to sort by")
    if (name := attributes.get("breakdownField")) is not None:
        yield from mismatched_field(name, types, frozenset({"keyword"}), "to break down by")
    if not (attributes.get("timeRestore") and attributes.get("timeRange")):
        yield ("Discover opens it at the last 15 minutes: give it a timeRange, and timeRestore")
    query = search_source(each)["query"]
    yield from query_problems(query, types)
    has_knn = isinstance(query["query"], dict) and bool(list(knn_queries(query["query"])))
    yield from knn_problems(query["query"])
    if has_knn and not by_score:
        yield "it is not sorted by _score, so the nearest are not first"
    yield from _promise_problems(attributes, has_order=has_knn)
    yield from filter_problems(search_source(each)["filter"])


def saved_query_problems(each: SavedObject, _: References, context: Context) -> Iterator[str]:
    query = each["attributes"]["query"]
    if isinstance(query["query"], dict):
        if query["language"] != "lucene":
            yield "its query is an object, which Kibana takes in the language lucene only"
        yield from knn_problems(query["query"])
        known = {name for types in context.types.values() for name in types}
        if context.types:
            yield from unknown_fields(referenced_fields(query["query"]), dict.fromkeys(known, ""))
    yield from filter_problems(each["attributes"].get("filters") or [])


def tag_problems(each: SavedObject, _: References, __: Context) -> Iterator[str]:
    if not each["attributes"]["name"].strip():
        yield "the tag has no name"


def vega_problems(each: SavedObject, __: References, context: Context) -> Iterator[str]:
    attributes = each["attributes"]
    spec = orjson.loads(orjson.loads(attributes["visState"])["params"]["spec"])
    if not str(spec.get("$schema", "")).startswith("https://vega.github.io/schema/vega"):
        yield "its specification names no Vega schema"
    is_nearest = False
    for data in spec["data"]:
        url = data.get("url")
        if not isinstance(url, dict):
            continue
        yield from _vega_url_problems(url, context)
        body = url["body"]
        if list(knn_queries(body.get("query"))):
            is_nearest = True
            if "_score" not in str(body.get("sort", "_score")):
                yield "it is not sorted by _score, so the nearest are not first"
    yield from _promise_problems(attributes, has_order=is_nearest)
    texts = list(_texts(spec))
    if any(name == "href" for name, _ in texts) and not _opens_tab(spec):
        yield (
            "a click replaces the dashboard by the picture: set"
            " usermeta.embedOptions.loader.target to _blank"
        )
    for _, text in texts:
        for added in _ADDS_FILTER.findall(text):
            strict = [name for name in _STRICT if name in added]
            if strict and not _IGNORES_UNMAPPED.search(added):
                yield (
                    f"a click adds a filter {strict[0]} without ignore_unmapped, which fails in"
                    " panels on an index without that field"
                )


def _vega_url_problems(url: Mapping[str, Any], context: Context) -> Iterator[str]:
    body = url["body"]
    if extra := url.keys() - {"index", "body", "%context%", "%timefield%"}:
        yield f"a query has {', '.join(sorted(extra))}, which Kibana does not pass on"
    if "%context%" in url and "query" in body:
        yield "a query has %context% and a query of its own; Kibana allows only one of them"
    types = context.types_in(url["index"])
    if context.types and url["index"] not in context.types:
        yield f"it queries the index {url['index']!r}, which no data view has"
    if (time := url.get("%timefield%")) is not None:
        yield from mismatched_field(time, types, DATES, "as the time")
    if "knn" in body:
        yield "its knn beside the query gets none of the dashboard's filters: put it into the query"
    yield from unknown_fields(referenced_fields(body), types)
    yield from knn_problems(body.get("query"))


def knn_queries(query: Any, *, scored: bool = True) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """Yield the kNN queries of a query, and whether their scores count."""
    if isinstance(query, list):
        for each in query:
            yield from knn_queries(each, scored=scored)
    elif isinstance(query, dict):
        for name, value in query.items():
            if name == "knn":
                yield value, scored
            else:
                inner = scored and name not in {"filter", "must_not", "constant_score"}
                yield from knn_queries(value, scored=inner)


def knn_problems(query: Any, *, scored: bool = True) -> Iterator[str]:
    """Report kNN queries without order or without a cut-off."""
    for knn, counts in knn_queries(query, scored=scored):
        if not counts:
            yield (
                "its kNN query stands in a filter, where every score is the same: put it into must"
            )
        if "similarity" not in knn:
            yield "its kNN query has no cut-off (similarity), so that it finds what is far as well"


def filter_problems(pills: list[Mapping[str, Any]]) -> Iterator[str]:
    """Report filters that have no order or fail on other indices."""
    for pill in pills:
        query = pill.get("query") or {}
        yield from knn_problems(query, scored=False)
        for name, value in {**query, **pill}.items():
            if name in _STRICT and not value.get("ignore_unmapped"):
                yield (
                    f"its filter {name} has no ignore_unmapped and fails in panels on an index"
                    " without that field"
                )


def needed_fields(query: Mapping[str, Any]) -> list[str]:
    """List the fields without which an index refuses a query."""
    text = query["query"]
    return [knn["field"] for knn, _ in knn_queries(text)] if isinstance(text, dict) else []


def vega_types(each: SavedObject, context: Context) -> list[FieldTypes | None]:
    """List the field types of each index that a Vega panel asks."""
    spec = orjson.loads(orjson.loads(each["attributes"]["visState"])["params"]["spec"])
    urls = [data.get("url") for data in spec["data"]]
    return [context.types_in(url["index"]) for url in urls if isinstance(url, dict)]


def shows_pictures(each: SavedObject) -> bool:
    """Whether a Vega panel draws images from an address."""
    spec = orjson.loads(orjson.loads(each["attributes"]["visState"])["params"]["spec"])
    return any(name == "type" and text == "image" for name, text in _texts(spec))


def _promise_problems(attributes: Mapping[str, Any], *, has_order: bool) -> Iterator[str]:
    if not has_order and _PROMISES_ORDER.search(attributes.get("description", "")):
        yield (
            "its description promises the best first, but a query in KQL gives every picture the"
            " same score"
        )


def _opens_tab(spec: Mapping[str, Any]) -> bool:
    options = spec.get("usermeta", {}).get("embedOptions", {})
    return bool(options.get("loader", {}).get("target") == "_blank")


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text of a specification, with the name of what holds it."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, name)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key == "href":
                yield key, ""
            yield from _texts(each, key)
