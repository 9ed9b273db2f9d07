"""Requests on documents by their id: get, mget, put, delete, bulk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import orjson

from tests.simulation.elastic.indices import SimulatedIndex, StoredDocument
from tests.simulation.elastic.names import Names
from tests.simulation.elastic.refusals import Refusal, illegal_argument, no_such_index

Answer = tuple[int, dict[str, Any]]

_SHARDS = {"total": 1, "successful": 1, "failed": 0}
_ACTIONS = {"index", "create", "delete"}
# Of one shard, `routing` is without effect.
_ACTION_OPTIONS = {
    "_index", "_id", "if_seq_no", "if_primary_term", "require_alias", "routing",
}  # fmt: skip


class Writes:
    """Requests on documents, of all indices."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def get(self, name: str, document_id: str) -> Answer:
        """Get a document, refreshed or not."""
        index = self._names.one(name)
        index.check_open()
        found = _found(index, index.documents.get(document_id), document_id)
        return (200 if found["found"] else 404), found

    def mget(self, name: str, ids: Sequence[str], fields: Sequence[str] | None) -> Answer:
        """Get several documents, with these fields of `_source`."""
        if not ids:
            refusal = Refusal(
                400,
                "action_request_validation_exception",
                "Validation Failed: 1: no documents to get;",
            )
            raise refusal
        try:
            index = self._names.one(name)
            index.check_open()
        except Refusal as refusal:
            return 200, {
                "docs": [{"_index": name, "_id": each, "error": refusal.nested} for each in ids]
            }
        docs = []
        for each in ids:
            found = _found(index, index.documents.get(each), each)
            if fields is not None and "_source" in found:
                found["_source"] = picked(found["_source"], fields)
            docs.append(found)
        return 200, {"docs": docs}

    def put(self, name: str, document_id: str, source: Any, params: Mapping[str, str]) -> Answer:
        """Write one document."""
        index = self._names.to_write(name, require_alias=params.get("require_alias") == "true")
        stored, is_new = index.write(
            document_id,
            source,
            must_be_new=params.get("op_type") == "create",
            if_seq_no=_condition(params),
        )
        _refresh_if_asked([index], params)
        return (201 if is_new else 200), _written(index, stored, is_new)

    def delete(self, name: str, document_id: str, params: Mapping[str, str]) -> Answer:
        """Delete one document."""
        index = self._names.to_write(name)
        answer = _deleted(index, document_id, _condition(params))
        _refresh_if_asked([index], params)
        return (200 if answer["result"] == "deleted" else 404), answer

    def bulk(
        self,
        body: bytes,
        params: Mapping[str, str],
        *,
        ends_after: int | None = None,
        failing: Mapping[int, Refusal] | None = None,
    ) -> Answer:
        """Work off the actions of a bulk.

        It stops before action number `ends_after`; `failing` are answered by number, not applied.
        """
        items: list[dict[str, Any]] = []
        touched: list[SimulatedIndex] = []
        require_alias = params.get("require_alias") == "true"
        for number, (action, meta, source) in enumerate(_actions(body)):
            if number == ends_after:
                break
            index: SimulatedIndex | None = None
            try:
                target = self._target(action, meta, require_alias)
                target.check_writable()
                index = target
                if failing and number in failing:
                    raise failing[number]
                item = _applied(index, action, meta, source)
                touched.append(index)
            except Refusal as refusal:
                item = {
                    "_index": meta["_index"] if index is None else index.name,
                    "_id": meta["_id"],
                    "status": refusal.status,
                    "error": refusal.error,
                }
            items.append({action: item})
        _refresh_if_asked(touched, params)
        errors = any("error" in item for each in items for item in each.values())
        return 200, {"errors": errors, "took": 0, "items": items}

    def _target(self, action: str, meta: Mapping[str, Any], require_alias: bool) -> SimulatedIndex:
        if action == "delete":
            # A deletion makes no index, so it needs no alias either.
            require_alias = False
        require_alias = meta.get("require_alias", require_alias)
        try:
            return self._names.to_write(meta["_index"], require_alias=require_alias)
        except Refusal as refusal:
            if refusal.status != 404 or require_alias:
                raise
            if action != "delete":
                raise NotImplementedError(f"an index made by a write: {meta}") from None
            raise no_such_index(meta["_index"], resource=False) from None


def _applied(
    index: SimulatedIndex, action: str, meta: Mapping[str, Any], source: Any
) -> dict[str, Any]:
    if action == "delete":
        answer = _deleted(index, meta["_id"], _condition(meta))
        return {**answer, "status": 200 if answer["result"] == "deleted" else 404}
    stored, is_new = index.write(
        meta["_id"], source, must_be_new=action == "create", if_seq_no=_condition(meta)
    )
    return {**_written(index, stored, is_new), "status": 201 if is_new else 200}


def picked(source: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    """Reduce a `_source` to these fields, which may be patterns."""
    if any("." in each for each in names):
        raise NotImplementedError(f"the parts of fields {names}")
    if "*" in names:
        return source
    return {key: source[key] for key in source if any(fnmatchcase(key, each) for each in names)}


def _actions(body: bytes) -> Iterator[tuple[str, dict[str, Any], Any]]:
    if not body.endswith(b"\n"):
        raise illegal_argument("The bulk request must be terminated by a newline [\\n]")
    lines = iter(body.split(b"\n"))
    for line in lines:
        if not line.strip():
            continue
        ((action, meta),) = orjson.loads(line).items()
        if action not in _ACTIONS or meta.keys() - _ACTION_OPTIONS or "_id" not in meta:
            raise NotImplementedError(f"the bulk action {line!r}")
        yield action, meta, None if action == "delete" else orjson.loads(next(lines))


def _condition(params: Mapping[str, Any]) -> tuple[int, int] | None:
    if "if_seq_no" not in params and "if_primary_term" not in params:
        return None
    return int(params["if_seq_no"]), int(params["if_primary_term"])


def _refresh_if_asked(indices: Sequence[SimulatedIndex], params: Mapping[str, str]) -> None:
    if params.get("refresh", "false") in {"true", ""}:
        for index in indices:
            index.refresh()


def _found(
    index: SimulatedIndex, stored: StoredDocument | None, document_id: str
) -> dict[str, Any]:
    if stored is None:
        return {"_index": index.name, "_id": document_id, "found": False}
    return {
        "_index": index.name,
        "_id": document_id,
        "_version": stored.version,
        "_seq_no": stored.seq_no,
        "_primary_term": stored.term,
        "found": True,
        "_source": stored.source,
    }


def _written(index: SimulatedIndex, stored: StoredDocument, is_new: bool) -> dict[str, Any]:
    return {
        "_index": index.name,
        "_id": stored.document_id,
        "_version": stored.version,
        "result": "created" if is_new else "updated",
        "_shards": _SHARDS,
        "_seq_no": stored.seq_no,
        "_primary_term": stored.term,
    }


def _deleted(
    index: SimulatedIndex, document_id: str, condition: tuple[int, int] | None
) -> dict[str, Any]:
    version, seq_no, was_there = index.delete(document_id, condition)
    return {
        "_index": index.name,
        "_id": document_id,
        "_version": version,
        "result": "deleted" if was_there else "not_found",
        "_shards": _SHARDS,
        "_seq_no": seq_no,
        "_primary_term": index.term,
    }
