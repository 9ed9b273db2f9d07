"""Register the names and folders of roots with the index."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from es_imgsearch.elastic.leases import Lease
from es_imgsearch.elastic.leases.division import claims_of, divisions, keys_by_root
from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.meta import IMPORTED_HOST, Meta, is_open_on
from es_imgsearch.elastic.state import (
    comparison_id,
    deletions_id,
    mounts_id,
    pause_id,
    unstored_id,
)
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import RootError, counted
from es_imgsearch.records import Root, disk_path, image_id, is_url, path_of, stored_path
from es_imgsearch.watch.bounded_looks import found_at
from es_imgsearch.watch.commands import given_entry, permitting_command, shell_word
from es_imgsearch.watch.given_roots import overlap
from es_imgsearch.watch.given_roots import parse_roots as parse_roots
from es_imgsearch.watch.inner_roots import check_unwatched, roots_inside

logger = logging.getLogger(__name__)


def register_roots(
    store: Store,
    roots: Sequence[Root],
    host: str,
    *,
    replace_gone: bool = False,
    takes_in: bool = False,
) -> Meta:
    """Enter the roots in the document of the index's roots, all or none of them.

    Names and overlaps are checked in the version that is replaced, so of two processes that
    register at the same time the second one sees the roots of the first.

    With `replace_gone` a name whose folder is no longer there goes over to the one given, and so
    does one whose folder the index has forgotten.  With `takes_in` roots that lie in one of these
    stay until `manage.taking_in` releases them.

    Raises RootError where a name belongs to another folder or host, where the index holds pictures
    of it and no folder, or where a folder overlaps one that is registered under another name.
    """
    new: set[str] = set()

    def entered(meta: Meta) -> Meta:
        # Called again after a conflict: another process may have entered a root meanwhile.
        new.clear()
        for root in roots:
            entry = meta.roots.get(root.name)
            if entry is not None and _leads_to(entry, root, host):
                meta = with_registered(meta, root, host)
                continue
            if entry is not None and root.partition and entry["path"] == _text(root.path):
                continue  # workers of several hosts share it
            takes_over = replace_gone and entry is not None and has_moved(entry, host)
            inner = roots_inside(root, meta, host) if takes_in else ()
            others = {
                name: each
                for name, each in meta.roots.items()
                if name not in inner and (name != root.name or not takes_over)
            }
            check_registered(root, host, others, store.index)
            if entry is None and not replace_gone:
                _check_unused(store, root)
            if entry is None or takes_over:
                meta = with_registered(meta, root, host)
                new.add(root.name)
        return meta

    if takes_in:
        check_unwatched(store, roots, host)
    meta = store.generations.update_meta(entered)
    for name in new:
        _forget(store, name)
    return meta


def take_over_roots(store: Store, roots: Sequence[Root], host: str, lease_seconds: float) -> None:
    """Enter this host and these folders for roots of other hosts.

    Likewise for a folder that was copied to a URL, or from one.  Documents and the history of
    deletions stay.

    Waits up to `lease_seconds` after the other host's daemon was killed.  Raises AlreadyRunning if
    it is at work.
    """
    meta = store.info().meta
    theirs = [root for root in roots if _goes_on(meta.roots.get(root.name), root, host)]
    if not theirs:
        return

    def entered(meta: Meta) -> Meta:
        for root in theirs:
            if _goes_on(meta.roots.get(root.name), root, host):
                others = {name: each for name, each in meta.roots.items() if name != root.name}
                check_registered(root, host, others)
                meta = with_registered(meta, root, host)
        return meta

    names = [root.name for root in theirs]
    # The claim of a daemon: no other one can begin meanwhile.
    with Lease(
        store.state,
        claims_of(names, divisions(store.state, names)),
        host,
        f"watching {', '.join(repr(root.name) for root in theirs)} into index {store.index!r}",
        lease_seconds=lease_seconds,
        body=lambda: {"queue": 0},
    ):
        store.generations.update_meta(entered)
    for root in theirs:
        before = meta.roots[root.name]
        logger.warning(
            "%r, which was %s on host %r, goes on as %s on host %r.",
            root.name, before["path"], before["host"], root.path, host,
        )  # fmt: skip


def _leads_to(entry: Mapping[str, Any], root: Root, host: str) -> bool:
    """Return True if a link leads to the root that led nowhere when it was entered."""
    entered, path = disk_path(entry["path"]), os.fspath(root.path)
    if entry["host"] != host or entered == path or is_url(path):
        return False
    return found_at(entered, lambda: os.path.realpath(entered) == path, False)


def _goes_on(entry: Mapping[str, Any] | None, root: Root, host: str) -> bool:
    if entry is None or entry["host"] == IMPORTED_HOST:
        return False
    return entry["host"] != host or _is_copied(entry, root)


def _is_copied(entry: Mapping[str, Any], root: Root) -> bool:
    """Return True if one of both is a folder, and the other a URL."""
    return bool(is_url(entry["path"])) != root.is_url


def _check_unused(store: Store, root: Root) -> None:
    """Raise RootError if the index holds pictures of a name that it does not know."""
    store.refresh()
    if pictures := store.listings.count(root.name):
        held = counted(pictures, "picture")
        command = permitting_command(root, store.index, ())
        raise RootError(
            f"The index {store.index!r} holds {held} of {root.name!r} and no longer knows of which"
            f" folder: {Companion.STATE.alias(store.index)!r} was deleted, perhaps, or restored"
            f" from another snapshot. If they are of {root.path}, and all of them are there, run"
            f" `{command}` once, which deletes those that are not; if not, call this folder"
            f" something else, as NAME={shell_word(str(root.path))}."
        )


def release_root(store: Store, root: Root, host: str) -> int:
    """Remove a lost folder's documents and its name; return the number of pictures.

    Raises RootError where the index knows no such folder of that name.
    """
    meta = store.info().meta
    if root.name not in meta.roots:
        raise RootError(f"{root.path} does not exist, and the index knows no {root.name!r}.")
    check_registered(root, host, {root.name: meta.roots[root.name]})
    store.refresh()
    pictures = store.listings.count(root.name)
    for failures in (False, True):
        listed = store.listings.stored(root.name, failures=failures)
        store.documents.delete(image_id(root.name, disk_path(each.stored_path)) for each in listed)
    entry = meta.roots[root.name]
    store.generations.update_meta(
        lambda meta: replace(
            meta,
            # Another folder may have got the name meanwhile.
            roots={
                name: each
                for name, each in meta.roots.items()
                if name != root.name or each != entry
            },
        )
    )
    _forget(store, root.name)
    store.refresh()
    return pictures


def _forget(store: Store, name: str) -> None:
    """Remove state of another folder of that name; a daemon keeps its lease."""
    for key in {name, *keys_by_root(store.state, [name])[name]}:
        for document_id in (pause_id, comparison_id, deletions_id, mounts_id, unstored_id):
            store.state.delete(document_id(key))


def with_registered(meta: Meta, root: Root, host: str) -> Meta:
    """Return the metadata with this root of a host entered."""
    return meta.with_root(root.name, {"path": _text(root.path), "host": host})


def is_registered(root: Root, meta: Meta, host: str) -> bool:
    """Return True if the index knows this folder of this host under this name."""
    entry = meta.roots.get(root.name)
    return entry is not None and entry["host"] == host and entry["path"] == _text(root.path)


def registered_root(name: str, meta: Meta) -> Root | None:
    """The root of this name, as far as this host can see its folder.

    It follows links: whether its daemon does is not known, and what a link leads to may be there.
    """
    entry = meta.roots.get(name)
    return (
        None if entry is None else Root(name, path_of(disk_path(entry["path"])), follows_links=True)
    )


def root_of_path(path: Path, meta: Meta, host: str) -> Root | None:
    """Return the registered root, of this host or at a URL, that holds a path."""
    for name, entry in meta.roots.items():
        root = registered_root(name, meta)
        if root and is_open_on(entry, host) and root.path in (path, *path.parents):
            return root
    return None


def root_of_folder(folder: str, meta: Meta, host: str) -> tuple[Root, str]:
    """Return the root that a folder belongs to, and the folder's path below it.

    It is the registered root that holds the folder, or a new one, whose name is the folder's, with
    a number if that is taken.  Raises RootError for what is no folder.
    """
    (new,) = parse_roots([folder])
    if root := root_of_path(new.path, meta, host):
        return root, stored_path(os.path.relpath(new.path, root.path))
    numbered = (f"{new.name}-{number}" for number in count(2))
    name = next(each for each in chain([new.name], numbered) if each not in meta.roots)
    return Root(name, new.path), "."


def check_registered(
    root: Root, host: str, registered: Mapping[str, Mapping[str, Any]], index: str = ""
) -> None:
    """Raise RootError if another registered root has this name or folder.

    With the name of the index it says how an outer folder takes inner ones in.
    """
    for name, entry in registered.items():
        same_host = entry["host"] == host
        if name == root.name:
            if same_host and entry["path"] == _text(root.path):
                continue
            raise RootError(
                f"The name {name!r} belongs to {entry['path']} on host {entry['host']!r}, and this"
                f" is {root.path} on host {host!r}: {_way_out(root, entry, host)}call this folder"
                f" something else, as NAME={shell_word(str(root.path))}."
            )
        inner = path_of(disk_path(entry["path"]))
        if same_host and overlap(root.path, inner):
            wider = permitting_command(root, index, ()) if index and root.path != inner else ""
            takes_in = f" or run `{wider}` once, which takes that one in," if wider else ""
            raise RootError(
                f"{root.path} overlaps {entry['path']}, which this index knows as {name!r}: give"
                f" that one, as {given_entry(name, entry['path'])},"
                f"{takes_in * (root.path in inner.parents)} or use another --index."
            )


def _way_out(root: Root, entry: Mapping[str, Any], host: str) -> str:
    """Say how a folder continues a root's documents; "" if it cannot."""
    if has_moved(entry, host):
        return (
            "if that one has moved here, add --allow-deletes to `sync` or `watch`, which"
            " gives the name to this folder and removes from the index what is not in it (no file"
            " is touched); if not, "
        )
    if entry["host"] != IMPORTED_HOST and _is_copied(entry, root):
        return (
            "if its files were copied there, add --take-over to `sync` or `watch`, which embeds"
            " none again; if not, "
        )
    if entry["host"] in {host, IMPORTED_HOST}:
        return ""
    if not root.is_url and not found_at(
        os.fspath(root.path), lambda: os.path.lexists(root.path), True
    ):
        # Only --allow-deletes comes here without a folder.
        if entry["path"] != _text(root.path):
            return ""
        return (
            "if the folder is lost with its host, run this again with"
            f" ES_IMGSEARCH_HOST={entry['host']} in the environment; if not, "
        )
    return (
        "if it is the same folder (a container made anew has another host name), add --take-over to"
        " `sync` or `watch`; if not, "
    )


