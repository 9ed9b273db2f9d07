"""List the files that could not be read or stored, with their paths."""

from __future__ import annotations

from typing import Any

from es_imgsearch.elastic.store import Store
from es_imgsearch.records import utf8


def listed_failures(store: Store, host: str) -> list[dict[str, Any]]:
    """List the failures, each with its `path`; None if its root is on another host."""
    store.refresh()
    meta = store.info().meta
    found = []
    for each in store.listings.failures():
        path = meta.path_on(host, each["root"], each["relative_path"])
        found.append({**each, "path": None if path is None else utf8(str(path))})
    return found
