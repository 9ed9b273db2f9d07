"""Pictures in the terminal."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from textual_image.renderable import HalfcellImage, Image, UnicodeImage

from es_imgsearch.cli.printing.lines import print_line
from es_imgsearch.errors import ImgSearchError
from es_imgsearch.search.query import open_query_picture
from es_imgsearch.search.sheet import MAX_PIXELS

_PREVIEW_PIXELS = 512
_PREVIEW_LINES = 12


def preview() -> Callable[[Path], None]:
    """Return the function that draws a picture in this terminal.

    iTerm2's own protocol, the graphics protocol of kitty or sixel where the terminal has one, else
    coloured half blocks.
    """
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
