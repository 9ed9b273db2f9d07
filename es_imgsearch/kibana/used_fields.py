"""Fields that queries, sorts and panels use, held against those that an index has.

Without an index to compare with (types None) nothing is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from es_imgsearch.kibana.fields import Types

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
