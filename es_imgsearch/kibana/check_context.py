"""Context of a check: targets of references, types of fields, existing indices."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import orjson

from es_imgsearch.elastic.mapping import load_json
from es_imgsearch.kibana.fields import NUMBERS, FieldTypes
from es_imgsearch.kibana.objects import SavedObject

References = Mapping[str, Mapping[str, str]]

# Types with doc values, by which documents can be grouped and sorted.
VALUES: Final = NUMBERS | frozenset({"keyword", "boolean", "ip", "date"})
DATES: Final = frozenset({"date"})
_HASHES: Final = frozenset({"content_id", "image_id", "sidecar_id", "perceptual_hash"})


@dataclass(frozen=True, slots=True)
class Context:
    """Objects by type and id, field types of each index, existing indices.

    `types` may be empty and `indices` None: then fields and indices are not checked.
    """

    by_key: Mapping[tuple[str, str], SavedObject]
    types: Mapping[str, FieldTypes]
    indices: Collection[str] | None = None

    def target(self, references: References, name: str) -> SavedObject | None:
        """Return the object that a reference leads to; None if it is unknown."""
        found = references.get(name)
        return None if found is None else self.by_key.get((found["type"], found["id"]))

    def types_of(self, view: SavedObject | None) -> FieldTypes | None:
        """Return the types of a data view's fields, runtime ones included, if known."""
        if view is None:
            return None
        attributes = view["attributes"]
        types = self.types.get(attributes["title"])
        if types is None:
            return None
        runtime = orjson.loads(attributes.get("runtimeFieldMap", "{}"))
        return {**types, **{name: each["type"] for name, each in runtime.items()}}

    def types_behind(self, references: References, name: str) -> FieldTypes | None:
        """Return the field types of the data view that a reference leads to."""
        return self.types_of(self.target(references, name))

    def types_in(self, index: str) -> FieldTypes | None:
        """Return the field types of an index; None without its data view."""
        for (kind, _), each in self.by_key.items():
            if kind == "index-pattern" and each["attributes"].get("title") == index:
                return self.types_of(each)
        return None


def is_hash(field: str | None, view: SavedObject | None) -> bool:
    """Tell whether a field shows as a hash and not as an image."""
    text = "{}" if view is None else view["attributes"].get("fieldFormatMap", "{}")
    shown_as = orjson.loads(text).get(field, {}).get("params", {}).get("type")
    return field in _HASHES and shown_as != "img"


def references_of(each: SavedObject) -> References:
    return {one["name"]: one for one in each["references"]}


@cache
def _validator(name: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(load_json("kibana", f"schemas/{name}.json"))


def schema_problems(name: str, value: Any) -> Iterator[str]:
    for error in _validator(name).iter_errors(value):
        path = ".".join(map(str, error.absolute_path)) or "it"
        yield f"{path}: {error.message[:300]}"
