"""Upgrade an index of an earlier schema.

Of schemas 1 and 2 everything that changes moves from `_meta` to state documents: from schema 1
pauses, daemons and comparisons, from both the roots and what was learned.  Documents of schemas 1
to 3 get the camera's own date, see `taken_local`.  The first writer of this version does it;
earlier versions refuse the index from then on.  Readers convert the old entries on the fly, see
`legacy_documents` and `Meta.from_body`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.leases import (
    LEASE_SECONDS,
    SURELY_EXPIRED,
    holder,
    is_alive,
    is_of_this_process,
    is_running,
    seconds_left,
)
from es_imgsearch.elastic.mapping import Companion, load_profile
from es_imgsearch.elastic.meta import FIRST_WITH_DOCUMENTS, SCHEMA_VERSION, Meta
from es_imgsearch.elastic.meta_entries import Tuning
from es_imgsearch.elastic.state import (
    REINDEX_LOCK,
    Document,
    comparison_id,
    daemon_id,
    pause_id,
)
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import AlreadyRunning, StoreDenied
from es_imgsearch.manage.production.refreshing import restore_refresh
from es_imgsearch.manage.taken_local import fill_taken_local, map_taken

logger = logging.getLogger(__name__)

_MOVED = {"deletions_paused", "deletions_allowed", "watched_by", "last_reconcile"}
# Schema 1 considered a reindex alive for so long after its last sign of life.
_BUILDER_SECONDS = 180.0


def upgrade(store: Store) -> None:
    """Upgrade an index of an earlier schema; another one stays unchanged.

    Also switches refresh on again, if a process that switched it off was killed.

    Raises AlreadyRunning while a reindex or a daemon of an earlier version runs: it would write
    entries of `_meta` that it has read before, and documents without new fields.  Raises
    StoreDenied if a field or the index of state documents is missing and may not be created.
    """
    info = store.generations.sealed()
    _map_ctime(store, info)
    if info.meta.schema_version >= SCHEMA_VERSION:
        if "taken_local" in info.properties and not info.is_loading:
            # A generation that was gone back to may lack it.
            fill_taken_local(store)
        restore_refresh(store)
        return
    serving = store.generations.info().meta
    roles = store.generations.roles()
    others = [store.at(name) for name in (roles.next, roles.before) if name is not None]
    for generation in others:
        _check_not_built(legacy_builder(generation.info().meta), store.index)
    _check_not_watched(store, serving)
    if has_state(serving):
        _check_not_locked(store)
    else:
        _make_state(store)
    # The serving generation last: once it is upgraded, everything is.
    for generation in (*others, store):
        _map_taken(generation)
        if generation is store:
            fill_taken_local(store)
        _upgrade_generation(generation, serving)
    logger.warning(
        "Index %r is of schema %d now: earlier versions refuse it.", store.index, SCHEMA_VERSION
    )


def has_state(meta: Meta) -> bool:
    """Return False for schema 1, with pauses, daemons, comparisons in `_meta`."""
    return meta.schema_version > 1


def _make_state(store: Store) -> None:
    try:
        store.generations.make_state()
    except StoreDenied as error:
        raise StoreDenied(
            f"Index {store.index!r} was made by an earlier version and lacks"
            f" {Companion.STATE.alias(store.index)!r}: run `es-imgsearch init --index"
            f" {store.index}` once with a key that may make indices. {error}"
        ) from error


def _upgrade_generation(store: Store, serving: Meta) -> None:
    """Move roots and learned entries of one generation; its `_meta` keeps the seal.

    A document that exists was written by another process that upgrades, or by an upgrade that was
    interrupted; roots of `_meta` that it lacks are added.
    """
    info = store.generations.sealed()
    if info.meta.schema_version >= SCHEMA_VERSION:
        return
    if info.meta.schema_version >= FIRST_WITH_DOCUMENTS:
        _put_meta(store, info.name, replace(info.meta, schema_version=SCHEMA_VERSION))
        return
    meta = replace(
        info.meta,
        # The roots of the serving generation are those of the index.
        roots={
            name: {key: value for key, value in entry.items() if key not in _MOVED}
            for name, entry in serving.roots.items()
        },
        schema_version=SCHEMA_VERSION,
        index_id=serving.index_id,
    )
    if not has_state(serving):
        for name, document in legacy_documents(serving).items():
            store.state.create(name, document)
    documents = meta.to_documents()
    store.state.create(meta.learned_document, documents[meta.learned_document])

    def with_roots(stored: Document | None) -> Document:
        known = {} if stored is None else meta.with_documents({meta.roots_document: stored}).roots
        return replace(meta, roots={**meta.roots, **known}).to_documents()[meta.roots_document]

    store.state.update(meta.roots_document, with_roots)
    tuning = Tuning(**load_profile(meta.profile)["_meta"]["tuning"])
    _put_meta(store, info.name, replace(meta, tuning=tuning))


def _put_meta(store: Store, name: str, meta: Meta) -> None:
    store.connection.request("PUT", f"/{name}/_mapping", {"_meta": meta.to_body()})


def _map_taken(store: Store) -> None:
    try:
        map_taken(store)
    except StoreDenied as error:
        raise StoreDenied(
            f"Index {store.index!r} was made by an earlier version and lacks fields: run"
            f" `es-imgsearch init --index {store.index}` once with a key that may map fields."
            f" {error}"
        ) from error


def _check_not_watched(store: Store, serving: Meta) -> None:
    ids = [daemon_id(name) for name in serving.roots]
    documents = store.state.read_many(ids) if has_state(serving) else legacy_documents(serving)
    for name, lease in documents.items():
        if name in ids and is_running(lease) and not is_of_this_process(lease):
            raise AlreadyRunning(
                f"{holder(lease)}, of an earlier version, is watching {lease['root']!r} into"
                f" {store.index!r} since {lease['since']}: stop it, then run this again. If it was"
                f" killed, this can be run {math.ceil(seconds_left(lease))} s later."
            )


def _check_not_locked(store: Store) -> None:
    lease = store.state.read_many([REINDEX_LOCK]).get(REINDEX_LOCK)
    if lease is not None and is_alive(lease):
        raise AlreadyRunning(
            f"{holder(lease)}, of an earlier version, is working on the generations of"
            f" {store.index!r} since {lease['since']}: wait for it, or stop it. If it was killed,"
            f" this can be run {SURELY_EXPIRED * lease['lease_seconds']:.0f} s later."
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


def _check_not_built(builder: Mapping[str, Any] | None, index: str) -> None:
    if builder is not None and builder["is_alive"]:
        raise AlreadyRunning(
            f"Process {builder['process_id']} on {builder['host']}, of an earlier version, is"
            f" reindexing {index!r} since {builder['since']}: wait for it, or stop it. If it was"
            f" killed, this can be run from {_silent_at(builder).isoformat(timespec='seconds')} on."
        )
