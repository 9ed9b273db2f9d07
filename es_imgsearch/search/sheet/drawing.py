"""Draw contact sheets: the query on the left, hits with scores on the right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from PIL import Image, ImageDraw

from es_imgsearch.elastic.queries import check_whole
from es_imgsearch.errors import ImgSearchError, UsageError
from es_imgsearch.search.query import open_query_picture
from es_imgsearch.search.sheet.fonts import Lettering, has_packs, printable

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
_QUERY_SIZE, _NOTE_SIZE = 20, 13
_BELOW = "below: nothing that is likely right"
_NOTHING_FITS = "nothing fits well: none of these is likely right"
MAX_PIXELS = 250_000_000
# 200 hits of one search are a picture of 30 MB in memory; 10,000 would be 1.5 GB.
_MAX_HITS = 200

# Key in `Image.info` of a sheet: the note on letters that no font has.
MISSING_LETTERS = "missing_letters"


class ShownHit(Protocol):
    """The attributes of a hit that are drawn; a `caption` replaces the score."""

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

    A line stands between the hits that are likely right and the others, where that is known.
    Of each search the first 200 hits are shown, and the number of the others.  If no font has
    some letters, a note below names their scripts; it is also `info["missing_letters"]`.
    """
    check_whole("columns", columns)
    if columns < 1:
        raise UsageError(f"columns must be at least 1, not {columns}.")
    line = _CELL + _CAPTION + _GAP
    width = _GAP + _QUERY_WIDTH + _GAP + columns * (_CELL + _GAP)
    breaks = [_Break.of(hits) for hits in rows]
    heights = [each.rows(columns) * line + each.height for each in breaks]
    sheet = Image.new("RGB", (width, _GAP + sum(heights)), _PAPER)
    pen = _Pen(sheet)
    draw = pen.draw
    top = _GAP
    for number, (hits, height, split) in enumerate(zip(rows, heights, breaks, strict=True)):
        if number:
            draw.line((_GAP, top - _GAP // 2, width - _GAP, top - _GAP // 2), fill=_FRAME)
        _draw_query(pen, hits.queries, top)
        left = _GAP + _QUERY_WIDTH + _GAP
        for position, hit in enumerate(hits[:_MAX_HITS]):
            row, column, lower = split.place(position, columns)
            at = left + column * (_CELL + _GAP), top + row * line + lower
            _draw_hit(pen, hit, at)
        if split.words:
            middle = top + split.place(split.position, columns)[0] * line + _LINE // 2 - _GAP // 2
            end = pen.write((left, middle - 8), split.words, _NOTE_SIZE, _FAINT)
            draw.line((end + _GAP, middle, width - _GAP, middle), fill=_FAINT)
        if not hits:
            pen.write((left, top + _CELL // 2), "nothing found", 16, _FAINT)
        if len(hits) > _MAX_HITS:
            words = f"and {len(hits) - _MAX_HITS} more"
            pen.write((_GAP, top + height - _GAP - 16), words, 13, _FAINT)
        top += height
    return _with_note(sheet, pen.letters) if pen.letters.missing else sheet


class _Break(NamedTuple):
    """A line between the hits that are likely right and those that are not.

    It stands before the hit at `position`, which begins a row, if there are `words`.
    """

    position: int
    words: str
    shown: int

    @classmethod
    def of(cls, hits: ShownHits) -> Self:
        """Find the break; without words if relevance is unknown or all is likely."""
        end, shown = getattr(hits, "likely_end", None), min(len(hits), _MAX_HITS)
        if end is None or end >= shown:
            return cls(0, "", shown)
        return cls(end, _BELOW if end else _NOTHING_FITS, shown)

    @property
    def height(self) -> int:
        return _LINE if self.words else 0

    def rows(self, columns: int) -> int:
        """Number of rows of hits, at least one."""
        return max(1, -(-self.position // columns) + -(-(self.shown - self.position) // columns))

    def place(self, position: int, columns: int) -> tuple[int, int, int]:
        """Return row and column of a hit, and how many pixels it is moved down."""
        if position < self.position:
            return *divmod(position, columns), 0
        row, column = divmod(position - self.position, columns)
        return row + -(-self.position // columns), column, self.height


class _Pen:
    """Draws on the sheet, and writes letters of any script."""

    def __init__(self, sheet: Image.Image, letters: Lettering | None = None) -> None:
        self.sheet = sheet
        self.draw = ImageDraw.Draw(sheet)
        self.letters = letters or Lettering()

    def write(self, at: tuple[int, int], text: str, size: int, fill: tuple[int, int, int]) -> int:
        """Write a text; return where it ends, in pixels from the left."""
        self.letters.draw(self.draw, at, text, size, fill)
        return at[0] + round(self.letters.width(text, size))


def missing_letters_note(scripts: Iterable[str]) -> str:
    """Return what a person is told of letters without a font, and what to do."""
    extra = "" if has_packs() else ', or run: pip install "es-imgsearch[fonts]"'
    return (
        f"No font of this machine has these letters: {', '.join(scripts)}. Install one, such as"
        f" those of Debian's packages fonts-noto and fonts-noto-cjk{extra}"
    )


def _with_note(sheet: Image.Image, letters: Lettering) -> Image.Image:
    """Name the scripts that no font has, under the sheet."""
    note = missing_letters_note(letters.missing)
    lines = _wrap(letters, note, _NOTE_SIZE, sheet.width - 2 * _GAP, max_lines=20)
    whole = Image.new("RGB", (sheet.width, sheet.height + _LINE * len(lines)), _PAPER)
    whole.paste(sheet)
    for number, line in enumerate(lines):
        _Pen(whole, letters).write((_GAP, sheet.height + _LINE * number), line, _NOTE_SIZE, _INK)
    whole.info[MISSING_LETTERS] = note
    return whole


def _draw_query(pen: _Pen, queries: Sequence[str | QueryPicture], top: int) -> None:
    """Draw the words, and below them up to three pictures side by side."""
    pictures = [query for query in queries if not isinstance(query, str)][:_QUERY_PICTURES]
    words = " + ".join(query for query in queries if isinstance(query, str))
    if not queries:
        words = "similar pictures"
    most = 2 if pictures else 6
    lines = _wrap(pen.letters, words, _QUERY_SIZE, _QUERY_WIDTH, max_lines=most) if words else []
    height = _LINE * len(lines)
    first = top if pictures else top + (_CELL - height) // 2
    for number, text in enumerate(lines):
        pen.write((_GAP, first + _LINE * number), text, _QUERY_SIZE, _INK)
    if not pictures:
        return
    width = (_QUERY_WIDTH - _GAP * (len(pictures) - 1)) // len(pictures)
    for number, query in enumerate(pictures):
        left, upper = _GAP + number * (width + _GAP), top + height
        try:
            picture = open_query_picture(query, max_pixels=MAX_PIXELS)
            _paste(pen, picture, (left, upper), (width, _CELL - height))
        except ImgSearchError:
            # The file may have been deleted after the search.
            pen.draw.rectangle((left, upper, left + width, top + _CELL), outline=_FRAME)
    pen.write((_GAP, top + _CELL + 4), "query picture", 13, _FAINT)


def _draw_hit(pen: _Pen, hit: ShownHit, at: tuple[int, int]) -> None:
    left, top = at
    try:
        if hit.path is None:
            raise ImgSearchError("on another host")
        _paste(pen, open_query_picture(hit.path, max_pixels=MAX_PIXELS), at, (_CELL, _CELL))
    except ImgSearchError:
        pen.draw.rectangle((left, top, left + _CELL, top + _CELL), outline=_FRAME)
        pen.write((left + 8, top + _CELL // 2), "original not here", 13, _FAINT)
    name = _shorten(pen.letters, printable(hit.image_name), 13, _CELL)
    pen.write((left, top + _CELL + 4), name, 13, _INK)
    percent = getattr(hit, "percent", "")
    figures = f"{hit.score:.3f}  {percent}" if percent else f"{hit.score:.3f}"
    pen.write((left, top + _CELL + 20), getattr(hit, "caption", figures), 13, _FAINT)


def _paste(pen: _Pen, picture: Image.Image, at: tuple[int, int], room: tuple[int, int]) -> None:
    scale = min(room[0] / picture.width, room[1] / picture.height)
    # At least one pixel high, even if the picture is a thousand times as wide as high.
    small = picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    )
    left = at[0] + (room[0] - small.width) // 2
    top = at[1] + (room[1] - small.height) // 2
    pen.sheet.paste(small, (left, top))
    pen.draw.rectangle((left, top, left + small.width - 1, top + small.height - 1), outline=_FRAME)


def _wrap(letters: Lettering, text: str, size: int, width: int, max_lines: int) -> list[str]:
    lines = [""]
    for word in printable(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and letters.width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], f"{lines[max_lines - 1]} …"]
    return [_shorten(letters, line, size, width) for line in lines]


def _shorten(letters: Lettering, text: str, size: int, width: int) -> str:
    # A letter is at least one pixel wide; measuring thousands of letters would take long.
    shown = text[:width]
    if shown == text and letters.width(text, size) <= width:
        return text
    while shown and letters.width(f"{shown}…", size) > width:
        shown = shown[:-1]
    return f"{shown}…"
