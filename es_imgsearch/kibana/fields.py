"""Which fields a data view has, and of what type: those of a mapping, and its runtime fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

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
