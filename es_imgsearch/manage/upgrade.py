"""Bring an index of schema 1 up to date: what processes share moves from `_meta` to the state.

The first writer of this version does it.  Programs of before refuse the index from then on; who
only reads takes the old entries as they are, see `legacy_documents`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from es_imgsearch.elastic.leases import LEASE_SECONDS
from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.meta import SCHEMA_VERSION, Meta
from es_imgsearch.elastic.state import Document, comparison_id, daemon_id, pause_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import AlreadyRunning, StoreDenied

logger = logging.getLogger(__name__)

_MOVED = {"deletions_paused", "deletions_allowed", "watched_by", "last_reconcile"}
# So long after its last sign of life schema 1 took a reindex for alive.
_BUILDER_SECONDS = 180.0


def upgrade(store: Store) -> None:
    """Bring an index of schema 1 up to date; one of the present schema stays as it is.

    Raises AlreadyRunning while a reindex of the version before runs, StoreDenied where the index
    of state documents has to be made and may not be.
    """
    serving = store.info().meta
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
        # One that is there was written by another process that upgrades.
        state.create(name, document)
    # The serving generation last: once that is done, everything is.
    for generation in (*others, store):
        generation.generations.update_meta(_upgraded)
    logger.warning(
        "Index %r is of schema %d now: earlier versions refuse it.", store.index, SCHEMA_VERSION
    )


def legacy_documents(meta: Meta) -> dict[str, Document]:
    """What `_meta` of schema 1 holds, as the state documents of now."""
    found: dict[str, Document] = {}
    for root, entry in meta.roots.items():
        if pause := entry.get("deletions_paused"):
            found[pause_id(root)] = {
                "kind": "pause",
                "root": root,
                "since": pause["since"],
                "body": {"reason": pause["reason"], "pictures": pause["pictures"]},
            }
        if compared := entry.get("last_reconcile"):
            found[comparison_id(root)] = {"kind": "comparison", "root": root, "body": compared}
        if daemon := entry.get("watched_by"):
            found[daemon_id(root)] = {
                "kind": "daemon",
                "root": root,
                **{name: daemon[name] for name in ("host", "process_id", "since", "seen_at")},
                "token": "schema 1",
                "lease_seconds": LEASE_SECONDS,
                "body": {"queue": daemon["queue"]},
            }
    return found


def legacy_builder(meta: Meta) -> dict[str, Any] | None:
    """The process that `_meta` of schema 1 names as building this generation, as in `status`."""
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
