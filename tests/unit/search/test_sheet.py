"""Contact sheets of every kind of hits."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from es_imgsearch.errors import UsageError
from es_imgsearch.search.hits import Hit, Hits
from es_imgsearch.search.sheet import draw_sheet
from tests.support import picture_samples as samples


def hit(path: Path | None, name: str | None = None, **fields: Any) -> Hit:
    name = name or (path.name if path else "a.jpg")
    return Hit(
        image_id=name,
        root="photos",
        relative_path=name,
        score=0.123456,
        relevance=None,
        fields={"image_name": name, **fields},
        path=path,
    )


@pytest.fixture
def original(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(samples.sample("png"))
    return path


def shows(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    """How many pixels have this very colour."""
    same = ImageChops.difference(sheet, Image.new("RGB", sheet.size, colour))
    return same.convert("L").point(lambda value: 255 * (value == 0)).histogram()[255]


def test_hits_are_drawn_from_their_originals(original: Path):
    sheet = draw_sheet([Hits([hit(original)], 1, ["a cat"])])
    one = shows(sheet, samples.RED)
    assert one > 1000
    three = shows(draw_sheet([Hits([hit(original)] * 3, 1, ["a cat"])]), samples.RED)
    assert three == 3 * one


def test_no_hits_make_a_sheet_all_the_same():
    sheet = draw_sheet([Hits([], 1, ["a cat"])])
    assert sheet.size == draw_sheet([Hits([hit(None)], 1, ["a cat"])]).size
    assert draw_sheet([]).width == sheet.width


def test_many_hits_go_on_below(original: Path):
    one, many = (
        draw_sheet([Hits([hit(original)] * count, 1, ["a cat"])], columns=5) for count in (5, 23)
    )
    assert many.width == one.width
    # Five bands for 23 hits.
    assert (many.height - one.height) % 4 == 0
    assert many.height > 4 * one.height


def test_each_search_has_its_band(original: Path):
    rows = [Hits([hit(original)], 1, [query]) for query in ("a", "b", "c")]
    assert draw_sheet(rows).height > 2.5 * draw_sheet(rows[:1]).height
    assert Hits([hit(original)], 1, ["a"]).sheet().size == draw_sheet(rows[:1]).size


def test_a_missing_original_leaves_a_frame(original: Path, tmp_path: Path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    hits = [hit(None), hit(tmp_path / "none.jpg"), hit(broken), hit(tmp_path), hit(original)]
    sheet = draw_sheet([Hits(hits, 1, ["a cat"])])
    assert shows(sheet, samples.RED) > 1000


@pytest.mark.parametrize(
    "name",
    ["x" * 5000 + ".jpg", "日本語" * 200, "two\nlines\r\t.jpg", "\0", " ", "caf\udce9.jpg",
     r"caf\xe9.jpg", "\u202egpj.a", "e\u0301" * 300, "\U0001f600.jpg"],
    ids=lambda name: ascii(name)[:20],
)  # fmt: skip
def test_any_name_can_be_drawn(name: str, original: Path):
    draw_sheet([Hits([hit(original, name)], 1, [name])])


def test_an_undecodable_original_is_shown(tmp_path: Path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    path.write_bytes(samples.sample("png"))
    assert shows(draw_sheet([Hits([hit(path)], 1, ["a"])]), samples.RED) > 1000


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 5000), (3000, 2)])
def test_pictures_of_any_shape_fit_their_cell(size: tuple[int, int], tmp_path: Path):
    path = tmp_path / "a.png"
    Image.new("RGB", size, samples.RED).save(path)
    sheet = draw_sheet([Hits([hit(path)], 1, [path])])
    assert sheet.size == draw_sheet([Hits([hit(None)], 1, ["a"])]).size


@pytest.mark.parametrize(
    "query",
    ["", "a cat", "word " * 200, "x" * 500, "two\nlines", samples.four_corners()],
    ids=lambda query: ascii(query)[:20],
)
def test_any_query_is_drawn(query: Any, original: Path):
    draw_sheet([Hits([hit(original)], 1, [query])])


def test_a_query_picture_is_drawn(original: Path):
    sheet = draw_sheet([Hits([], 1, [original])])
    assert shows(sheet, samples.RED) > 1000
    assert shows(draw_sheet([Hits([], 1, [])]), samples.RED) == 0


def test_a_deleted_query_picture_leaves_the_hits(original: Path, tmp_path: Path):
    sheet = draw_sheet([Hits([hit(original)], 1, [tmp_path / "none.png"])])
    assert shows(sheet, samples.RED) > 1000


def test_words_and_pictures_of_one_query_are_all_shown(original: Path):
    def red(*query: Any) -> int:
        return shows(draw_sheet([Hits([], 1, query)]), samples.RED)

    picture, words = red(original), red("a cat")
    assert words == 0
    assert 0 < red("a cat", original) < picture
    blue = Image.new("RGB", (40, 30), (0, 0, 255))
    both = draw_sheet([Hits([], 1, [original, "a cat", blue])])
    assert shows(both, samples.RED) > 500
    assert shows(both, (0, 0, 255)) > 500
    wordless = draw_sheet([Hits([], 1, [original, blue])])
    assert wordless.size == both.size
    assert ImageChops.difference(wordless, both).getbbox()


def test_a_sheet_of_very_many_hits_shows_the_first_and_says_so(original: Path):
    few, many = (draw_sheet([Hits([hit(original)] * n, 1, ["a"])]) for n in (200, 10_000))
    assert many.size == few.size
    assert ImageChops.difference(few, many).getbbox()


def test_a_sheet_has_columns():
    for columns in (0, -1, 2.5, "5"):
        with pytest.raises(UsageError, match="column"):
            Hits([], 1).sheet(columns)  # type: ignore[arg-type]


# -- what is likely right ---------------------------------------------------------------------


def rated(path: Path, *relevance: float) -> Hits:
    return Hits([replace(hit(path), relevance=each) for each in relevance], 1, ["a cat"])


def line_rows(sheet: Image.Image) -> list[int]:
    """Rows of the sheet whose right end is a line."""
    column = sheet.convert("RGB").crop((sheet.width - 60, 0, sheet.width - 20, sheet.height))
    return [
        y for y in range(sheet.height)
        if set(column.crop((0, y, 40, y + 1)).getdata()) == {(120, 120, 124)}
    ]  # fmt: skip


def test_a_line_stands_below_what_is_likely_right(original: Path):
    plain = draw_sheet([Hits([hit(original)] * 4, 1, ["a cat"])], columns=2)
    both = draw_sheet([rated(original, 0.9, 0.3, 0.1, 0.0)], columns=2)
    # The likely hit has a row of its own, and then there is a line.
    assert both.height > plain.height
    (line,) = line_rows(both)
    assert 200 < line < 300
    all_likely = draw_sheet([rated(original, 0.9, 0.8, 0.7, 0.6)], columns=2)
    assert all_likely.height == plain.height
    assert not line_rows(all_likely)
    (top,) = line_rows(draw_sheet([rated(original, 0.3, 0.2)], columns=2))
    assert top < 40


def test_every_hit_of_two_searches_is_drawn_with_the_line(original: Path):
    one = shows(draw_sheet([Hits([hit(original)], 1, ["x"])]), samples.RED)
    rows = [rated(original, 0.9, 0.8, 0.3, 0.2, 0.1), rated(original, 0.1), rated(original, 0.7)]
    assert shows(draw_sheet(rows, columns=3), samples.RED) == 7 * one


def test_relevance_stands_below_the_picture(original: Path):
    sheets = [draw_sheet([rated(original, each)]) for each in (0.98, 0.97, 0.97)]
    assert ImageChops.difference(sheets[0], sheets[1]).getbbox() is not None
    assert ImageChops.difference(sheets[1], sheets[2]).getbbox() is None
