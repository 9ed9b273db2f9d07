"""Mapping of an index: which documents it takes, what of them is indexed, how it may change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.simulation.elastic.fields import Parser, parser
from tests.simulation.elastic.refusals import Refusal, illegal_argument, unparsable

_KNOWN = {"dynamic", "_source", "_meta", "properties", "date_detection"}
# Parameters of a field that a later mapping may change.
_UPDATABLE = {"ignore_above", "index_options", "fields", "search_analyzer", "meta", "coerce"}

Values = dict[str, list[Any]]


class Parsed(NamedTuple):
    """A document: what is left of it in `_source`, and its indexed values by field."""

    source: dict[str, Any]
    values: Values


class _Field(NamedTuple):
    kind: str
    parse: Parser | None
    # Names and parsers of the multi-fields.
    others: tuple[tuple[str, str, Parser], ...]
    # The fields of an object.
    inner: IndexMapping | None


class IndexMapping:
    """The mapping of one index, or of one of its objects."""

    def __init__(self, body: Mapping[str, Any], path: str = "") -> None:
        if unknown := body.keys() - _KNOWN - {"type"}:
            raise NotImplementedError(f"a mapping with {sorted(unknown)}")
        self._path = path
        self.body: dict[str, Any] = {**body, "properties": dict(body.get("properties", {}))}
        self._compile()

    def _compile(self) -> None:
        self._dynamic = str(self.body.get("dynamic", "true"))
        self._excludes = self.body.get("_source", {}).get("excludes", ())
        self._fields = {
            name: self._field(name, mapping) for name, mapping in self.body["properties"].items()
        }

    def _field(self, name: str, mapping: Mapping[str, Any]) -> _Field:
        kind = mapping.get("type", "object")
        if kind in {"object", "nested"}:
            if mapping.get("enabled") is False:
                return _Field(kind, None, (), None)
            body = {"dynamic": self._dynamic, "properties": mapping.get("properties", {})}
            return _Field(kind, None, (), IndexMapping(body, f"{self._path}{name}."))
        others = tuple(
            (f"{self._path}{name}.{other}", each["type"], parser(each))
            for other, each in mapping.get("fields", {}).items()
        )
        return _Field(kind, parser(mapping), others, None)

    def kind(self, field: str) -> str | None:
        """Type of a field by its path; None if there is none."""
        properties, kind = self.body["properties"], None
        for part in field.split("."):
            mapping = properties.get(part)
            if mapping is None:
                return None
            kind = mapping.get("type", "object")
            properties = {**mapping.get("fields", {}), **mapping.get("properties", {})}
        return kind

    def parse(self, document_id: str, source: Mapping[str, Any]) -> Parsed:
        """Check a document as the server does.  Raises Refusal."""
        values: Values = {}
        self._parse_object(document_id, source, values)
        if not self._excludes:
            return Parsed(dict(source), values)
        return Parsed(_without(source, self._excludes), values)

    def _parse_object(self, document_id: str, source: Mapping[str, Any], values: Values) -> None:
        fields = self._fields
        for name, value in source.items():
            field = fields.get(name)
            if field is None:
                self._refuse_unmapped(name)
            elif value is None:
                continue
            elif field.parse is not None:
                self._index(document_id, self._path + name, field, value, values)
            elif field.inner is not None:
                self._parse_inner(document_id, self._path + name, field, value, values)

    def _refuse_unmapped(self, name: str) -> None:
        if not name.strip() or "." in name:
            raise NotImplementedError(f"a field named {name!r}")
        if self._dynamic == "strict":
            raise Refusal(
                400,
                "strict_dynamic_mapping_exception",
                f"[1:1] mapping set to strict, dynamic introduction of [{name}] within"
                f" [{self._path[:-1] or '_doc'}] is not allowed",
            )
        if self._dynamic != "false":
            raise NotImplementedError(f"a dynamic mapping for {name!r}")

    def _index(
        self, document_id: str, path: str, field: _Field, value: Any, values: Values
    ) -> None:
        try:
            if field.kind == "dense_vector":
                if path in values:
                    raise ValueError("a document holds one vector of a field")
                values[path] = [field.parse(value)]  # type: ignore[misc]
                return
            for each in _flat(value):
                _add(values, path, field.parse(each))  # type: ignore[misc]
                for other, _, parse in field.others:
                    _add(values, other, parse(each))
        except (ValueError, OverflowError) as error:
            raise unparsable(path, field.kind, document_id, str(error)) from None

    def _parse_inner(
        self, document_id: str, path: str, field: _Field, value: Any, values: Values
    ) -> None:
        assert field.inner is not None
        for offset, each in enumerate(_flat(value)):
            if not isinstance(each, dict):
                raise unparsable(path, field.kind, document_id, "not an object")
            if field.kind == "nested":
                inner: Values = {}
                field.inner._parse_object(document_id, each, inner)
                values.setdefault(path, []).append((offset, each, inner))
            else:
                field.inner._parse_object(document_id, each, values)

    def update(self, body: Mapping[str, Any]) -> None:
        """Merge a mapping into this one, as `PUT _mapping`.  Raises Refusal for a conflict."""
        if unknown := body.keys() - _KNOWN:
            raise NotImplementedError(f"a change of {sorted(unknown)}")
        merged = _merged_properties(self.body["properties"], body.get("properties", {}), "")
        self.body = {**self.body, **body, "properties": merged}
        self._compile()


def _add(values: Values, path: str, value: Any) -> None:
    if value is not None:
        values.setdefault(path, []).append(value)


def _flat(value: Any) -> Iterator[Any]:
    """Values of a field, which may be an array of arrays."""
    if isinstance(value, list):
        for each in value:
            yield from _flat(each)
    elif value is not None:
        yield value


def _without(source: Mapping[str, Any], excludes: tuple[str, ...]) -> dict[str, Any]:
    kept = {name: value for name, value in source.items() if name not in excludes}
    for outer, _, inner in (each.partition(".") for each in excludes if "." in each):
        if "." in inner or "*" in inner:
            raise NotImplementedError(f"_source.excludes {excludes}")
        objects = kept.get(outer)
        if isinstance(objects, list):
            kept[outer] = [_without(each, (inner,)) for each in objects]
        elif isinstance(objects, dict):
            kept[outer] = _without(objects, (inner,))
    return kept


def _merged_properties(
    before: Mapping[str, Any], added: Mapping[str, Any], path: str
) -> dict[str, Any]:
    merged = dict(before)
    for name, mapping in added.items():
        merged[name] = (
            _merged_field(merged[name], mapping, path + name) if name in merged else dict(mapping)
        )
        if name not in before:
            IndexMapping({"properties": {name: mapping}})
    return merged


def _merged_field(before: Mapping[str, Any], now: Mapping[str, Any], path: str) -> dict[str, Any]:
    kind, new_kind = before.get("type", "object"), now.get("type", "object")
    if kind != new_kind:
        raise illegal_argument(
            f"mapper [{path}] cannot be changed from type [{kind}] to [{new_kind}]"
        )
    merged = {**before, **now}
    for part in ("fields", "properties"):
        if part in before or part in now:
            merged[part] = _merged_properties(before.get(part, {}), now.get(part, {}), f"{path}.")
    if kind == "dense_vector" and _type_of(before) == "hnsw" and _type_of(now) == "flat":
        raise illegal_argument(
            f"Mapper for [{path}] conflicts with existing mapper:\n\tCannot update parameter"
            f" [index_options] from [{before['index_options']}] to [{now['index_options']}]"
        )
    for name in (before.keys() | now.keys()) - _UPDATABLE - {"properties", "type"}:
        if before.get(name) != now.get(name) and kind not in {"object", "nested"}:
            _refuse_change(path, kind, name, before, now)
    return merged


def _type_of(mapping: Mapping[str, Any]) -> str | None:
    """Return how vectors of a field are indexed; None for the server's default."""
    found: str | None = mapping.get("index_options", {}).get("type")
    return found


def _refuse_change(
    path: str, kind: str, name: str, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    defaults = {"index": True, "element_type": "float", "norms": True}
    old, new = (each.get(name, defaults.get(name)) for each in (before, now))
    if kind == "dense_vector" and name == "similarity":
        usual = "l2_norm" if before.get("element_type") == "bit" else "cosine"
        old, new = (each or usual for each in (old, new))
    if old != new:
        raise illegal_argument(
            f"Mapper for [{path}] conflicts with existing mapper:\n\tCannot update parameter"
            f" [{name}] from [{old}] to [{new}]"
        )
