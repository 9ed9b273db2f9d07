"""Pictures in the terminal."""

from __future__ import annotations

import base64
import io
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from es_imgsearch.cli.printing.lines import print_line
from es_imgsearch.errors import ImgSearchError, UsageError
from es_imgsearch.search.query import open_query_picture
from es_imgsearch.search.sheet import MAX_PIXELS

_PREVIEW_PIXELS = 512
_PREVIEW_LINES = 12


def _can_be_asked() -> bool:
    """Whether this terminal knows its size and can answer questions."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    size = os.get_terminal_size(sys.stdout.fileno())
    return size.columns > 0 and size.lines > 0


def check_terminal() -> None:
    """Raise UsageError if standard output is no terminal that shows pictures."""
    if not sys.stdout.isatty() or os.environ.get("TERM") in {None, "dumb"}:
        raise UsageError(
            "--preview draws in a terminal, and standard output is none that can: leave it out, or"
            " write a --sheet."
        )


def preview() -> Callable[[Path], None]:
    """Return the function that draws a picture in this terminal.

    iTerm2's own protocol, the graphics protocol of kitty or sixel where the terminal has one, else
    coloured half blocks.
    """
    # It warns, with a traceback, of each question that the terminal leaves unanswered.
    logging.getLogger("textual_image").setLevel(logging.ERROR)
    if not _can_be_asked():
        # It asks sys.__stdout__ if that is a terminal, and fails without a size or an input.
        sys.__stdout__ = io.TextIOWrapper(io.BytesIO())  # type: ignore[misc]
    from textual_image.renderable import HalfcellImage, Image, UnicodeImage

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
