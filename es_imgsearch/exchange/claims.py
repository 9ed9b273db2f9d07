"""Roots of imported rows: entered in `_meta` so that no folder's comparison deletes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from es_imgsearch.errors import RootError
from es_imgsearch.mapping import Meta
from es_imgsearch.records import Root, disk_path
from es_imgsearch.roots import check_registered
from es_imgsearch.store import Store

# The host of a root whose pictures are on no machine: nobody can watch a folder of that name.
IMPORTED_HOST = "(imported)"


def claim_root(store: Store, name: str, origin: Mapping[str, Any] | None, file: str) -> bool:
    """Enter a root that a file brings; whether some machine watches or may watch its folder.

    `origin` is the root's `path` and `host` as the file tells them: where the pictures still are,
    `sync` goes on with the imported documents instead of embedding anew.  Without it the root is
    nobody's, and `file` its path.

    Raises RootError where the name, or the folder, belongs to another root.
    """
    mine = dict(origin) if origin is not None else {"path": file, "host": IMPORTED_HOST}

    def entered(meta: Meta) -> Meta:
        entry = meta.roots.get(name)
        if entry is None:
            if mine["host"] != IMPORTED_HOST:
                root = Root(name, Path(disk_path(mine["path"])))
                check_registered(root, mine["host"], meta.roots)
            return meta.with_root(name, mine)
        is_imported = entry["host"] == mine["host"] == IMPORTED_HOST
        if is_imported or (entry["path"], entry["host"]) == (mine["path"], mine["host"]):
            return meta
        raise RootError(
            f"The root {name!r} of this index is {entry['path']} on host {entry['host']!r}, that of"
            f" the file is {mine['path']} on host {mine['host']!r}: pictures of two places under"
            " one name would overwrite each other. Import into another --index"
            + (", or give another --root." if origin is None else ".")
        )

    store.update_meta(entered)
    return bool(mine["host"] != IMPORTED_HOST)
