"""Indices as earlier schemas stored them: 1 and 2 had everything that changes in `_meta`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.store import Store


def as_schema(store: Store, version: int, *, builder: Mapping[str, Any] | None = None) -> None:
    """Make this generation one of schema 1 to 3, with its present roots and learned entries."""
    info = store.info()
    meta = info.meta
    if version == 3:
        put_meta(store, {**meta.to_body(), "schema_version": version})
        return
    body = {
        "created_by": "es_imgsearch",
        "schema_version": version,
        "encoder": meta.seal.to_body(),
        "profile": meta.profile,
        "similarity": meta.similarity,
        "tuning": meta.tuning.to_body(),
        "roots": {name: dict(root) for name, root in meta.roots.items()},
        "relevance": {kind: asdict(curve) for kind, curve in meta.relevance.items()} or None,
        "reduction": meta.reduction and meta.reduction.to_body(),
        "regions": meta.grid and meta.grid.to_body(),
        "codes": meta.codes and meta.codes.to_body(),
        "carried": meta.copy_checkpoint and meta.copy_checkpoint.to_body(),
        "builder": builder,
    }
    put_meta(store, {name: value for name, value in body.items() if value is not None})
    for name in meta.document_ids:
        # Of a generation that is built or kept, the roots are those of the serving one.
        if store.generation is None or name != meta.roots_document:
            store.state.delete(name)


def put_meta(store: Store, body: Mapping[str, Any]) -> None:
    path = f"/{store.generations.sealed().name}/_mapping"
    store.connection.request("PUT", path, {"_meta": dict(body)})


def remove_state(store: Store) -> None:
    """Delete the state index, which schema 1 did not have."""
    alias = Companion.STATE.alias(store.index)
    store.connection.request("DELETE", f"/{alias}-000001")
    store.connection.request("DELETE", f"/_index_template/{alias}")
