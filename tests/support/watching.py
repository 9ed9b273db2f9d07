"""A daemon in a process of its own, with the encoder of testing, and what memory it takes.

    python -m tests.support.watching FOLDER

Settings come from the environment, as those of `es-imgsearch watch`; the index is there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import open_context
from es_imgsearch.pipeline.daemon import Daemon
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import FakeEncoder
from es_imgsearch.watch.roots import parse_roots, register_roots
from tests.support import CHECKOUT


class Sample(NamedTuple):
    """Memory of a process and of all below it."""

    seconds: float
    megabytes: float


def processes_below(pid: int) -> list[int]:
    """A process and all that it started, and those that they did."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except OSError:
                continue
    return found


def megabytes(pid: int) -> float:
    """Resident memory; pages that several processes share are counted once for each."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Watching:
    """The process; `samples` of its memory are taken while it runs."""

    def __init__(self, process: subprocess.Popen[bytes], interval_seconds: float) -> None:
        self.process = process
        self.samples: list[Sample] = []
        self._interval_seconds = interval_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(self._interval_seconds):
            total = sum(megabytes(each) for each in processes_below(self.process.pid))
            self.samples.append(Sample(time.monotonic() - began, total))

    def stop(self, seconds: float = 60.0) -> int:
        self._ended.set()
        self._thread.join()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextmanager
def watching(
    folder: Path,
    es_url: str,
    index: str,
    interval_seconds: float = 1.0,
    *,
    clock: Path | None = None,
    **settings: str,
) -> Iterator[Watching]:
    """Run a daemon on the folder until the block ends; `clock` see `moved_clock`."""
    module = [__name__] if clock is None else ["tests.support.moved_clock", str(clock)]
    given = {f"ES_IMGSEARCH_{name.upper()}": value for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", *module, str(folder)],
        env={**os.environ, "ES_URL": es_url, "ES_IMGSEARCH_INDEX": index, **given},
        cwd=CHECKOUT,
    )
    made = Watching(process, interval_seconds)
    try:
        yield made
    finally:
        if process.poll() is None:
            made.stop()


def main(folder: str) -> None:
    settings = load_settings({})
    store = Store(connect(settings), settings.index)
    roots = parse_roots([folder])
    register_roots(store, roots, settings.host)
    context = open_context(store.pinned(), settings, FakeEncoder())
    daemon = Daemon(Indexer(context, roots, settings), settings)
    signal.signal(signal.SIGTERM, lambda *_: daemon.stop())
    daemon.run()


if __name__ == "__main__":
    main(sys.argv[1])
