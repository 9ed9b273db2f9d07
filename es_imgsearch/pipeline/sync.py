"""Run one pass over every root, or read every failed file once more."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import open_context
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.jobs import RootComparison
from es_imgsearch.records import Change, disk_path
from es_imgsearch.settings import Settings
from es_imgsearch.watch.given_roots import is_absent
from es_imgsearch.watch.roots import registered_root

logger = logging.getLogger(__name__)

# A file that is written all the time must not keep `sync` from ending.
_UNSETTLED_SECONDS = 30.0


def sync(indexer: Indexer) -> list[RootComparison]:
    """Index every root once.

    On return, new pictures are searchable and missing ones deleted.  Files that stay in the
    indexer's settler are left to the next run, because they are still being written.  Raises the
    error that ended the pipeline, or AlreadyRunning if a daemon with other excludes is at work; the
    caller closes the pipeline.
    """
    indexer.check_excludes()
    comparisons = [indexer.reconcile(root, list_first=True) for root in indexer.roots]
    deadline = time.monotonic() + _UNSETTLED_SECONDS
    _wait_settled(indexer, deadline)
    # A daemon may have begun meanwhile.
    indexer.check_excludes()
    indexer.delete_missing(at_once=True)
    # Files that came back while their documents were being deleted.
    _wait_settled(indexer, deadline)
    _warn_of_unsettled(indexer, "sync")
    indexer.make_searchable()
    indexer.save_comparisons()
    return comparisons


def _warn_of_unsettled(indexer: Indexer, command: str) -> None:
    if number := len(indexer.settler):
        are = "file is" if number == 1 else "files are"
        logger.warning("%d %s still being written: run `%s` again later.", number, are, command)


def _wait_settled(indexer: Indexer, deadline: float) -> None:
    """Wait until no file is in flight, and, until the deadline, none settles."""
    pause = threading.Event()
    while True:
        indexer.submit_settled()
        indexer.submit_touched(all_at_once=True)
        indexer.pipeline.wait_idle()
        if indexer.submit_outdated():
            continue
        # A file that changed while it was read settles once more.
        if not len(indexer.settler) or time.monotonic() >= deadline:
            return
        due_at = indexer.settler.next_due_at()
        if due_at is not None:
            pause.wait(max(0.0, min(1.0, due_at - time.monotonic())))


@contextmanager
def retried_indexer(store: Store, settings: Settings) -> Iterator[Indexer]:
    """Read every failed file of this host's roots once more.

    Yields the indexer that did it; files that stay in its settler are still being written.
    """
    context = open_context(store, settings)
    meta = context.info.meta
    roots = {
        name: root
        for name, entry in meta.roots.items()
        if entry["host"] == settings.host
        and (root := registered_root(name, meta)) is not None
        and not is_absent(root)
    }
    indexer = Indexer(context, list(roots.values()), settings)
    try:
        store.refresh()
        elsewhere = 0
        for failure in store.listings.failures():
            root = roots.get(failure["root"])
            if root is None:
                elsewhere += 1
                continue
            path = disk_path(failure["relative_path"])
            indexer.pipeline.submit(Change(root, path, time.time()))
        for root in indexer.roots:
            indexer.unstored.load(root.name)
            for change in indexer.unstored.changes(root):
                indexer.pipeline.submit(change)
        if elsewhere:
            logger.warning(
                "%d failures belong to folders that are not on this machine: they stay.", elsewhere
            )
        deadline = time.monotonic() + _UNSETTLED_SECONDS
        _wait_settled(indexer, deadline)
        indexer.delete_missing(at_once=True)
        # Files that came back while their documents were being deleted.
        _wait_settled(indexer, deadline)
        _warn_of_unsettled(indexer, "failures retry")
        indexer.save_comparisons()
        yield indexer
    finally:
        indexer.pipeline.close()
