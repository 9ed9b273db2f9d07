"""Progress on standard error: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TextIO

import click

from es_imgsearch.errors import counted, escaped

if TYPE_CHECKING:
    from es_imgsearch.pipeline.indexer import Indexer
    from es_imgsearch.write.activity import Costs

_STEP_SECONDS = 0.2
_LINE_SECONDS = 5.0
# The rate is that of the last minute.
_RATE_SECONDS = 60.0

# On a terminal a long path is cut at its beginning.
_FOLDER_LETTERS = 24

# What took less to read is not worth a line.
WORTH_SECONDS = 10.0

# A describer that takes this share of the reading time is named.
_LARGE_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class WorkDone:
    """What is done of how much.

    `total` is None if unknown, and may grow unless `is_whole`.
    """

    done: int
    total: int | None = None
    is_whole: bool = True
    notes: tuple[str, ...] = ()
    folder: str | None = None


class Pace:
    """Rate of the last minute, and the time that the rest takes at it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, done: int) -> float:
        """Note what is done now; return how much a second, 0 if that is not known yet."""
        now = self._clock()
        # Until the first one is done, the model is loaded.
        if not done:
            self._seen.clear()
        self._seen.append((now, done))
        while now - self._seen[0][0] > _RATE_SECONDS:
            self._seen.popleft()
        began_at, before = self._seen[0]
        seconds = now - began_at
        return (done - before) / seconds if seconds > 0 else 0.0


def in_words(work: WorkDone, unit: str, rate: float) -> str:
    """Describe progress: "1,234 of 5,000 files, 56/s, 1 min left"; `unit` is a plural."""
    one = unit.removesuffix("s")
    if not work.is_whole and not work.done:
        parts = ["Comparing the folder with the index"]
        if work.total:
            parts.append(f"{counted(work.total, one)} to read so far")
    elif work.total is None:
        parts = [counted(work.done, one)]
    else:
        least = "" if work.is_whole else "at least "
        parts = [f"{work.done:,} of {least}{counted(work.total, one)}"]
    if rate > 0:
        parts.append(f"{rate:,.1f}/s" if rate < 10 else f"{rate:,.0f}/s")
        if work.total is not None and work.total > work.done:
            least = "" if work.is_whole else "at least "
            parts.append(f"{least}{in_time((work.total - work.done) / rate)} left")
    where = [] if work.folder is None else [f"in {work.folder}"]
    return ", ".join([*parts, *work.notes, *where])


def in_time(seconds: float) -> str:
    """Format a duration: "12 s", "3 min", "2 h 5 min"."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def progress_bar(unit: str, total: int = 0) -> Iterator[Callable[..., None]]:
    """Show progress in units, given in the plural; yield its update function."""
    state = {"done": 0, "total": total}

    def advance(done: int, of: int | None = None) -> None:
        state.update(done=done, total=of or state["total"])

    with _shown(lambda: WorkDone(state["done"], state["total"] or None), unit):
        yield advance


@contextmanager
def progress(indexer: Indexer) -> Iterator[None]:
    """Show how many of the files that differ from the index are done."""
    with _shown(lambda: _work_of(indexer), "files"):
        yield


def _work_of(indexer: Indexer) -> WorkDone:
    counts, listing = indexer.counts, indexer.listing
    done = counts.stored + counts.failed + counts.unreadable + counts.not_pictures
    notes = []
    if counts.failed:
        notes.append(f"{counts.failed:,} failed")
    if cost := expensive_describer(indexer.pipeline.activity.costs()):
        notes.append(f"{cost[0]} takes {cost[1]:.0%}")
    folder = indexer.pipeline.activity.folder
    # Not at the top: it imports NumPy, which takes 30 ms.
    from es_imgsearch.records import utf8

    where = None if folder is None else escaped(utf8(folder))
    return WorkDone(done, max(listing.files, done), listing.is_whole, tuple(notes), where)


def expensive_describer(costs: Costs) -> tuple[str, float] | None:
    """Return the describer that takes most of the reading time, and its share of that."""
    if not costs.reading or not costs.describers:
        return None
    (name, seconds), *_ = costs.describers.most_common(1)
    share = seconds / costs.reading
    return (name, share) if share >= _LARGE_SHARE else None


def costs_in_words(costs: Costs) -> str:
    """Describe what reading took, the most expensive describers first."""
    describers = [
        f"{name} {seconds:.1f} s"
        for name, seconds in costs.describers.most_common(3)
        if seconds >= 0.05
    ]
    return (
        f"Reading {counted(costs.pictures, 'picture')} took {costs.reading:.1f} s in all reading"
        f" processes{', of it ' * bool(describers)}{', '.join(describers)}."
    )


def print_costs(costs: Costs) -> None:
    """Print what reading took, and how to leave out what took most of it."""
    if costs.reading < WORTH_SECONDS:
        return
    line = costs_in_words(costs)
    if cost := expensive_describer(costs):
        line += f" `--describers=-{cost[0]}` leaves out {cost[0]}."
    click.echo(line, err=True)


# -- showing ---------------------------------------------------------------------------------


@contextmanager
def _shown(work: Callable[[], WorkDone], unit: str) -> Iterator[None]:
    """Show progress until the context ends, from a thread of its own."""
    show = _on_terminal if sys.stderr.isatty() else _as_lines
    done = threading.Event()
    pace = Pace()

    def line() -> tuple[WorkDone, str]:
        now = work()
        if sys.stderr.isatty() and now.folder is not None and len(now.folder) > _FOLDER_LETTERS:
            now = replace(now, folder=f"…{now.folder[-_FOLDER_LETTERS:]}")
        return now, in_words(now, unit, pace.note(now.done))

    with show(line, done) as follow:
        thread = threading.Thread(target=follow, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


Line = Callable[[], tuple[WorkDone, str]]


@contextmanager
def _as_lines(line: Line, done: threading.Event) -> Iterator[Callable[[], None]]:
    stream = sys.stderr

    def follow() -> None:
        while not done.wait(_LINE_SECONDS):
            work, words = line()
            if work.done or work.total:
                click.echo(f"{words}.", file=stream)

    yield follow


@contextmanager
def _on_terminal(line: Line, done: threading.Event) -> Iterator[Callable[[], None]]:
    """Draw a bar; what is written or logged meanwhile comes above it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
    console = Console(file=sys.stderr, highlight=False)
    bar = Progress(
        BarColumn(bar_width=20), text, console=console, transient=True, redirect_stdout=False
    )
    task = bar.add_task("", total=None)

    def follow() -> None:
        while not done.wait(_STEP_SECONDS):
            work, words = line()
            bar.update(task, completed=work.done, total=work.total or None, description=words)

    before = sys.stderr
    with bar, _logging_to(before, lambda: sys.stderr):
        yield follow


@contextmanager
def _logging_to(before: TextIO, stream: Callable[[], TextIO]) -> Iterator[None]:
    """Have the handlers of the log that write to one stream write to another."""
    handlers = [
        each
        for each in logging.getLogger().handlers
        if isinstance(each, logging.StreamHandler) and each.stream is before
    ]
    for each in handlers:
        each.setStream(stream())
    try:
        yield
    finally:
        for each in handlers:
            each.setStream(before)
