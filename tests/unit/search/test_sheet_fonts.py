"""Letters of all writing systems on contact sheets: drawn, or named below; never boxes."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageDraw

from es_imgsearch.cli.printing.hits import HitsOutput
from es_imgsearch.search.hits import Hits
from es_imgsearch.search.sheet import MISSING_LETTERS, draw_sheet, fonts
from es_imgsearch.search.sheet.fonts import Lettering, _Face, printable, script_of
from tests.unit.search.test_sheet import hit

needs_packs = pytest.mark.skipif(
    find_spec("justmytype_intl_cjk") is None, reason="needs the extra fonts"
)

WORDS = {
    "Latin": "Café Nguyễn Żółw",
    "Greek": "Οδυσσεύς",
    "Cyrillic": "Йод",
    "Hangul": "한국",
    "Katakana": "ガラス",
    "Chinese characters": "東京",
    "Arabic": "آثار",
    "Hebrew": "שָׁלוֹם",
    "Devanagari": "हिन्दी",
    "Bengali": "বাংলা",
    "Tamil": "தமிழ்",
    "Telugu": "తెలుగు",
    "Thai": "ที่รัก",
    "Lao": "ລາວ",
    "Khmer": "ខ្មែរ",
    "Myanmar": "မြန်မာ",
    "Ethiopic": "አማርኛ",
}


@pytest.fixture
def without_fontconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A PATH on which there is no fc-match."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def without_fonts(without_fontconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "entry_points", lambda group: [])


def pieces(lettering: Lettering, text: str) -> list[str]:
    return [piece for _, piece in lettering._runs(text, 13)]


@pytest.mark.usefixtures("without_fonts")
@pytest.mark.parametrize("script", WORDS)
def test_without_a_font_the_script_is_named_under_the_sheet(script: str):
    plain = draw_sheet([Hits([hit(None, "a.jpg")], 1, ["cat"])])
    for hits in (Hits([hit(None, f"{WORDS[script]}.jpg")], 1, ["cat"]),
                 Hits([hit(None, "a.jpg")], 1, [WORDS[script]])):  # fmt: skip
        sheet = draw_sheet([hits])
        assert sheet.height > plain.height
        assert script in sheet.info[MISSING_LETTERS]
        assert 'pip install "es-imgsearch[fonts]"' in sheet.info[MISSING_LETTERS]
    assert MISSING_LETTERS not in plain.info


@pytest.mark.usefixtures("without_fonts")
def test_without_a_font_no_box_is_drawn():
    assert pieces(Lettering(), "Café ガ.jpg") == ["Cafe ?.jpg"]
    assert pieces(Lettering(), "ที่รัก") == ["???"]


@needs_packs
@pytest.mark.usefixtures("without_fontconfig")
def test_the_extra_has_fonts_for_the_scripts():
    ttf = pytest.importorskip("fontTools.ttLib")
    lettering = Lettering()
    known: dict[str, set[int]] = {}
    for words in (*WORDS.values(), " ".join(WORDS.values())):
        for font, piece in lettering._runs(words, 13):
            if isinstance(font.path, str):
                if font.path not in known:
                    known[font.path] = set(ttf.TTFont(font.path).getBestCmap())
                assert {ord(each) for each in piece if each != " "} <= known[font.path]
    assert len(known) >= 10
    assert lettering.missing == {}
    sheet = draw_sheet([Hits([hit(None, f"{each}.jpg") for each in WORDS.values()], 1, ["cat"])])
    assert MISSING_LETTERS not in sheet.info


@needs_packs
def test_fonts_of_fontconfig_come_first(without_fontconfig: Path):
    package = Path(find_spec("justmytype_intl_sea").origin).parent  # type: ignore[union-attr]
    (thai,) = package.rglob("NotoSansThai*.ttf")
    (own,) = (without_fontconfig / "own.ttf",)
    own.symlink_to(thai)
    command = without_fontconfig / "fc-match"
    command.write_text(f"#!/bin/sh\nprintf '%s\\t0\\n' '{own}' /nowhere.ttf 'no number'\n")
    command.chmod(0o755)
    ((font, piece),) = Lettering()._runs(WORDS["Thai"], 13)
    assert (font.path, piece) == (str(own), WORDS["Thai"])


@pytest.mark.parametrize("script", ["exit 1", "printf 'nonsense'", "printf '\\377\\t0\\n'"])
@pytest.mark.usefixtures("without_fonts")
def test_a_failing_fontconfig_is_no_error(without_fontconfig: Path, script: str):
    (without_fontconfig / "fc-match").write_text(f"#!/bin/sh\n{script}\n")
    os.chmod(without_fontconfig / "fc-match", 0o755)
    assert pieces(Lettering(), "ガ") == ["?"]


def test_english_asks_for_no_font(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fonts.shutil, "which", lambda _: pytest.fail("asked"))
    draw_sheet([Hits([hit(None, "IMG 1.jpg")], 1, ["a cat"])])


@needs_packs
@pytest.mark.usefixtures("without_fontconfig")
def test_each_word_of_a_line_has_its_font_and_the_order_of_its_script():
    text = "IMG 東京 Café آثار"
    assert "".join(pieces(Lettering(), text)) == text
    # From the right: the first word is drawn last.
    assert pieces(Lettering(), "آثار 東京")[-1].startswith("آثار")
    drawn = []
    for each in (text, "IMG 東京 Cafe آثار"):
        image = Image.new("L", (400, 40), 255)
        Lettering().draw(ImageDraw.Draw(image), (2, 2), each, 20, 0)  # type: ignore[arg-type]
        drawn.append(image)
    assert ImageChops.difference(*drawn).getbbox()


@pytest.mark.parametrize(
    ("text", "shown"),
    [("e\u0301", "é"), ("caf\udce9", "caf?"), ("a\nb\t\0", "a?b??"), ("a\u3000b\u00a0c", "a b c"),
     ("\u202ea\u200eb", "ab"), ("می\u200cخواهم", "می\u200cخواهم"), ("\u2028", " ")],
)  # fmt: skip
def test_only_letters_are_drawn(text: str, shown: str):
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("letter", "script"),
    [("ガ", "Katakana"), ("漢", "Chinese characters"), ("😀", "symbols"), ("…", "symbols"),
     ("\ue000", "others"), ("Ａ", "full-width letters"), ("é", "Latin")],
)  # fmt: skip
def test_scripts_have_their_names(letter: str, script: str):
    assert script_of(letter) == script


def test_a_font_knows_what_it_lacks():
    own = _Face()
    assert own.has("a")
    assert own.has(" ")
    assert not own.has("漢")
    assert not _Face("/nowhere.ttf").has("a")


def test_a_glyph_may_be_wide():
    """One of more than 255 pixels ended the sheet with a ValueError."""
    font = _Face().font(600)
    assert font is not None
    assert font.getmask("W").size[0] > 255
    assert _Face._mask(font, "W") != _Face._mask(font, "M")


@pytest.mark.usefixtures("without_fonts")
def test_the_command_line_names_the_script_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = HitsOutput(sheet=tmp_path / "sheet.png")
    output.show(Hits([hit(None, "ที่รัก.jpg")], 1, ["cat"]))
    said = capsys.readouterr().err
    assert "No font of this machine has these letters: Thai." in said
    assert (tmp_path / "sheet.png").stat().st_size > 1000
