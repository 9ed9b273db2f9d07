"""Pixels tell pictures that are alike from copies of one."""

from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from es_imgsearch.describe.hashes import perceptual_hash
from es_imgsearch.duplicates.hashes import ALL_TURNS, UPRIGHT, Turn, turned_hash
from es_imgsearch.duplicates.pixels import Pixels, looks_photographic, may_be_parts, show_the_same
from es_imgsearch.read.decoding import decode
from tests.support.drawings import FAMILIES, copies, flags, icons, pages

PHOTOGRAPHS = ["chelsea.png", "coffee.png", "coins.png"]
# More than `near` allows: what is decided here must not depend on the hashes.
RADIUS = 16


def opened(content: bytes, suffix: str) -> Image.Image:
    return decode(content, max_pixels=10**8, suffix=suffix).image


def saved(image: Image.Image, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return opened(buffer.getvalue(), ".jpg")


def named(pictures: object, name: str) -> Image.Image:
    return dict(pictures)[name]


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_that_are_alike_are_not_the_same(family: str):
    pictures = [
        (name, Pixels.of(image), int(perceptual_hash(image), 16))
        for name, image in FAMILIES[family]()
    ]
    compared = 0
    for (name, one, one_hash), (other_name, other, other_hash) in combinations(pictures, 2):
        for turn in ALL_TURNS:
            if (turned_hash(one_hash, turn) ^ other_hash).bit_count() <= RADIUS:
                compared += 1
                assert not show_the_same(one, other, turn), (name, other_name, turn.name)
    assert compared > 50


@pytest.mark.parametrize("side", [16, 24, 32, 40])
def test_small_icons_of_another_colour_are_not_the_same(side: int):
    named_pixels = [(name, Pixels.of(image)) for name, image in icons(side)]
    for (name, one), (other_name, other) in combinations(named_pixels, 2):
        assert not show_the_same(one, other), (name, other_name)
    for name, one in named_pixels[::9]:
        copied = Pixels.of(saved(one.coarse, quality=90))
        assert show_the_same(one, copied) or side < 24, name


@pytest.mark.parametrize("family", [*FAMILIES, "photographs"])
def test_a_picture_saved_again_is_the_same(family: str, photographs: Path):
    if family == "photographs":
        pictures = [(n, opened((photographs / n).read_bytes(), ".png")) for n in PHOTOGRAPHS]
    else:
        pictures = list(FAMILIES[family]())[::11]
    for name, image in pictures:
        original = Pixels.of(image)
        for kind, (suffix, make) in copies().items():
            copied = Pixels.of(opened(make(image), suffix))
            assert show_the_same(original, copied), (name, kind)
            assert show_the_same(copied, original), (name, kind)


@pytest.mark.parametrize("turn", ALL_TURNS, ids=lambda turn: turn.name)
def test_photographs_are_found_turned_and_mirrored(photographs: Path, turn: Turn):
    image = opened((photographs / "chelsea.png").read_bytes(), ".png")
    turned = image
    for is_done, method in (
        (turn.transposed, Image.Transpose.TRANSPOSE),
        (turn.mirrored, Image.Transpose.FLIP_LEFT_RIGHT),
        (turn.flipped, Image.Transpose.FLIP_TOP_BOTTOM),
    ):
        turned = turned.transpose(method) if is_done else turned
    one, other = Pixels.of(image), Pixels.of(saved(turned, quality=80))
    assert [each for each in ALL_TURNS if show_the_same(one, other, each)] == [turn]


def test_a_drawing_is_not_its_mirror_image():
    ireland, ivory_coast = named(flags(), "ireland"), named(flags(), "ivory coast")
    # Pixel by pixel it is.
    assert show_the_same(Pixels.of(ImageOps.mirror(ireland)), Pixels.of(ivory_coast))
    assert not show_the_same(Pixels.of(ireland), Pixels.of(ivory_coast), Turn(mirrored=True))
    left, right = named(icons(), "red left"), named(icons(), "red right")
    assert not show_the_same(Pixels.of(left), Pixels.of(ImageOps.mirror(left)), Turn(mirrored=True))
    assert not show_the_same(Pixels.of(left), Pixels.of(right), Turn(mirrored=True, flipped=True))


def test_what_is_a_photograph(photographs: Path):
    assert all(
        looks_photographic(opened((photographs / n).read_bytes(), ".png")) for n in PHOTOGRAPHS
    )
    for family in FAMILIES.values():
        assert not any(looks_photographic(image) for _, image in family())


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_small_change_in_a_photograph_is_another_picture(photographs: Path, name: str):
    image = opened((photographs / name).read_bytes(), ".png")
    one = Pixels.of(image)
    for change in ("mark", "caption", "grey", "brighter", "cropped"):
        other = image.copy()
        draw = ImageDraw.Draw(other)
        if change == "mark":
            draw.ellipse((60, 60, 76, 76), fill=(255, 0, 0))
        elif change == "caption":
            draw.text((20, 20), "Sale", (255, 255, 0), font_size=24)
        elif change == "grey":
            other = image.convert("L").convert("RGB")
            if name == "coins.png":
                continue
        elif change == "brighter":
            other = ImageEnhance.Brightness(image).enhance(1.6)
        else:
            other = image.crop((0, 0, image.width * 8 // 10, image.height))
        assert not show_the_same(one, Pixels.of(other)), change


def test_a_thumbnail_of_a_page_of_text_fits_no_page(photographs: Path):
    """It would fit the pages with other words as well."""
    page = named(pages(), "page 0")
    assert not show_the_same(Pixels.of(page), Pixels.of(page.resize((103, 146))))
    photograph = opened((photographs / "coffee.png").read_bytes(), ".png")
    assert show_the_same(Pixels.of(photograph), Pixels.of(photograph.resize((100, 67))))


@pytest.mark.parametrize("size", [(1, 1), (5, 900), (16, 16), (3000, 2), (17, 33)])
def test_pictures_of_odd_sizes_are_compared(size: tuple[int, int]):
    noise = Image.effect_noise(size, 90).convert("RGB")
    flat = Image.new("RGB", size, (90, 90, 200))
    assert show_the_same(Pixels.of(noise), Pixels.of(noise.copy()))
    assert not show_the_same(Pixels.of(flat), Pixels.of(Image.new("RGB", size, (200, 90, 90))))


def test_sizes_rule_out_copies_unread():
    assert may_be_parts((600, 400), (300, 200), UPRIGHT)
    assert may_be_parts((600, 400), (588, 392), UPRIGHT)
    assert not may_be_parts((600, 400), (400, 600), UPRIGHT)
    assert may_be_parts((600, 400), (400, 600), Turn(transposed=True, mirrored=True))
    assert not may_be_parts((600, 400), (400, 400), UPRIGHT)
    assert may_be_parts((0, 0), (400, 400), UPRIGHT)
