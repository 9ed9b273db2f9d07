"""What an index holds, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from es_imgsearch.elastic.meta_entries import CODE_FIELD, Tuning
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.reindex.lock import builder_to_dict
from es_imgsearch.pipeline.heartbeat import is_alive
from es_imgsearch.records import disk_path

# A setting tuned to .95 among 10,000 vectors found .997 of the true ten there, .991 among three
# times as many and .987 among ten times as many (benchmarks/growth.py): growth costs recall slowly.
GROWN_TIMES = 5


def index_status(store: Store) -> dict[str, Any]:
    """The index, its encoder and, of each root, its counts, its daemon and what waits.

    `watched_by.is_alive` is False when the daemon has not told of itself for ten minutes: it was
    killed, or lost Elasticsearch.  `queue` is the number of files on their way when it last told
    (`seen_at`; every half a minute while it works), None without a living daemon.  `lag_ms` is
    the time from when a file was noticed (by an event or a comparison) until its document was
    made, over the pictures of the last 24 hours.  `encoder_plan` is how the encoder ran when the
    root was last compared, None for encoders of other packages.  `tune_again` is True once the
    index holds `GROWN_TIMES` as many pictures as when it was tuned.  `codes` is None without binary
    codes; `missing` says how many pictures have none.  `next` and `before` are the generations that
    `reindex` builds and keeps, None where there is none, and `builder` the process that is at it or
    was; everything else is told of the one that serves.
    """
    info, generations = store.info(), store.generations.roles()
    store.refresh()
    pictures, failures = (
        store.listings.counts_by_root(),
        store.listings.counts_by_root(failures=True),
    )
    recent = store.listings.recent_by_root()
    roots = {
        name: {
            "path": disk_path(entry["path"]),
            "host": entry["host"],
            "pictures": pictures.get(name, 0),
            "failures": failures.get(name, 0),
            "deletions_paused": entry.get("deletions_paused"),
            **_daemon(entry.get("watched_by")),
            "last_reconcile": entry.get("last_reconcile"),
            "encoder_plan": entry.get("encoder_plan"),
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
        "next": _generation(store, generations.next),
        "before": _generation(store, generations.before),
        "writes_held_back": store.switching.is_blocked(),
        "roots": roots,
    }


def _has_outgrown(tuning: Tuning, pictures: int) -> bool:
    return tuning.pictures is not None and pictures >= GROWN_TIMES * tuning.pictures


def _without_code(store: Store) -> int:
    query = {"bool": {"must_not": [{"exists": {"field": CODE_FIELD}}]}}
    return store.listings.count_matching(query)


def _generation(store: Store, name: str | None) -> dict[str, Any] | None:
    if name is None:
        return None
    one = store.at(name)
    meta = one.info().meta
    return {
        "generation": name,
        "encoder": meta.seal.name,
        "profile": meta.profile,
        "pictures": one.listings.count(),
        "builder": builder_to_dict(meta.builder),
    }


def _daemon(watched_by: Mapping[str, Any] | None) -> dict[str, Any]:
    if watched_by is None:
        return {"queue": None, "watched_by": None}
    lives = is_alive(watched_by)
    return {
        "queue": watched_by["queue"] if lives else None,
        "watched_by": {**watched_by, "is_alive": lives},
    }
