"""What an index holds, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from es_imgsearch.elastic.leases import is_alive
from es_imgsearch.elastic.meta import SCHEMA_VERSION, Meta
from es_imgsearch.elastic.meta_entries import CODE_FIELD, Tuning
from es_imgsearch.elastic.state import Document, comparison_id, daemon_id, pause_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.reindex.lock import builders
from es_imgsearch.manage.upgrade import legacy_builder, legacy_documents
from es_imgsearch.records import disk_path
from es_imgsearch.write.deletion_pauses import active_pause

# A setting tuned to .95 among 10,000 vectors found .997 of the true ten there, .991 among three
# times as many and .987 among ten times as many (benchmarks/growth.py): growth costs recall slowly.
GROWN_TIMES = 5


def index_status(store: Store) -> dict[str, Any]:
    """The index, its encoder and, of each root, its counts, its daemon and what waits.

    `watched_by.is_alive` is False when the daemon has not renewed its lease for four times
    `lease_seconds`: it was killed, or lost Elasticsearch.  `queue` is the number of files on their
    way when it renewed it last (`seen_at`, every 5 s by default), None without a living daemon.
    `lag_ms` is the time from when a file was noticed (by an event or a comparison) until its
    document was made, over the pictures of the last 24 hours.  `encoder_plan` is how the encoder
    ran when the root was last compared, None for encoders of other packages.  `tune_again` is True
    once the index holds `GROWN_TIMES` as many pictures as when it was tuned.  `codes` is None
    without binary codes; `missing` is the number of pictures without one.  `next` and `before` are
    the generations that `reindex` builds and keeps, None where there is none, and `builder` the
    process that is or was at work on it; everything else is of the generation that serves.
    """
    info, generations = store.info(), store.generations.roles()
    store.refresh()
    pictures, failures = (
        store.listings.counts_by_root(),
        store.listings.counts_by_root(failures=True),
    )
    recent = store.listings.recent_by_root()
    state = _state(store, info.meta)
    at_work = {} if info.meta.schema_version < SCHEMA_VERSION else builders(store)
    roots = {
        name: {
            "path": disk_path(entry["path"]),
            "host": entry["host"],
            "pictures": pictures.get(name, 0),
            "failures": failures.get(name, 0),
            "deletions_paused": active_pause(state.get(pause_id(name))),
            **_daemon(state.get(daemon_id(name))),
            **_comparison(state.get(comparison_id(name))),
            **recent.get(name, {"last_indexed_at": None, "lag_ms": None}),
        }
        for name, entry in sorted(info.meta.roots.items())
    }
    return {
        "index": store.index,
        "generation": info.name,
        "elasticsearch": store.connection.version(),
        "encoder": info.meta.seal.to_body(),
        "profile": info.meta.profile,
        "similarity": info.meta.similarity,
        "tuning": info.meta.tuning.to_body(),
        "tune_again": _has_outgrown(info.meta.tuning, sum(pictures.values())),
        "pictures": sum(pictures.values()),
        "failures": sum(failures.values()),
        "codes": None
        if info.meta.codes is None
        else {**info.meta.codes.to_body(), "missing": _without_code(store)},
        "import_unfinished": info.is_loading,
        "next": _generation(store, generations.next, at_work),
        "before": _generation(store, generations.before, at_work),
        "writes_held_back": store.switching.is_blocked(),
        "roots": roots,
    }


def _has_outgrown(tuning: Tuning, pictures: int) -> bool:
    return tuning.pictures is not None and pictures >= GROWN_TIMES * tuning.pictures


def _without_code(store: Store) -> int:
    query = {"bool": {"must_not": [{"exists": {"field": CODE_FIELD}}]}}
    return store.listings.count_matching(query)


def _state(store: Store, meta: Meta) -> Mapping[str, Document]:
    """The state documents of the roots, also of an index that no writer has brought up to date."""
    if meta.schema_version < SCHEMA_VERSION:
        return legacy_documents(meta)
    kinds = (pause_id, daemon_id, comparison_id)
    return store.state.read_many([kind(name) for name in meta.roots for kind in kinds])


def _comparison(document: Document | None) -> dict[str, Any]:
    """The last comparison of a root, and how the encoder ran then."""
    body = dict((document or {}).get("body") or {})
    plan = body.pop("encoder_plan", None)
    return {"last_reconcile": body or None, "encoder_plan": plan}


def _generation(
    store: Store, name: str | None, at_work: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    if name is None:
        return None
    one = store.at(name)
    meta = one.info().meta
    return {
        "generation": name,
        "encoder": meta.seal.name,
        "profile": meta.profile,
        "pictures": one.listings.count(),
        "builder": at_work.get(name) or legacy_builder(meta),
    }


def _daemon(lease: Document | None) -> dict[str, Any]:
    if lease is None:
        return {"queue": None, "watched_by": None}
    lives = is_alive(lease)
    shown = {name: lease[name] for name in ("host", "process_id", "since", "seen_at")}
    queue = lease["body"]["queue"]
    return {
        "queue": queue if lives else None,
        "watched_by": {**shown, "queue": queue, "is_alive": lives},
    }
