"""Draw text of all writing systems: each letter in a font that has it.

Fonts are, in this order, Pillow's own (it has the letters of English), those that fontconfig offers
(`fc-match`), and those of the extra `fonts`.  Of a letter that none of them has, the letter without
its accents is drawn, or a question mark; and its script is noted in `Lettering.missing`.
"""

from __future__ import annotations

import shutil
import subprocess
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from importlib.metadata import entry_points
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import ImageDraw, ImageFont

from es_imgsearch.records import composed

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Packages of fonts announce themselves so.
_PACKS = "justmytype.packs"
_FC_MATCH_SECONDS = 20
# Any size will do to see whether there is a glyph.
_PROBE_SIZE = 16
# Never a letter, so every font draws it as it draws letters that it lacks.
_NO_LETTER = "\U0010fffe"
# They join the letters around them.
_JOINERS = "\u200c\u200d"
_REPLACEMENT = "?"


class _Face:
    """A font in all sizes; without a path Pillow's own."""

    def __init__(self, path: str | None = None, index: int = 0) -> None:
        self.path, self._index = path, index
        self._sizes: dict[int, _Font | None] = {}
        self._has: dict[str, bool] = {}

    def font(self, size: int) -> _Font | None:
        """Return the font; None for one that cannot be drawn in any size, such as emoji."""
        if size not in self._sizes:
            self._sizes[size] = self._loaded(size)
        return self._sizes[size]

    def _loaded(self, size: int) -> _Font | None:
        if self.path is None:
            return ImageFont.load_default(size)
        try:
            font = ImageFont.truetype(self.path, size, index=self._index)
        except (OSError, ValueError):
            return None
        with suppress(OSError, ValueError, NotImplementedError):
            # Of a variable font, whose first weight may be a hairline.
            font.set_variation_by_name("Regular")
        return font

    def has(self, letter: str) -> bool:
        """Check that the font has the letter, with its marks."""
        if letter not in self._has:
            self._has[letter] = self._draws(letter)
        return self._has[letter]

    def _draws(self, letter: str) -> bool:
        font = self.font(_PROBE_SIZE)
        if font is None:
            return False
        parts = [each for each in letter if each not in _JOINERS and not each.isspace()]
        return all(self._mask(font, each) not in self._blanks(font) for each in parts)

    def _blanks(self, font: _Font) -> tuple[bytes, bytes]:
        return b"", self._mask(font, _NO_LETTER)

    @staticmethod
    def _mask(font: _Font, letter: str) -> bytes:
        try:
            mask = font.getmask(letter)
        except (OSError, UnicodeError):
            return b""
        shown = bytes(mask)
        return str(mask.size[0]).encode() + b" " + shown if any(shown) else b""


class Lettering:
    """Measure and draw lines of text; `missing` collects the scripts without a font."""

    def __init__(self) -> None:
        self.missing: dict[str, None] = {}
        self._own = _Face()

    @cached_property
    def _faces(self) -> Sequence[_Face]:
        return [self._own, *(_Face(*each) for each in (*_of_fontconfig(), *_of_packs()))]

    def width(self, text: str, size: int) -> float:
        """Measure a line in pixels."""
        return sum(font.getlength(piece) for font, piece in self._runs(text, size))

    def files(self, text: str) -> list[str]:
        """List the files of the fonts that a text needs beside Pillow's own."""
        faces = [] if text.isascii() else self._chosen(list(_letters(printable(text))))
        return list(dict.fromkeys(face.path for face in faces if face is not None and face.path))

    def draw(
        self,
        draw: ImageDraw.ImageDraw,
        at: tuple[float, float],
        text: str,
        size: int,
        fill: tuple[int, int, int],
    ) -> None:
        """Draw a line, its upper left corner at `at`."""
        left, top = at
        direction = "rtl" if _is_right_to_left(text) else "ltr"
        own = self._own.font(size)
        base = top + (own.getmetrics()[0] if isinstance(own, ImageFont.FreeTypeFont) else size)
        for font, piece in self._runs(text, size):
            if isinstance(font, ImageFont.FreeTypeFont):
                # Fonts of other heights stand on the same line.
                draw.text((left, base), piece, fill, font, anchor="ls", **_layout(font, direction))
            else:
                draw.text((left, top), piece, fill=fill, font=font)
            left += font.getlength(piece)

    def _runs(self, text: str, size: int) -> list[tuple[_Font, str]]:
        """Cut a line into pieces of one font each, in the order in which they are drawn."""
        text = printable(text)
        letters = list(_letters(text))
        faces = [self._own] * len(letters) if text.isascii() else self._chosen(letters)
        shown = [
            letter if face is not None else _instead(letter)
            for face, letter in zip(faces, letters, strict=True)
        ]
        pairs = zip((face or self._own for face in faces), shown, strict=True)
        runs: list[tuple[_Font, str]] = []
        for face, group in groupby(pairs, key=lambda pair: pair[0]):
            font = face.font(size) or ImageFont.load_default(size)
            runs.append((font, "".join(letter for _, letter in group)))
        return runs[::-1] if _is_right_to_left(text) else runs

    def _chosen(self, letters: Sequence[str]) -> list[_Face | None]:
        """Choose a font for the line, else for each word, else for each letter."""
        if whole := self._face_of(letters):
            return [whole] * len(letters)
        chosen: list[_Face | None] = []
        for _, group in groupby(letters, key=str.isspace):
            word = list(group)
            if one := self._face_of(word):
                chosen += [one] * len(word)
                continue
            for letter in word:
                chosen.append(face := self._face_of([letter]))
                if face is None:
                    self.missing[script_of(letter)] = None
        return chosen

    def _face_of(self, letters: Sequence[str]) -> _Face | None:
        return next((face for face in self._faces if all(map(face.has, letters))), None)