def has_moved(entry: Mapping[str, Any], host: str) -> bool:
    """Return True if the folder of a root of this host is not there any more."""
    path = disk_path(entry["path"])
    if is_url(path):
        return False
    return bool(entry["host"] == host) and not found_at(path, lambda: os.path.lexists(path), True)


def _text(path: Path) -> str:
    return stored_path(os.fspath(path))


# Roots of imported rows: registered so that no folder's comparison deletes them.
def claim_root(store: Store, name: str, origin: Mapping[str, Any] | None, file: str) -> bool:
    """Enter an imported root; return True if a machine watches or may watch it.

    `origin` is the root's `path` and `host` as in the file: if the pictures are still there, `sync`
    continues with the imported documents instead of embedding again.  Without it the root belongs
    to no machine, and `file` is its path.

    Raises RootError where the name, or the folder, belongs to another root.
    """
    mine = dict(origin) if origin is not None else {"path": file, "host": IMPORTED_HOST}

    def entered(meta: Meta) -> Meta:
        entry = meta.roots.get(name)
        if entry is None:
            if mine["host"] != IMPORTED_HOST:
                root = Root(name, path_of(disk_path(mine["path"])))
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

    store.generations.update_meta(entered)
    return bool(mine["host"] != IMPORTED_HOST)
