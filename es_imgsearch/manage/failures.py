"""List the files that could not be read or stored, with their paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from es_imgsearch.elastic.store import Store
from es_imgsearch.records import utf8


def listed_failures(store: Store, host: str) -> list[dict[str, Any]]:
    """List the failures, each with its `path`; None if its root is on another host."""
    return list(iterate_failures(store, host))


def iterate_failures(store: Store, host: str) -> Iterator[dict[str, Any]]:
    """Yield the failures as `listed_failures` lists them, by root and path."""
    store.refresh()
    meta = store.info().meta
    for each in store.listings.failures():
        path = meta.path_on(host, each["root"], each["relative_path"])
        yield {**each, "path": None if path is None else utf8(str(path))}
