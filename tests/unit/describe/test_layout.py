"""The colour vector: what it is equal to, what it is near to, and that it is well formed."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageEnhance, ImageOps

from es_imgsearch.describe.layout import DIMS, Layout, colour_vector
from es_imgsearch.elastic.mapping import load_json

BINS = 12


def cells(image: Image.Image) -> np.ndarray:
    """Shares of each bin (hues 0-7, greys 8-11) in each of 3 x 3 cells, which sum to 1."""
    return (colour_vector(image) ** 2).reshape(3, 3, BINS)


def flat(*colour: int) -> Image.Image:
    return Image.new("RGB", (90, 60), colour)


def brute_force(image: Image.Image) -> np.ndarray:
    """The same histogram pixel by pixel, for a picture that needs no shrinking."""
    histogram = np.zeros((3, 3, BINS))
    hsv = np.asarray(image.convert("HSV"), float)
    for y in range(60):
        for x in range(60):
            hue, saturation, value = hsv[y, x]
            colourful = saturation / 255 * min(value / 64, 1)
            cell = histogram[y // 20, x // 20]
            place = hue / 32
            cell[int(place) % 8] += colourful * (1 - place % 1)
            cell[(int(place) + 1) % 8] += colourful * (place % 1)
            place = value / 85
            cell[8 + int(place) % 4] += (1 - colourful) * (1 - place % 1)
            cell[8 + (int(place) + 1) % 4] += (1 - colourful) * (place % 1)
    return np.sqrt(histogram / histogram.sum()).ravel()


@given(arrays(np.uint8, (60, 60, 3)))
@settings(max_examples=20, deadline=None)
def test_it_is_the_histogram_counted_pixel_by_pixel(pixels: np.ndarray):
    image = Image.fromarray(pixels)
    np.testing.assert_allclose(colour_vector(image), brute_force(image), atol=1e-5)


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))),
)
@settings(max_examples=50, deadline=None)
def test_any_picture_has_a_unit_vector_without_negative_parts(pixels: np.ndarray):
    vector = colour_vector(Image.fromarray(pixels))
    assert vector.shape == (DIMS,)
    assert vector.dtype == np.float32
    assert (vector >= 0).all()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("number", "grey"), list(enumerate([0, 85, 170, 255])))
def test_a_grey_level_fills_its_bin_in_every_cell(number: int, grey: int):
    np.testing.assert_allclose(cells(flat(grey, grey, grey))[:, :, 8 + number], 1 / 9, atol=1e-4)


@pytest.mark.parametrize("number", range(8))
def test_a_hue_fills_its_bin(number: int):
    colour = [round(255 * part) for part in colorsys.hsv_to_rgb(number / 8, 1, 1)]
    found = cells(flat(*colour))
    assert (found[:, :, number] > 0.95 / 9).all()


def test_a_small_change_of_hue_or_of_grey_changes_little_also_at_the_ends():
    for before, after in (
        ((255, 0, 4), (255, 4, 0)),  # across the hue of 0
        ((80, 80, 80), (90, 90, 90)),
        ((255, 60, 0), (255, 70, 0)),
        ((3, 0, 0), (0, 3, 0)),  # nearly black has no hue
    ):
        assert colour_vector(flat(*before)) @ colour_vector(flat(*after)) > 0.9


def test_nothing_in_common_is_0_and_half_in_common_is_half():
    red, blue = flat(255, 0, 0), flat(0, 0, 255)
    mixed = Image.new("RGB", (60, 60), (255, 0, 0))
    mixed.paste((0, 0, 255), (0, 0, 20, 60))
    mixed_twice = Image.new("RGB", (60, 60), (255, 0, 0))
    assert colour_vector(red) @ colour_vector(blue) < 0.1
    assert colour_vector(mixed) @ colour_vector(mixed_twice) == pytest.approx(2 / 3, abs=0.02)


def test_it_tells_where_a_colour_is():
    left, right = (Image.new("RGB", (90, 90), "white") for _ in range(2))
    left.paste((200, 0, 0), (0, 0, 30, 90))
    right.paste((200, 0, 0), (60, 0, 90, 90))
    assert colour_vector(left) @ colour_vector(right) < 0.5
    assert colour_vector(left) @ colour_vector(ImageOps.mirror(right)) > 0.999


@pytest.mark.parametrize("name", ["astronaut.png", "chelsea.png", "coffee.png"])
def test_the_size_of_a_picture_hardly_matters(photographs: Path, name: str):
    image = Image.open(photographs / name).convert("RGB")
    large = image.resize((image.width * 4, image.height * 4), Image.Resampling.BICUBIC)
    assert colour_vector(image) @ colour_vector(large) > 0.995
    # A little brighter is nearly the same, grey is not.
    brighter = ImageEnhance.Brightness(image).enhance(1.1)
    grey = image.convert("L").convert("RGB")
    assert colour_vector(image) @ colour_vector(brighter) > 0.95
    assert colour_vector(image) @ colour_vector(grey) < 0.95


def test_the_field_is_mapped_as_the_common_mapping_has_it():
    common = load_json("mappings", "common.json")["mappings"]
    assert Layout.mapping == {"colour_embedding": common["properties"]["colour_embedding"]}
    assert Layout.mapping["colour_embedding"]["dims"] == DIMS
    assert "colour_embedding" in common["_source"]["excludes"]
