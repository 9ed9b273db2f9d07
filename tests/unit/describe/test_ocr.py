"""Writing in pictures is read; needs the extra `ocr`, which the development environment has."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from es_imgsearch.describe import ocr as text_in_image
from es_imgsearch.describe.ocr import TextInImage
from es_imgsearch.describe.registry import chosen_describers, load_describers, mapped_describers
from es_imgsearch.errors import SettingsError
from tests.support.text_samples import chinese, written_on


@pytest.fixture(scope="module")
def describer() -> TextInImage:
    return TextInImage()


def read(describer: TextInImage, image: Image.Image) -> str:
    return str(describer.describe(image, Image.Exif(), "a.jpg").get("text_in_image", ""))


def test_latin_letters_and_digits_are_read_off_a_photograph(describer, photographs: Path):
    with Image.open(photographs / "coffee.png") as opened:
        assert read(describer, opened.convert("RGB")) == ""
        assert "Quixotic 1605" in read(describer, written_on(opened, "Quixotic 1605"))


def test_chinese_is_read(describer):
    assert "王中山田" in read(describer, chinese())


def test_a_page_is_read_in_its_order(describer, photographs: Path):
    with Image.open(photographs / "page.png") as opened:
        lines = read(describer, opened.convert("RGB")).splitlines()
    assert lines[0] == "Region-based segmentation"
    assert "markers of the coins" in lines[1]


def test_when_time_is_up_what_was_read_is_kept(
    describer, photographs: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(text_in_image, "_LINES_AT_ONCE", 1)
    times = iter([0.0, 1.0, *[100.0] * 50])
    monkeypatch.setattr(text_in_image.time, "process_time", lambda: next(times))
    with Image.open(photographs / "page.png") as opened:
        assert len(read(describer, opened.convert("RGB")).splitlines()) == 1


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (20, 20)])
def test_pictures_of_any_shape_have_no_text_and_no_error(describer, size: tuple[int, int]):
    assert read(describer, Image.new("RGB", size, "white")) == ""


def test_without_its_packages_it_is_left_out_unless_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_in_image, "find_spec", lambda name: None)
    assert "text_in_image" not in [each.name for each in chosen_describers()]
    with pytest.raises(SettingsError, match=r"pip install 'es-imgsearch\[ocr\]'"):
        chosen_describers(["text_in_image"])


def test_it_runs_on_request_or_where_the_index_holds_text():
    mapped = {name: {} for each in load_describers() for name in each.mapping}

    def names(*selection: str, holds: bool = False) -> list[str]:
        return mapped_describers(mapped, "photos", selection, lambda _fields: holds)

    assert "text_in_image" not in names()
    assert "exif" in names("+text_in_image")
    assert "text_in_image" in names("+text_in_image")
    assert "text_in_image" in names("-layout", "+text_in_image")
    assert names("text_in_image") == ["text_in_image"]
    assert names("exif", "+text_in_image") == ["exif", "text_in_image"]
    assert "text_in_image" in names(holds=True)
    assert "text_in_image" in names("-layout", holds=True)
    assert "text_in_image" not in names("-text_in_image", holds=True)
    assert names("exif", holds=True) == ["exif"]
    with pytest.raises(SettingsError, match="no describer 'text'"):
        names("+text")
