"""What an index holds, as one value."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from es_imgsearch.records import disk_path
from es_imgsearch.store import Store


def index_status(store: Store) -> dict[str, Any]:
    """The index, its encoder and, of each root, its counts, its daemon and what waits.

    `queue` is the number of files on their way when the daemon last told (`watched_by.seen_at`,
    at most five minutes ago while it lives; every half a minute while it works), None without
    a daemon.  `lag_ms` is the time from the finished write of a file until its document was
    written, over the pictures of the last 24 hours.
    """
    info = store.info()
    store.refresh()
    pictures, failures = store.counts_by_root(), store.counts_by_root(failures=True)
    recent = store.recent_by_root()
    roots = {
        name: {
            "path": disk_path(entry["path"]),
            "host": entry["host"],
            "pictures": pictures.get(name, 0),
            "failures": failures.get(name, 0),
            "deletions_paused": entry.get("deletions_paused"),
            "queue": entry.get("watched_by", {}).get("queue"),
            "watched_by": entry.get("watched_by"),
            "last_reconcile": entry.get("last_reconcile"),
            **recent.get(name, {"last_indexed_at": None, "lag_ms": None}),
        }
        for name, entry in sorted(info.meta.roots.items())
    }
    return {
        "index": store.index,
        "generation": info.name,
        "elasticsearch": store.version(),
        "encoder": asdict(info.meta.seal),
        "profile": info.meta.profile,
        "similarity": info.meta.similarity,
        "tuning": info.meta.tuning.to_body(),
        "pictures": sum(pictures.values()),
        "failures": sum(failures.values()),
        "import_unfinished": info.is_loading,
        "roots": roots,
    }
