"""Draw contact sheets: the query on the left, hits with scores on the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from PIL import Image, ImageDraw, ImageFont

from es_imgsearch.elastic.queries import check_whole
from es_imgsearch.errors import ImgSearchError, UsageError
from es_imgsearch.search.query import open_query_picture

if TYPE_CHECKING:
    from es_imgsearch.search.query import QueryPicture


_CELL = 180
_CAPTION = 40
_GAP = 12
_QUERY_WIDTH = 220
_QUERY_PICTURES = 3
_LINE = 26
_PAPER = (250, 250, 248)
_INK = (28, 28, 30)
_FAINT = (120, 120, 124)
_FRAME = (214, 214, 210)
_MAX_PIXELS = 250_000_000
# 200 hits of one search are a picture of 30 MB in memory; 10,000 would be 1.5 GB.
_MAX_HITS = 200

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class ShownHit(Protocol):
    """The attributes of a hit that are drawn."""

    @property
    def path(self) -> Path | None: ...
    @property
    def image_name(self) -> str: ...
    @property
    def root(self) -> str: ...
    @property
    def relative_path(self) -> str: ...
    @property
    def score(self) -> float: ...


class ShownHits(Protocol):
    """The attributes of a search that are drawn."""

    @property
    def queries(self) -> Sequence[str | QueryPicture]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, position: slice, /) -> Sequence[ShownHit]: ...


def draw_sheet(rows: Sequence[ShownHits], columns: int = 5) -> Image.Image:
    """Draw one band a search, with as many rows of hits as `columns` requires.

    Of each search the first 200 hits are shown, and the number of the others.
    """
    check_whole("columns", columns)
    if columns < 1:
        raise UsageError(f"columns must be at least 1, not {columns}.")
    bands = [max(1, -(-min(len(hits), _MAX_HITS) // columns)) for hits in rows]
    line = _CELL + _CAPTION + _GAP
    width = _GAP + _QUERY_WIDTH + _GAP + columns * (_CELL + _GAP)
    sheet = Image.new("RGB", (width, _GAP + sum(bands) * line), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _GAP
    for number, (hits, lines) in enumerate(zip(rows, bands, strict=True)):
        if number:
            draw.line((_GAP, top - _GAP // 2, width - _GAP, top - _GAP // 2), fill=_FRAME)
        _draw_query(sheet, draw, hits.queries, top)
        for position, hit in enumerate(hits[:_MAX_HITS]):
            row, column = divmod(position, columns)
            left = _GAP + _QUERY_WIDTH + _GAP + column * (_CELL + _GAP)
            _draw_hit(sheet, draw, hit, (left, top + row * line))
        if not hits:
            left = _GAP + _QUERY_WIDTH + _GAP
            draw.text((left, top + _CELL // 2), "nothing found", fill=_FAINT, font=_font(16))
        if len(hits) > _MAX_HITS:
            words = f"and {len(hits) - _MAX_HITS} more"
            draw.text((_GAP, top + lines * line - _GAP - 16), words, fill=_FAINT, font=_font(13))
        top += lines * line
    return sheet


def _draw_query(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, queries: Sequence[str | QueryPicture], top: int
) -> None:
    """Draw the words, and below them up to three pictures side by side."""
    pictures = [query for query in queries if not isinstance(query, str)][:_QUERY_PICTURES]
    words = " + ".join(query for query in queries if isinstance(query, str))
    if not queries:
        words = "similar pictures"
    font = _font(20)
    lines = _wrap(draw, words, font, _QUERY_WIDTH, max_lines=2 if pictures else 6) if words else []
    height = _LINE * len(lines)
    first = top if pictures else top + (_CELL - height) // 2
    for number, text in enumerate(lines):
        draw.text((_GAP, first + _LINE * number), text, fill=_INK, font=font)
    if not pictures:
        return
    width = (_QUERY_WIDTH - _GAP * (len(pictures) - 1)) // len(pictures)
    for number, query in enumerate(pictures):
        left, upper = _GAP + number * (width + _GAP), top + height
        try:
            picture = open_query_picture(query, max_pixels=_MAX_PIXELS)
            _paste(sheet, draw, picture, (left, upper), (width, _CELL - height))
        except ImgSearchError:
            # The file may have been deleted after the search.
            draw.rectangle((left, upper, left + width, top + _CELL), outline=_FRAME)
    draw.text((_GAP, top + _CELL + 4), "query picture", fill=_FAINT, font=_font(13))


def _draw_hit(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, hit: ShownHit, at: tuple[int, int]
) -> None:
    left, top = at
    try:
        if hit.path is None:
            raise ImgSearchError("on another host")
        _paste(
            sheet, draw, open_query_picture(hit.path, max_pixels=_MAX_PIXELS), at, (_CELL, _CELL)
        )
    except ImgSearchError:
        draw.rectangle((left, top, left + _CELL, top + _CELL), outline=_FRAME)
        draw.text((left + 8, top + _CELL // 2), "original not here", fill=_FAINT, font=_font(13))
    name = _shorten(draw, hit.image_name, _font(13), _CELL)
    draw.text((left, top + _CELL + 4), name, fill=_INK, font=_font(13))
    draw.text((left, top + _CELL + 20), f"{hit.score:.3f}", fill=_FAINT, font=_font(13))


def _paste(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    picture: Image.Image,
    at: tuple[int, int],
    room: tuple[int, int],
) -> None:
    scale = min(room[0] / picture.width, room[1] / picture.height)
    # At least one pixel high, even if the picture is a thousand times as wide as high.
    small = picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    )
    left = at[0] + (room[0] - small.width) // 2
    top = at[1] + (room[1] - small.height) // 2
    sheet.paste(small, (left, top))
    draw.rectangle((left, top, left + small.width - 1, top + small.height - 1), outline=_FRAME)


def _font(size: int) -> _Font:
    return ImageFont.load_default(size)


def _wrap(
    draw: ImageDraw.ImageDraw, text: str, font: _Font, width: int, max_lines: int
) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font=font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], f"{lines[max_lines - 1]} …"]
    return [_shorten(draw, line, font, width) for line in lines]


def _shorten(draw: ImageDraw.ImageDraw, text: str, font: _Font, width: int) -> str:
    # Lone surrogates (names that are not UTF-8) cannot be drawn, nor can line breaks.
    text = text.encode("utf-8", errors="replace").decode()
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    if len(text) <= width and draw.textlength(text, font=font) <= width:
        return text
    # A letter is at least one pixel wide; measuring thousands of letters would take long.
    text = text[:width]
    while text and draw.textlength(f"{text}…", font=font) > width:
        text = text[:-1]
    return f"{text}…"