def _layout(font: ImageFont.FreeTypeFont, direction: str) -> dict[str, Any]:
    """Arguments for a line of this direction; only raqm lays out both."""
    return {"direction": direction} if font.layout_engine == ImageFont.Layout.RAQM else {}


def _instead(letter: str) -> str:
    plain = unicodedata.normalize("NFKD", letter)[0]
    return plain if plain.isascii() else _REPLACEMENT


def printable(text: str) -> str:
    """Compose a text, in one line, with question marks for what is no letter."""
    # Lone surrogates come from names that are not UTF-8.
    text = composed(text.encode("utf-8", errors="replace").decode())
    return "".join(map(_printable, text))


def _printable(letter: str) -> str:
    category = unicodedata.category(letter)
    if category[0] == "Z":
        return " "
    if category == "Cf":
        # Others are signs for machines, such as the direction of what follows.
        return letter if letter in _JOINERS else ""
    return _REPLACEMENT if category[0] == "C" and category != "Co" else letter


def script_of(letter: str) -> str:
    """Name the writing system of a letter, as Unicode's name of it begins."""
    if unicodedata.category(letter[0])[0] in "SP":
        return "symbols"
    first, *_ = unicodedata.name(letter[0], "UNNAMED").split()
    others = {"CJK": "Chinese characters", "FULLWIDTH": "full-width letters", "UNNAMED": "others"}
    return others.get(first, first.title())


def has_packs() -> bool:
    """Check that the extra `fonts` is installed."""
    return any(True for _ in _of_packs())


def _letters(text: str) -> Iterator[str]:
    """Cut a text into letters with their marks, which one font has to draw."""
    letter = ""
    for each in text:
        is_part = each in _JOINERS or unicodedata.category(each)[0] == "M"
        if letter and not is_part and letter[-1] != "\u200d":
            yield letter
            letter = ""
        letter += each
    if letter:
        yield letter


def _is_right_to_left(text: str) -> bool:
    """Return True if the first letter with a direction is of a script from the right."""
    directions = (unicodedata.bidirectional(each) for each in text)
    return next((each for each in directions if each in {"L", "R", "AL"}), "L") != "L"


def _of_fontconfig() -> Iterator[tuple[str, int]]:
    """Yield files and numbers of the installed fonts, the best for plain text first."""
    command = shutil.which("fc-match")
    if command is None:
        return
    try:
        done = subprocess.run(  # noqa: S603 - nothing of it comes from elsewhere
            [command, "-s", "sans", "--format", "%{file}\t%{index}\n"],
            capture_output=True,
            check=True,
            timeout=_FC_MATCH_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return
    for line in done.stdout.decode("utf-8", errors="surrogateescape").splitlines():
        path, _, index = line.partition("\t")
        if index.strip().isdigit():
            yield path, int(index)


def _of_packs() -> Iterator[tuple[str, int]]:
    """Yield the upright fonts of the packages of the extra `fonts`."""
    for pack in sorted(entry_points(group=_PACKS), key=lambda each: each.name, reverse=True):
        spec = find_spec(pack.module)
        if spec is None or spec.origin is None:
            continue
        files = sorted(Path(spec.origin).parent.rglob("*.[ot]tf"))
        # One without serifs looks best among Pillow's own letters.
        files.sort(key=lambda file: not file.name.startswith("NotoSans["))
        yield from ((str(file), 0) for file in files if "Italic" not in file.name)
