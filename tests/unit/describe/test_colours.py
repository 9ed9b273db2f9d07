"""Colours: named as people name them, of pictures whose colours are known."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.color
from matplotlib.colors import XKCD_COLORS
from PIL import Image, ImageFilter

from es_imgsearch.describe.colours import SHADES, Colours, lab_of, shade_names
from es_imgsearch.read.decoding import decode
from tests.support.picture_samples import saved

# Chosen so that nobody would call them otherwise.
PLAIN = {
    "red": (200, 20, 20),
    "orange": (255, 140, 20),
    "yellow": (255, 235, 40),
    "green": (20, 150, 40),
    "turquoise": (20, 200, 180),
    "blue": (20, 60, 200),
    "purple": (120, 30, 160),
    "pink": (255, 150, 190),
    "brown": (110, 60, 20),
    "beige": (225, 205, 165),
    "black": (5, 5, 5),
    "grey": (128, 128, 128),
    "white": (255, 255, 255),
}


def described(image: Image.Image) -> dict:
    return dict(Colours().describe(image, Image.Exif(), "a.png"))


def test_plain_colours_have_the_names_that_anybody_would_say():
    assert PLAIN.keys() == SHADES.keys()
    for name, colour in PLAIN.items():
        found = described(Image.new("RGB", (40, 30), colour))
        assert found["colours"] == [name]
        assert found["colour_shares"] == {name: 1.0}
        assert found["palette"] == ["#" + bytes(colour).hex()]


def test_names_agree_with_those_of_the_xkcd_survey():
    """Of the names that say one of ours and no other, such as `dark forest green`."""
    words = {name: set(name.removeprefix("xkcd:").replace("gray", "grey").split())
             for name in XKCD_COLORS}  # fmt: skip
    said = {name: each & SHADES.keys() for name, each in words.items()}
    plain = {name: one.copy().pop() for name, one in said.items() if len(one) == 1}
    pixels = [list(bytes.fromhex(XKCD_COLORS[name][1:])) for name in plain]
    found = shade_names(lab_of(np.array(pixels, np.uint8)))
    right = [name == wanted for name, wanted in zip(found, plain.values(), strict=True)]
    assert len(plain) > 450
    assert np.mean(right) >= 0.85


def test_cielab_is_that_of_scikit_image():
    pixels = np.random.default_rng(3).integers(0, 256, (500, 3), np.uint8)
    np.testing.assert_allclose(
        lab_of(pixels), skimage.color.rgb2lab(pixels[None] / 255)[0], atol=0.05
    )


def test_shares_are_those_of_the_pixels_largest_first():
    image = Image.new("RGB", (100, 100), PLAIN["blue"])
    image.paste(PLAIN["yellow"], (0, 0, 100, 30))
    image.paste(PLAIN["red"], (0, 30, 20, 50))  # 4 %: not the picture's colour
    found = described(image)
    assert found["colours"] == ["blue", "yellow"]
    assert found["colour_shares"]["blue"] == pytest.approx(0.66, abs=0.03)
    assert found["colour_shares"]["yellow"] == pytest.approx(0.3, abs=0.03)


def test_a_picture_of_every_colour_has_at_least_one():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    found = described(Image.fromarray(pixels))
    assert found["colours"]
    assert found["palette"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("camera.png", True), ("moon.png", True), ("chelsea.png", False), ("coffee.png", False)],
)
def test_monochrome_photographs_are_known(photographs, name: str, wanted: bool):
    with Image.open(photographs / name) as opened:
        assert described(opened.convert("RGB"))["monochrome"] is wanted


def test_a_sepia_photograph_is_monochrome_and_a_red_dot_makes_it_a_coloured_one(photographs):
    with Image.open(photographs / "camera.png") as opened:
        grey = opened.convert("L").filter(ImageFilter.BoxBlur(1))
    sepia = Image.merge("RGB", [grey.point(lambda v, k=k: int(v * k)) for k in (1.0, 0.93, 0.82)])
    assert described(sepia)["monochrome"] is True
    sepia = sepia.copy()
    sepia.paste((230, 20, 20), (0, 0, 60, 60))
    assert described(sepia)["monochrome"] is False


@pytest.mark.parametrize(("alpha", "wanted"), [(255, False), (254, True), (0, True)])
def test_only_what_can_be_seen_through_is_transparent(alpha: int, wanted: bool):
    image = Image.new("RGBA", (32, 32), (200, 20, 20, 255))
    image.putpixel((3, 4), (200, 20, 20, alpha))
    decoded = decode(saved(image, "PNG"), max_pixels=10_000)
    assert described(decoded.image)["transparent"] is wanted
