"""Fields of an index, and the fields that a query names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

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


# Queries whose keys are fields, and what else stands there.
_BY_FIELD: Final = {"range", "term", "terms", "match", "match_phrase", "geo_bounding_box"}
_OPTIONS: Final = {"ignore_unmapped", "validation_method", "boost", "_name"}


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
        elif key in _BY_FIELD and isinstance(value, dict) and "field" not in value:
            names += [name for name in value if name not in _OPTIONS]
        elif key == "sort":
            names += [name for each in value for name in each if not name.startswith("_")]
        elif key == "_source" and isinstance(value, list):
            names += value
        else:
            names += referenced_fields(value)
    return names
