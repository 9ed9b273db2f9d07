"""Note that a new folder may be one of the index that was renamed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from itertools import islice

from es_imgsearch.elastic.store import Store
from es_imgsearch.records import Root, disk_path, image_id, path_of
from es_imgsearch.watch.commands import shell_word, sync_command
from es_imgsearch.watch.roots import has_moved

logger = logging.getLogger(__name__)

# So many files of a new folder are compared with what the index holds.
_SAMPLE = 50


def note_moved(store: Store, roots: Sequence[Root], host: str, options: Sequence[str]) -> None:
    """Log how a new root continues one whose folder is not there any more.

    That is one next to which the new one lies, or of whose files it has at least half.  `options`
    are those of `walk_options`.
    """
    known = store.info().meta.roots
    for root in roots:
        if root.name in known:
            continue
        for name, entry in known.items():
            if not has_moved(entry, host):
                continue
            before = path_of(disk_path(entry["path"]))
            if before.parent != root.path.parent and not _has_files_of(store, root, name):
                continue
            command = sync_command(Root(name, root.path), store.index, "--allow-deletes", *options)
            logger.warning(
                "The folder of %r (%s) is not there: if it is now %s, `%s` continues it.",
                name, shell_word(str(before)), shell_word(str(root.path)), command,
            )  # fmt: skip


def _has_files_of(store: Store, root: Root, name: str) -> bool:
    sizes = {image_id(name, path): size for path, size in islice(_files(root), _SAMPLE)}
    stored = store.documents.states(list(sizes))
    return sum(stored[each].size_bytes == sizes[each] for each in stored) * 2 >= len(sizes) > 0


def _files(root: Root) -> Iterator[tuple[str, int]]:
    for folder, _, names in os.walk(root.path):
        for each in names:
            path = os.path.join(folder, each)
            try:
                yield os.path.relpath(path, root.path), os.stat(path).st_size
            except OSError:
                continue
