"""Contact sheets of every kind of hits."""

from __future__ import annotations

import os
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


def test_an_original_that_is_not_here_leaves_a_frame(original: Path, tmp_path: Path):
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
def test_any_query_is_drawn_beside_its_hits(query: Any, original: Path):
    draw_sheet([Hits([hit(original)], 1, [query])])


def test_a_query_picture_is_drawn(original: Path):
    sheet = draw_sheet([Hits([], 1, [original])])
    assert shows(sheet, samples.RED) > 1000
    assert shows(draw_sheet([Hits([], 1, [])]), samples.RED) == 0


def test_a_query_picture_that_is_gone_costs_itself_only(original: Path, tmp_path: Path):
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
