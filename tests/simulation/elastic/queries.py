"""Queries: which documents of an index match.

A query becomes a function of a document.  Only the kinds that the product sends are known; every
other raises NotImplementedError.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from tests.simulation.elastic.fields import parse_date, parser
from tests.simulation.elastic.indices import SimulatedIndex, StoredDocument
from tests.simulation.elastic.refusals import failed_search

Matches: TypeAlias = Callable[[StoredDocument], bool]

_MOST_TERMS = 65_536
_COMPARED = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Queries:
    """Compiles queries for one index; `now_ms` is the server's clock (milliseconds)."""

    def __init__(self, index: SimulatedIndex, now_ms: Callable[[], int]) -> None:
        self._index = index
        self._now_ms = now_ms

    def kind(self, field: str) -> str | None:
        """Type of a field; None if there is none."""
        return self._index.mapping.kind(field)

    def matching(self, query: Mapping[str, Any]) -> Matches:
        """Compile a query.  Raises Refusal, or NotImplementedError for an unknown kind."""
        ((kind, body),) = query.items()
        compile_kind = getattr(self, f"_{kind}", None)
        if compile_kind is None:
            raise NotImplementedError(f"the query {kind}: {body}")
        matches: Matches = compile_kind(body)
        return matches

    def _match_all(self, _body: Mapping[str, Any]) -> Matches:
        return lambda _document: True

    def _ids(self, body: Mapping[str, Any]) -> Matches:
        ids = set(body["values"])
        return lambda document: document.document_id in ids

    def _exists(self, body: Mapping[str, Any]) -> Matches:
        field = body["field"]
        if self._index.mapping.kind(field) in {"object", "nested"}:
            raise NotImplementedError(f"exists of the object {field!r}")
        return lambda document: field in document.values

    def _term(self, body: Mapping[str, Any]) -> Matches:
        ((field, value),) = body.items()
        value = value["value"] if isinstance(value, Mapping) else value
        return self._one_of(field, [value])

    def _terms(self, body: Mapping[str, Any]) -> Matches:
        ((field, values),) = body.items()
        if len(values) > _MOST_TERMS:
            raise failed_search(
                "query_shard_exception",
                f"failed to create query: The number of terms [{len(values)}] used in the Terms"
                f" Query request has exceeded the allowed maximum of [{_MOST_TERMS}].",
            )
        return self._one_of(field, values)

    def _one_of(self, field: str, values: Sequence[Any]) -> Matches:
        kind = self._index.mapping.kind(field)
        if kind is None:
            return lambda _document: False
        if kind not in {"keyword", "long", "integer", "byte", "boolean"}:
            raise NotImplementedError(f"a term of {field!r}, which is {kind}")
        wanted = set(values)
        if kind == "keyword":
            parse = parser(self._leaf(field))
            wanted = {parse(each) for each in values}
        return lambda document: not wanted.isdisjoint(document.values.get(field, ()))

    def _leaf(self, field: str) -> Mapping[str, Any]:
        mapping: Any = self._index.mapping.body
        for part in field.split("."):
            mapping = {**mapping.get("fields", {}), **mapping.get("properties", {})}[part]
        return {"type": mapping["type"], "normalizer": mapping.get("normalizer")}

    def _prefix(self, body: Mapping[str, Any]) -> Matches:
        ((field, value),) = body.items()
        start = value["value"] if isinstance(value, Mapping) else value
        if self._index.mapping.kind(field) not in {"keyword", None}:
            raise NotImplementedError(f"a prefix of {field!r}")
        return lambda document: any(
            each.startswith(start) for each in document.values.get(field, ())
        )

    def _range(self, body: Mapping[str, Any]) -> Matches:
        ((field, bounds),) = body.items()
        if bounds.keys() - _COMPARED.keys():
            raise NotImplementedError(f"the range {body}")
        if field == "_seq_no":
            compared = [(_COMPARED[name], value) for name, value in bounds.items()]
            return lambda document: all(
                compare(document.seq_no, value) for compare, value in compared
            )
        kind = self._index.mapping.kind(field)
        if kind not in {"date", "long", "integer", "float", None}:
            raise NotImplementedError(f"a range of {field!r}, which is {kind}")
        limits = [
            (_COMPARED[name], self._moment(value) if kind == "date" else value)
            for name, value in bounds.items()
        ]
        return lambda document: any(
            all(compare(each, limit) for compare, limit in limits)
            for each in document.values.get(field, ())
        )

    def _moment(self, value: Any) -> int:
        """Milliseconds of a bound, such as now-24h."""
        if isinstance(value, str) and value.startswith("now"):
            found = re.fullmatch(r"now(?:-(\d+)([smhd]))?", value)
            if found is None:
                raise NotImplementedError(f"the date {value!r}")
            return self._now_ms() - int(found[1] or 0) * _UNITS[found[2] or "s"]
        return parse_date(value)

    def _nested(self, body: Mapping[str, Any]) -> Matches:
        if body["query"] != {"match_all": {}}:
            raise NotImplementedError(f"the nested query {body}")
        path = body["path"]
        if self._index.mapping.kind(path) != "nested":
            raise failed_search(
                "query_shard_exception",
                f"failed to create query: [nested] failed to find nested object under path"
                f" [{path}]",
            )
        return lambda document: path in document.values

    def _bool(self, body: Mapping[str, Any]) -> Matches:
        if unknown := body.keys() - {"filter", "must", "must_not", "should"}:
            raise NotImplementedError(f"bool with {sorted(unknown)}")
        required, excluded, either = (
            [self.matching(each) for name in names for each in _clauses(body.get(name, ()))]
            for names in (("filter", "must"), ("must_not",), ("should",))
        )
        # Without a required clause one of `should` has to match.
        needs_one = bool(either) and not required

        def matches(document: StoredDocument) -> bool:
            return (
                all(each(document) for each in required)
                and not any(each(document) for each in excluded)
                and (not needs_one or any(each(document) for each in either))
            )

        return matches

    def _function_score(self, body: Mapping[str, Any]) -> Matches:
        if body.keys() != {"query", "random_score"}:
            raise NotImplementedError(f"function_score {body}")
        return self.matching(body["query"])


def _clauses(value: Any) -> Sequence[Mapping[str, Any]]:
    return [value] if isinstance(value, Mapping) else value
