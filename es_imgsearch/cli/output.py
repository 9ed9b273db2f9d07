"""Output of the commands: lines, JSON, hits, and a progress bar on standard error."""

from __future__ import annotations

import os
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import click

from es_imgsearch.errors import ImgSearchError, UsageError

if TYPE_CHECKING:
    from tqdm import tqdm

    from es_imgsearch.pipeline.indexer import Indexer
    from es_imgsearch.pipeline.jobs import RootComparison
    from es_imgsearch.search.hits import Hits

# Unicode categories to escape.  `str.isprintable` would also escape U+202F of macOS, U+3000 of
# Japanese and U+200D of emoji.
_ESCAPED_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
# Bidi_Control of Unicode: they show a name in another order than it is written.
_BIDI_CONTROLS = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
_STEP_SECONDS = 0.2
_PREVIEW_PIXELS = 512
_PREVIEW_LINES = 12


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
    """Format the path of a picture in one line.

    Line ends, control characters and bidirectional controls are written as Python escapes; bytes
    that are no UTF-8 are escaped already.
    """
    return _escaped(f"{root}/{relative_path}")


def _escaped(text: str) -> str:
    return "".join(
        letter.encode("unicode_escape").decode()
        if letter in _BIDI_CONTROLS or unicodedata.category(letter) in _ESCAPED_CATEGORIES
        else letter
        for letter in text
    )


Format: TypeAlias = Literal["lines", "json", "json_hits", "paths", "print0"]


@dataclass(frozen=True, slots=True)
class HitsOutput:
    """How the hits of a search are printed, see `options.with_output_options`."""

    format: Format = "lines"
    ids: bool = False
    preview: bool = False
    sheet: Path | None = None
    open_it: bool = False

    def show(self, hits: Hits) -> None:
        """Print hits on standard output, remarks for a person on standard error."""
        if self.preview and self.format != "lines":
            raise UsageError("--preview shows pictures between lines: leave the other format out.")
        if self.format == "json":
            print_json(hits.to_dict())
        elif self.format == "json_hits":
            print_json([hit.to_dict() for hit in hits])
        elif self.format == "lines":
            self._print_lines(hits)
        else:
            _print_paths(hits, b"\0" if self.format == "print0" else b"\n")
        for note in hits.notes:
            click.echo(note, err=True)
        for name, counts in hits.facets.items():
            shown = ", ".join(f"{value} ({count})" for value, count in counts.items())
            click.echo(f"{name}: {shown or 'none'}", err=True)
        if self.sheet is not None:
            self._write_sheet(hits, self.sheet)
        if self.open_it and (self.sheet or hits):
            _open_viewer(self.sheet or hits[0].path)

    def _print_lines(self, hits: Hits) -> None:
        show_picture = _terminal_pictures() if self.preview else None
        for hit in hits:
            place = shown_path(hit.root, hit.relative_path)
            if hit.path is not None:
                place = _escaped(os.fsencode(hit.path).decode("utf-8", "backslashreplace"))
            box = "" if hit.matched_box is None else f"  {list(hit.matched_box)}"
            percent = "" if hits.relevant is None else f"{_percent(hit.relevance):>6}"
            number = f"  {hit.image_id}" if self.ids else ""
            print_line(f"{hit.score:6.3f}{percent}{number}  {place}{box}")
            if hit.explanation is not None:
                print_line(f"        {_explained(hit.explanation)}")
            if show_picture is not None and hit.path is not None:
                show_picture(hit.path)
        if not hits:
            click.echo("Nothing found.", err=True)
        elif hits.relevant == 0:
            click.echo("Nothing fits well: none of these is likely right.", err=True)

    @staticmethod
    def _write_sheet(hits: Hits, sheet: Path) -> None:
        drawn = hits.sheet()
        try:
            drawn.save(sheet)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or f"{error}; end its name in .png"
            raise UsageError(f"The sheet {str(sheet)!r} cannot be written: {why}.") from error
        from es_imgsearch.search.sheet import MISSING_LETTERS

        if note := drawn.info.get(MISSING_LETTERS):
            click.echo(note, err=True)
        click.echo(f"Wrote {sheet}.", err=True)


def _percent(relevance: float | None) -> str:
    return "" if relevance is None else f"{relevance:.0%}"


