"""Progress on standard error."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

    from es_imgsearch.pipeline.indexer import Indexer

_STEP_SECONDS = 0.2


@contextmanager
def progress_bar(unit: str, total: int = 0) -> Iterator[Callable[..., None]]:
    """Show a progress bar, if standard error is a terminal; yield its update function."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from tqdm import tqdm

    with tqdm(unit=f" {unit}", total=total or None, file=sys.stderr, leave=False) as bar:

        def advance(done: int, of: int | None = None) -> None:
            bar.total = of or bar.total
            bar.n = done
            bar.refresh()

        yield advance


@contextmanager
def progress(indexer: Indexer) -> Iterator[None]:
    """Show how many of the files found so far are done."""
    if not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

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
        bar.total = max(finished + indexer.pipeline.in_flight, indexer.changed_files)
        bar.n = finished
        bar.set_postfix_str(f"{counts.failed} failed", refresh=False)
        bar.refresh()
