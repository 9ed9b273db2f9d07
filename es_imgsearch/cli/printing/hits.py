"""Hits as lines, JSON, paths, pictures or a contact sheet."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen, TimeoutExpired
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import click

from es_imgsearch.cli.printing.lines import print_json, print_line, shown_file
from es_imgsearch.cli.printing.sheets import check_sheet, write_sheet
from es_imgsearch.errors import ImgSearchError, UsageError, counted

if TYPE_CHECKING:
    from es_imgsearch.search.hits import Hits

# A remark for a person, so it stands on standard error; in a terminal it is in its place.
BELOW_LINE = "--- below this line nothing is likely right ---"

Format: TypeAlias = Literal["lines", "json", "json_hits", "paths", "print0"]

_OPENS_WITHIN_SECONDS = 3


@dataclass(frozen=True, slots=True)
class HitsOutput:
    """How the hits of a search are printed, see `options.with_output_options`."""

    format: Format = "lines"
    ids: bool = False
    preview: bool = False
    sheet: Path | None = None
    open_it: bool = False

    def check(self) -> None:
        """Raise UsageError for what cannot be shown, before anything is searched."""
        if self.preview and self.format != "lines":
            raise UsageError("--preview shows pictures between lines: leave the other format out.")
        if self.preview:
            from es_imgsearch.cli.printing.preview import check_terminal

            check_terminal()
        if self.sheet is not None:
            check_sheet(self.sheet)

    def show(self, hits: Hits) -> None:
        """Print hits on standard output, remarks for a person on standard error."""
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
            write_sheet(hits.sheet(), self.sheet)
        if self.open_it and (self.sheet or hits):
            _open_viewer(self.sheet or hits[0].path)

    def _print_lines(self, hits: Hits) -> None:
        show_picture = None
        if self.preview:
            from es_imgsearch.cli.printing.preview import preview

            show_picture = preview()
        end = hits.likely_end
        for position, hit in enumerate(hits):
            if position == end and end:
                click.echo(f"  {BELOW_LINE}", err=True)
            place = shown_file(hit.path, hit.root, hit.relative_path)
            box = "" if hit.matched_box is None else f"  {list(hit.matched_box)}"
            percent = "" if end is None else f"{hit.percent:>6}"
            number = f"  {hit.image_id}" if self.ids else ""
            print_line(f"{hit.score:6.3f}{percent}{number}  {place}{box}")
            if hit.explanation is not None:
                print_line(f"        {_explained(hit.explanation)}")
            if show_picture is not None and hit.path is not None:
                show_picture(hit.path)
        if not hits:
            click.echo("Nothing found.", err=True)


def _print_paths(hits: Hits, end: bytes) -> None:
    """Print the paths, as bytes: a name need not be UTF-8."""
    elsewhere = 0
    for hit in hits:
        if hit.path is None:
            elsewhere += 1
        else:
            click.echo(os.fsencode(hit.path) + end, nl=False)
    if elsewhere:
        are = counted(elsewhere, "hit is", "hits are")
        click.echo(f"{are} on another host and left out.", err=True)


def _open_viewer(path: Path | None) -> None:
    if path is None:
        raise ImgSearchError("The best hit is on another host, so it cannot be opened here.")
    if _launch(path):
        raise ImgSearchError(
            f"No program opened {os.fspath(path)!r}: install xdg-utils and a viewer for pictures."
        )


def _launch(path: Path) -> int:
    """Open the viewer; return a number other than 0 if there is none."""
    if sys.platform != "linux":
        return click.launch(os.fspath(path))
    try:
        opener = Popen(  # noqa: S603 - no shell
            ["xdg-open", os.fspath(path)],  # noqa: S607 - wherever the system has it
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
            start_new_session=True,
        )
        return opener.wait(_OPENS_WITHIN_SECONDS)
    except TimeoutExpired:
        # It ends at once if it finds no viewer, and may stay as long as the viewer does.
        return 0
    except OSError:
        return 1


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
    others = explanation.get("shares", {}).keys() - explanation.get("ranks", {}).keys()
    words += [f"{name}: {explanation['shares'][name]:.4f}" for name in sorted(others)]
    if explanation.get("bm25") is not None:
        words.append(f"BM25 {explanation['bm25']:.2f}")
    words += [f"{each['query']!r}: {each['cosine']:.3f}" for each in explanation.get("queries", ())]
    return "; ".join(words)
