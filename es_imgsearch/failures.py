"""Failures, tried once more because somebody asked for it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from es_imgsearch.describe import mapped_describers
from es_imgsearch.indexer import Indexer
from es_imgsearch.records import Change, disk_path
from es_imgsearch.roots import registered_root
from es_imgsearch.sealing import writing_encoder
from es_imgsearch.settings import Settings
from es_imgsearch.store import IndexInfo, Store

logger = logging.getLogger(__name__)


@contextmanager
def retried_indexer(store: Store, info: IndexInfo, settings: Settings) -> Iterator[Indexer]:
    """An indexer that has read every failed file of this host's roots once more."""
    entries = info.meta.roots
    here = {name for name, entry in entries.items() if entry["host"] == settings.host}
    roots = {
        name: root
        for name in here
        if (root := registered_root(name, info.meta)) is not None and os.path.isdir(root.path)
    }
    indexer = Indexer(
        store,
        writing_encoder(store, info, settings),
        list(roots.values()),
        settings,
        describers=mapped_describers(info.properties, store.index),
        grid=info.meta.grid,
    )
    try:
        store.refresh()
        elsewhere = 0
        for failure in store.failed():
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
