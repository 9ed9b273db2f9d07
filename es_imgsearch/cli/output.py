"""Output of the commands: lines, JSON, and a progress bar on standard error."""

from __future__ import annotations

import os
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from es_imgsearch.cli.options import _DIRECTIONS, _NOT_SHOWN
from es_imgsearch.errors import ImgSearchError

if TYPE_CHECKING:
    from es_imgsearch.pipeline.indexer import Indexer


def print_line(text: str) -> None:
    """Print one line of data on standard output."""
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise ImgSearchError(f"Standard output cannot be written: {error.strerror}.") from error


def shown_path(root: str, relative_path: str) -> str:
    """Format the path of a picture so that it fits one line, whatever its name holds.

    Line ends, what terminals take for commands and what turns the direction of writing are written
    as Python writes them; bytes that are no UTF-8 are so already.
    """
    return "".join(
        letter.encode("unicode_escape").decode()
        if letter in _DIRECTIONS or unicodedata.category(letter) in _NOT_SHOWN
        else letter
        for letter in f"{root}/{relative_path}"
    )


@contextmanager
def progress_bar(unit: str, total: int = 0) -> Iterator[Callable[..., None]]:
    """Show how many of how many are done, if standard error is a terminal."""
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


def drop_output() -> None:
    """Discard buffered output, which would fail again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(value: Any) -> None:
    import orjson

    print_line(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


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
