"""Show hits in a notebook: a row of thumbnails with names and scores."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

from es_imgsearch.errors import ImgSearchError
from es_imgsearch.search.query import open_query_picture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from es_imgsearch.search.sheet import ShownHit


# A notebook keeps its outputs: 24 pictures of at most 160 pixels are about 150 kB of HTML, and
# decoding them takes about a second.
_MAX_HITS = 24
_SIDE_PIXELS = 160
_QUALITY = 70
# Decoding larger originals takes seconds each.
_MAX_PIXELS = 100_000_000

_CELL = "display:inline-block;width:170px;margin:4px;vertical-align:top;font-size:11px"
_FRAME = (
    f"width:{_SIDE_PIXELS}px;height:{_SIDE_PIXELS}px;display:flex;align-items:center;"
    "justify-content:center;background:#8881"
)
_NAME = "overflow:hidden;text-overflow:ellipsis;white-space:nowrap"


def hits_html(hits: Sequence[ShownHit]) -> str:
    """Build self-contained HTML; the thumbnails are JPEGs in data URLs."""
    shown = hits[:_MAX_HITS]
    rest = f"<div>and {len(hits) - len(shown)} more</div>" if len(hits) > len(shown) else ""
    return f"<div>{''.join(map(_cell, shown))}{rest}</div>" if shown else "<div>nothing found</div>"


def _cell(hit: ShownHit) -> str:
    # Lone surrogates of names that are not UTF-8 cannot be encoded.
    title = escape(f"{hit.root}/{hit.relative_path}".encode(errors="replace").decode())
    name = escape(hit.image_name.encode(errors="replace").decode())
    url = None if hit.path is None else _thumbnail_url(hit.path)
    picture = (
        "original not here"
        if url is None
        else f'<img src="{url}" alt="{name}" style="max-width:100%;max-height:100%">'
    )
    percent = getattr(hit, "percent", "")
    return (
        f'<div style="{_CELL}" title="{title}"><div style="{_FRAME}">{picture}</div>'
        f'<div style="{_NAME}">{name}</div>{hit.score:.3f}{percent and f" · {percent}"}</div>'
    )


def _thumbnail_url(path: Path) -> str | None:
    try:
        picture = open_query_picture(path, max_pixels=_MAX_PIXELS)
    except ImgSearchError:
        return None
    picture.thumbnail((_SIDE_PIXELS, _SIDE_PIXELS))
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{b64encode(stream.getvalue()).decode()}"
