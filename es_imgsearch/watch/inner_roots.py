"""Roots that lie in another folder, which takes them in."""

from __future__ import annotations

from collections.abc import Sequence

from es_imgsearch.elastic.leases import holder, is_running
from es_imgsearch.elastic.leases.division import daemon_leases
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import AlreadyRunning
from es_imgsearch.records import Root, disk_path, path_of


def roots_inside(root: Root, meta: Meta, host: str) -> list[str]:
    """Return the names of other roots of this host that are or lie in this one."""
    return [
        name
        for name, entry in meta.roots.items()
        if name != root.name
        and entry["host"] == host
        and root.path in ((path := path_of(disk_path(entry["path"]))), *path.parents)
    ]


def check_unwatched(store: Store, roots: Sequence[Root], host: str) -> None:
    """Raise AlreadyRunning if a daemon watches a root that is to be taken in."""
    meta = store.info().meta
    names = [name for root in roots for name in roots_inside(root, meta, host)]
    for lease in daemon_leases(store.state, names).values():
        if is_running(lease):
            raise AlreadyRunning(
                f"{holder(lease)} is watching {lease['root']!r}: stop it, and watch the outer"
                " folder then."
            )
