"""Upgrade an index of schema 1.

Shared entries move from `_meta` to state documents.  The first writer of this version does it;
earlier versions refuse the index from then on.  Readers convert the old entries on the fly, see
`legacy_documents`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.leases import LEASE_SECONDS
from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.meta import SCHEMA_VERSION, Meta
from es_imgsearch.elastic.state import Document, comparison_id, daemon_id, pause_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import AlreadyRunning, StoreDenied

logger = logging.getLogger(__name__)

_MOVED = {"deletions_paused", "deletions_allowed", "watched_by", "last_reconcile"}
# Schema 1 considered a reindex alive for so long after its last sign of life.
_BUILDER_SECONDS = 180.0


def upgrade(store: Store) -> None:
    """Upgrade an index of schema 1; one of the present schema stays unchanged.

    Raises AlreadyRunning while a reindex of an earlier version runs, StoreDenied if the index of
    state documents is missing and may not be created.
    """
    info = store.info()
    _map_ctime(store, info)
    serving = info.meta
    if serving.schema_version >= SCHEMA_VERSION:
        return
    roles = store.generations.roles()
    others = [store.at(name) for name in (roles.next, roles.before) if name is not None]
    for generation in others:
        _check_not_built(legacy_builder(generation.info().meta), store.index)
    try:
        store.generations.make_state()
    except StoreDenied as error:
        raise StoreDenied(
            f"Index {store.index!r} was made by an earlier version and lacks"
            f" {Companion.STATE.alias(store.index)!r}: run `es-imgsearch init --index"
            f" {store.index}` once with a key that may make indices. {error}"
        ) from error
    state = store.state
    for name, document in legacy_documents(serving).items():
        # An existing one was written by another process that upgrades.
        state.create(name, document)
    # The serving generation last: once it is upgraded, everything is.
    for generation in (*others, store):
        generation.generations.update_meta(_upgraded)
    logger.warning(
        "Index %r is of schema %d now: earlier versions refuse it.", store.index, SCHEMA_VERSION
    )


def _map_ctime(store: Store, info: IndexInfo) -> None:
    """Map the field by which a change behind an equal size and time is found.

    Documents without it are compared by size and modification time.
    """
    if "ctime_ns" in info.properties:
        return
    try:
        store.generations.map_fields({"ctime_ns": {"type": "long"}})
    except StoreDenied as error:
        logger.warning(
            "Index %r has no field ctime_ns, so changes behind an equal size and time are not"
            " found: run `es-imgsearch init --index %s` once with a key that may map fields. %s",
            store.index, store.index, error,
        )  # fmt: skip


def legacy_documents(meta: Meta) -> dict[str, Document]:
    """Convert entries of `_meta` of schema 1 to state documents."""
    documents: dict[str, Document] = {}
    for root, entry in meta.roots.items():
        if pause := entry.get("deletions_paused"):
            documents[pause_id(root)] = {
                "kind": "pause",
                "root": root,
                "since": pause["since"],
                "body": {"reason": pause["reason"], "pictures": pause["pictures"]},
            }
        if compared := entry.get("last_reconcile"):
            documents[comparison_id(root)] = {"kind": "comparison", "root": root, "body": compared}
        if daemon := entry.get("watched_by"):
            documents[daemon_id(root)] = {
                "kind": "daemon",
                "root": root,
                **{name: daemon[name] for name in ("host", "process_id", "since", "seen_at")},
                "token": "schema 1",
                "lease_seconds": LEASE_SECONDS,
                "body": {"queue": daemon["queue"]},
            }
    return documents


def legacy_builder(meta: Meta) -> dict[str, Any] | None:
    """Process that builds this generation by `_meta` of schema 1.

    It is in the form of `status`.
    """
    if meta.builder is None:
        return None
    shown = {name: meta.builder[name] for name in ("host", "process_id", "since", "seen_at")}
    return {**shown, "is_alive": datetime.now(tz=UTC) < _silent_at(shown)}


def _silent_at(builder: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(builder["seen_at"]) + timedelta(seconds=_BUILDER_SECONDS)


def _upgraded(meta: Meta) -> Meta:
    roots = {
        name: {key: value for key, value in entry.items() if key not in _MOVED}
        for name, entry in meta.roots.items()
    }
    return replace(meta, roots=roots, builder=None, schema_version=SCHEMA_VERSION)


def _check_not_built(builder: Mapping[str, Any] | None, index: str) -> None:
    if builder is not None and builder["is_alive"]:
        raise AlreadyRunning(
            f"Process {builder['process_id']} on {builder['host']}, of an earlier version, is"
            f" reindexing {index!r} since {builder['since']}: wait for it, or stop it. If it was"
            f" killed, this can be run from {_silent_at(builder).isoformat(timespec='seconds')} on."
        )
