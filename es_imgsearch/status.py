"""What an index holds, as one value."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from es_imgsearch.records import disk_path
from es_imgsearch.store import Store


def index_status(store: Store) -> dict[str, Any]:
    """The index, its encoder and, for each root, its counts and paused deletions."""
    info = store.info()
    store.refresh()
    pictures, failures = store.counts_by_root(), store.counts_by_root(failures=True)
    roots = {
        name: {
            "path": disk_path(entry["path"]),
            "host": entry["host"],
            "pictures": pictures.get(name, 0),
            "failures": failures.get(name, 0),
            "deletions_paused": entry.get("deletions_paused"),
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
        "tuning": asdict(info.meta.tuning),
        "pictures": sum(pictures.values()),
        "failures": sum(failures.values()),
        "roots": roots,
    }