def _print_paths(hits: Hits, end: bytes) -> None:
    """Print the paths, as bytes: a name need not be UTF-8."""
    elsewhere = 0
    for hit in hits:
        if hit.path is None:
            elsewhere += 1
        else:
            click.echo(os.fsencode(hit.path) + end, nl=False)
    if elsewhere:
        are = "1 hit is" if elsewhere == 1 else f"{elsewhere} hits are"
        click.echo(f"{are} on another host and left out.", err=True)


def _open_viewer(path: Path | None) -> None:
    if path is None:
        raise ImgSearchError("The best hit is on another host, so it cannot be opened here.")
    try:
        failed = click.launch(os.fspath(path))
    except OSError:
        failed = 1
    if failed:
        raise ImgSearchError(
            f"No program opened {os.fspath(path)!r}: install xdg-utils and a viewer for pictures."
        )


def _terminal_pictures() -> Callable[[Path], None]:
    """Return the function that draws a picture in this terminal.

    iTerm2's own protocol, the graphics protocol of kitty or sixel where the terminal has one, else
    coloured half blocks.
    """
    import base64
    import io

    from rich.console import Console
    from textual_image.renderable import HalfcellImage, Image, UnicodeImage

    from es_imgsearch.search.query import open_query_picture
    from es_imgsearch.search.sheet import MAX_PIXELS

    drawn = HalfcellImage if Image is UnicodeImage else Image
    console = Console()

    def draw(path: Path) -> None:
        try:
            picture = open_query_picture(path, max_pixels=MAX_PIXELS)
        except ImgSearchError as error:
            print_line(f"        {error}")
            return
        picture.thumbnail((_PREVIEW_PIXELS, _PREVIEW_PIXELS))
        if os.environ.get("TERM_PROGRAM") == "iTerm.app":
            # https://iterm2.com/documentation-images.html
            content = io.BytesIO()
            picture.save(content, "PNG")
            encoded = base64.b64encode(content.getvalue()).decode()
            print_line(f"\033]1337;File=inline=1;height={_PREVIEW_LINES}:{encoded}\a")
        else:
            console.print(drawn(picture, height=_PREVIEW_LINES, width="auto"))

    return draw


def _explained(explanation: Any) -> str:
    """Format one line: shares that add up to the score, then the cosine of each query."""
    words = [
        f"{name} {part['cosine']:.3f} x {part['weight']:.2f} = {part['share']:.3f}"
        for name, part in explanation.get("parts", {}).items()
    ]
    words += [
        f"{name} rank {rank or 'none'}: {explanation['shares'][name]:.4f}"
        for name, rank in explanation.get("ranks", {}).items()
    ]
    if explanation.get("bm25") is not None:
        words.append(f"BM25 {explanation['bm25']:.2f}")
    words += [f"{each['query']!r}: {each['cosine']:.3f}" for each in explanation.get("queries", ())]
    return "; ".join(words)


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


def left_out_line(left_out: Mapping[str, int], by_pattern: Mapping[str, int]) -> str:
    """Describe what a comparison left out, by reason; "" for nothing."""
    words = {
        "pattern": "by --exclude",
        "usual": "by the usual excludes",
        "library": "libraries of programs (--exclude '!*.photoslibrary' takes the originals of"
        " Apple Photos in)",
        "link to a folder": "links to folders (--follow-links follows them)",
        "link to a folder that is watched anyway": "links to folders that are watched anyway",
        "link to nothing": "links to nothing",
        "no file": "devices, pipes or sockets",
        "no picture": "no pictures",
    }
    parts = [f"{left_out[each]} {words.get(each, each)}" for each in sorted(left_out)]
    if by_pattern:
        patterns = ", ".join(f"{pattern!r} {number}" for pattern, number in by_pattern.items())
        parts.append(f"of the patterns {patterns}")
    return "; ".join(parts)


def print_left_out(comparisons: Mapping[str, RootComparison]) -> None:
    """Print on standard error what was left out of each root."""
    for name, each in comparisons.items():
        if line := left_out_line(each.left_out, each.left_out_by):
            click.echo(f"Left out of {name!r}: {line}.", err=True)


def drop_output() -> None:
    """Discard buffered output, which would fail again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(value: Any) -> None:
    import orjson

    print_line(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


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
