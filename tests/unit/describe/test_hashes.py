"""Perceptual hashes: those of copies are near, and the turned ones are worked out right."""

from __future__ import annotations

from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from es_imgsearch.describe.hashes import Hashes, perceptual_hash
from es_imgsearch.duplicates.hashes import ALL_TURNS, Turn, turned_hash

NAMES = ["astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "rocket.jpg"]
TRANSPOSITIONS = {
    "mirrored": Image.Transpose.FLIP_LEFT_RIGHT,
    "flipped": Image.Transpose.FLIP_TOP_BOTTOM,
    "turned by 180°": Image.Transpose.ROTATE_180,
    "transposed": Image.Transpose.TRANSPOSE,
    "turned by 90°": Image.Transpose.ROTATE_270,
    "turned by 270°": Image.Transpose.ROTATE_90,
    "transversed": Image.Transpose.TRANSVERSE,
}

hashes = st.integers(0, 2**64 - 1)


def hamming(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def opened(photographs: Path, name: str) -> Image.Image:
    return Image.open(photographs / name).convert("RGB")


def hash_of(image: Image.Image) -> int:
    found = perceptual_hash(image)
    assert found is not None
    return int(found, 16)


def structured(seed: int, size: int = 64) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def test_a_small_picture_has_the_hash_of_the_reference():
    image = structured(1)
    assert perceptual_hash(image) == str(imagehash.phash(image))


@given(st.integers(0, 2**32 - 1), st.sampled_from([32, 40, 64, 200]))
def test_every_bit_is_that_of_the_reference(seed: int, size: int):
    image = structured(seed, size)
    assert perceptual_hash(image) == str(imagehash.phash(image))


@pytest.mark.parametrize("name", NAMES)
def test_shrinking_first_changes_next_to_nothing(photographs: Path, name: str):
    large = opened(photographs, name).resize((2400, 1800), Image.Resampling.BICUBIC)
    reference = int(str(imagehash.phash(large)), 16)
    assert hamming(hash_of(large), reference) <= 2


@pytest.mark.parametrize("name", NAMES)
def test_copies_are_near_and_other_pictures_are_far(photographs: Path, name: str):
    image = opened(photographs, name)
    own = hash_of(image)
    half = image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)
    for copy in (half, ImageEnhance.Brightness(image).enhance(1.2), image.convert("L")):
        assert hamming(own, hash_of(copy.convert("RGB"))) <= 6
    for other in set(NAMES) - {name}:
        assert hamming(own, hash_of(opened(photographs, other))) >= 16


@pytest.mark.parametrize("turn", [turn for turn in ALL_TURNS if turn != Turn()], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_hash_of_a_turned_picture_is_worked_out(photographs: Path, name: str, turn: Turn):
    image = opened(photographs, name)
    turned = image.transpose(TRANSPOSITIONS[turn.name])
    assert hamming(turned_hash(hash_of(image), turn), hash_of(turned)) <= 10


def test_a_turn_is_a_reflection_with_an_odd_number_of_mirrors():
    assert {turn.name for turn in ALL_TURNS if turn.is_reflection} == {
        "mirrored",
        "flipped",
        "transposed",
        "transversed",
    }


@given(hashes)
def test_no_turn_changes_nothing(perceptual: int):
    assert turned_hash(perceptual, Turn()) == perceptual


@given(hashes, st.sampled_from(ALL_TURNS))
def test_one_of_the_turns_undoes_each(perceptual: int, turn: Turn):
    turned = turned_hash(perceptual, turn)
    assert perceptual in {turned_hash(turned, back) for back in ALL_TURNS}


@given(hashes, hashes, st.sampled_from(ALL_TURNS))
def test_turning_both_leaves_them_as_far_apart(one: int, other: int, turn: Turn):
    assert hamming(turned_hash(one, turn), turned_hash(other, turn)) == hamming(one, other)


@pytest.mark.parametrize("tone", [0, 128, 255])
@pytest.mark.parametrize("size", [(1, 1), (40, 30), (3000, 2)])
def test_one_flat_tone_has_no_hash(tone: int, size: tuple[int, int]):
    flat = Image.new("RGB", size, (tone, tone, tone))
    assert perceptual_hash(flat) is None
    assert Hashes().describe(flat, Image.Exif(), "flat.png") == {}


def test_noise_on_one_tone_has_no_hash():
    noise = np.random.default_rng(1).normal(128, 4, (300, 400, 3)).clip(0, 255)
    assert perceptual_hash(Image.fromarray(noise.astype(np.uint8))) is None


def test_the_field_is_16_hex_digits_as_elasticsearch_takes_bits():
    fields = Hashes().describe(structured(2), Image.Exif(), "a.png")
    assert fields.keys() == Hashes.mapping.keys()
    assert len(fields["perceptual_hash"]) == 16
    int(fields["perceptual_hash"], 16)


def test_a_panorama_is_hashed():
    assert perceptual_hash(structured(3).resize((6000, 40))) is not None
