"""Roots: from `[NAME=]DIR` to a folder whose name nobody else holds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from es_imgsearch.errors import RootError
from es_imgsearch.mapping import Meta
from es_imgsearch.records import Root, disk_path, stored_path
from es_imgsearch.store import Store


def parse_roots(texts: Sequence[str]) -> list[Root]:
    """Roots of the command line, checked against the disk and against each other.

    Raises RootError for what is no folder, a name given twice, or folders inside each other.
    """
    roots = [_parse(text) for text in texts]
    for position, root in enumerate(roots):
        for other in roots[:position]:
            if root.name == other.name:
                raise RootError(
                    f"{other.path} and {root.path} are both called {root.name!r}: give one"
                    " another name as NAME=DIR."
                )
            if _overlap(root.path, other.path):
                raise RootError(f"{root.path} and {other.path} overlap: watch the outer one.")
    return roots


def _parse(text: str) -> Root:
    name, equals, folder = text.partition("=")
    if not equals or os.path.isdir(text):
        name, folder = "", text
    # os.path, unlike Path, answers also where a folder may not be entered or a user is unknown.
    path = Path(os.path.expanduser(folder))
    if not os.path.isdir(path):
        why = "is not a folder" if os.path.exists(path) else "does not exist"
        raise RootError(f"{folder!r} {why}: give the folder that holds the pictures.")
    path = path.resolve()
    name = name or stored_path(path.name)
    if not name or "/" in name or name != name.strip() or not name.isprintable():
        raise RootError(f"{text!r} gives no usable name for the folder: write NAME=DIR.")
    if not os.access(path, os.R_OK | os.X_OK):
        raise RootError(f"The folder {folder!r} may not be read by this user.")
    return Root(name, path)


def register_roots(store: Store, roots: Sequence[Root], host: str) -> Meta:
    """Enter the roots in the index's `_meta`.

    Raises RootError where a name belongs to another folder or host, or where a folder
    overlaps one that is registered under another name.
    """

    def entered(meta: Meta) -> Meta:
        for root in roots:
            _check_registered(root, host, meta.roots)
            if root.name not in meta.roots:
                meta = meta.with_root(root.name, {"path": _text(root.path), "host": host})
        return meta

    return store.update_meta(entered)


def registered_root(name: str, meta: Meta) -> Root | None:
    """The root of this name, as far as this host can see its folder."""
    entry = meta.roots.get(name)
    return None if entry is None else Root(name, Path(disk_path(entry["path"])))


def _check_registered(root: Root, host: str, registered: Mapping[str, Mapping[str, Any]]) -> None:
    for name, entry in registered.items():
        same_host = entry["host"] == host
        if name == root.name:
            if same_host and entry["path"] == _text(root.path):
                continue
            raise RootError(
                f"The name {name!r} belongs to {entry['path']} on host {entry['host']!r}: call"
                f" this folder something else, as NAME={root.path}."
            )
        if same_host and _overlap(root.path, Path(disk_path(entry["path"]))):
            raise RootError(
                f"{root.path} overlaps {entry['path']}, which this index knows as {name!r}."
            )


def _overlap(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents


def _text(path: Path) -> str:
    return stored_path(os.fspath(path))
