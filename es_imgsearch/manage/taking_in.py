"""Release roots that lie in another one, once that one holds their pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from es_imgsearch.elastic.store import Store
from es_imgsearch.records import Root, disk_path, image_id, path_of
from es_imgsearch.settings import Settings
from es_imgsearch.watch.commands import command_line, given, walk_options
from es_imgsearch.watch.inner_roots import roots_inside
from es_imgsearch.watch.roots import is_registered, release_root
from es_imgsearch.write.field_memory import FieldMemory, lasting_fields
from es_imgsearch.write.unreadable import ENVIRONMENT_CLASSES

if TYPE_CHECKING:
    from es_imgsearch.pipeline.indexer import Indexer

_CHUNK = 500


def release_taken_in(
    store: Store, indexer: Indexer, settings: Settings
) -> tuple[dict[str, int], str]:
    """Remove roots that lie in those of an indexer whose pass has ended.

    Returns their pictures by name, and why none was removed: the pass may have left out files
    whose pictures are stored of the inner root alone.
    """
    meta = store.info().meta
    inner = {
        name: Root(name, path_of(disk_path(meta.roots[name]["path"])))
        for root in indexer.roots
        for name in roots_inside(root, meta, settings.host)
    }
    if inner and (left := _left_by(indexer, store, list(inner.values()))):
        stay = " and ".join(map(repr, inner))
        roots = [given(root) for root in indexer.roots]
        options = ["--allow-deletes", *walk_options(settings), "--index", store.index]
        return {}, (
            f"Not taken in yet: {stay}. Of the folder given now {', '.join(left)}, so all that the"
            f" index holds of {stay} stays. See to them, or leave them out by --exclude; then run"
            f" `{command_line(['sync'], roots, options)}` again."
        )
    return {
        name: release(store, root, settings.host, indexer.roots) for name, root in inner.items()
    }, ""


def release(store: Store, root: Root, host: str, outer: Sequence[Root] = ()) -> int:
    """Remove a root as `release_root` does, and keep the fields that nothing computes.

    They go over to the documents of the same files in the `outer` roots, and are remembered for
    files that turn up elsewhere.
    """
    if is_registered(root, store.info().meta, host):
        _keep_fields(store, root, outer)
    return release_root(store, root, host)


def _keep_fields(store: Store, root: Root, outer: Sequence[Root]) -> None:
    memory = FieldMemory(store.state)
    store.refresh()
    paths = (disk_path(each.stored_path) for each in store.listings.stored(root.name))
    while part := {image_id(root.name, path): path for path in islice(paths, _CHUNK)}:
        going = [each.source for each in store.documents.sources(list(part)).values()]
        memory.put_gone(going)
        for document in filter(None, map(lasting_fields, going)):
            path = root.absolute(part[document["image_id"]])
            ids = [
                image_id(each.name, os.path.relpath(path, each.path))
                for each in outer
                if each.path in path_of(path).parents
            ]
            result = store.rewrites.rewrite(ids, partial(_with_fields, document))
            for error in result.refused.values():
                raise error


def _with_fields(given: Mapping[str, Any], document: dict[str, Any]) -> Mapping[str, Any] | None:
    """Return a document with fields that it lacks; None if its content is another."""
    if document.get("content_id") != given.get("content_id"):
        return None
    return {**given, **document}


def _left_by(indexer: Indexer, store: Store, inner: Sequence[Root]) -> list[str]:
    """Say which files a pass did not get to, by kind."""
    unread = indexer.counts.unreadable + sum(
        _stored_inside(store, outer, inner) for outer in indexer.roots
    )
    unexamined = sum(each.unknown for each in indexer.last_comparisons.values())
    kinds = {
        "could not be read": unread,
        "could not be examined": unexamined,
        "still being written": len(indexer.settler),
        "refused by Elasticsearch": indexer.unstored.count(),
    }
    return [f"{number} {kind}" for kind, number in kinds.items() if number]


def _stored_inside(store: Store, outer: Root, inner: Sequence[Root]) -> int:
    """Count pictures of inner roots whose files failed for now in the outer one."""
    store.refresh()
    paths = (
        outer.absolute(disk_path(each["relative_path"]))
        for each in store.listings.failures(outer.name)
        # The others have no picture in them any more: their documents go in any case.
        if each.get("error_class") in ENVIRONMENT_CLASSES
    )
    ids = [
        image_id(root.name, os.path.relpath(path, root.path))
        for path in paths
        for root in inner
        if root.path in path_of(path).parents
    ]
    parts = (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))
    return sum(len(store.documents.existing(part)) for part in parts)
