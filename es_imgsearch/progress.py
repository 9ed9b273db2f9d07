"""A progress bar on standard error, where that is a terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from es_imgsearch.indexer import Indexer

_STEP_SECONDS = 0.2


@contextmanager
def progress(indexer: Indexer) -> Iterator[None]:
    """Show how many of the files found so far are done."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    with tqdm(unit=" files", total=0, file=sys.stderr, dynamic_ncols=True, leave=False) as bar:
        follower = threading.Thread(target=_follow, args=(bar, indexer, done), daemon=True)
        follower.start()
        try:
            yield
        finally:
            done.set()
            follower.join()


def _follow(bar: tqdm[None], indexer: Indexer, done: threading.Event) -> None:
    while not done.wait(_STEP_SECONDS):
        counts = indexer.counts
        finished = counts.stored + counts.failed + counts.not_pictures
        bar.total = max(finished + indexer.pipeline.in_flight, indexer.found)
        bar.n = finished
        bar.set_postfix_str(f"{counts.failed} failed", refresh=False)
        bar.refresh()
