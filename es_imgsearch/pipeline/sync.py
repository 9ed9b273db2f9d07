"""Failures, tried once more because somebody asked for it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import open_context
from es_imgsearch.pipeline.indexer import _UNSETTLED_SECONDS, Indexer
from es_imgsearch.pipeline.jobs import RootComparison
from es_imgsearch.records import Change, disk_path
from es_imgsearch.settings import Settings
from es_imgsearch.watch.roots import registered_root


def sync(indexer: Indexer) -> list[RootComparison]:
    """One pass over every root, until what was found can be searched and what is gone is deleted.

    Raises what ended the pipeline; the caller closes it.
    """
    passes = [indexer.reconcile(root) for root in indexer.roots]
    deadline = time.monotonic() + _UNSETTLED_SECONDS
    _work_off(indexer, deadline)
    if len(indexer.settler):
        logger.warning(
            "%d files are still being written; run sync again later.", len(indexer.settler)
        )
    indexer.delete_gone(at_once=True)
    # Files that came back while their documents were being deleted.
    _work_off(indexer, deadline)
    indexer.make_searchable()
    indexer.note_passes()
    return passes


def _work_off(indexer: Indexer, deadline: float) -> None:
    """Wait until nothing is in flight and nothing settles, the latter until the deadline."""
    pause = threading.Event()
    while True:
        indexer.submit_settled()
        indexer.pipeline.wait_idle()
        if indexer.submit_outdated():
            continue
        # A file that changed while it was read settles once more.
        if not len(indexer.settler) or time.monotonic() >= deadline:
            return
        due_at = indexer.settler.next_due_at()
        if due_at is not None:
            pause.wait(max(0.0, min(1.0, due_at - time.time())))


logger = logging.getLogger(__name__)


@contextmanager
def retried_indexer(store: Store, settings: Settings) -> Iterator[Indexer]:
    """An indexer that has read every failed file of this host's roots once more."""
    context = open_context(store, settings)
    meta = context.info.meta
    entries = meta.roots
    here = {name for name, entry in entries.items() if entry["host"] == settings.host}
    roots = {
        name: root
        for name in here
        if (root := registered_root(name, meta)) is not None and os.path.isdir(root.path)
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
        if elsewhere:
            logger.warning("%d failures are of folders that are not on this machine.", elsewhere)
        indexer.pipeline.wait_idle()
        indexer.delete_gone(at_once=True)
        yield indexer
    finally:
        indexer.pipeline.close()
