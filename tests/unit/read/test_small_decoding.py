"""Pictures decoded small: the vectors, hashes and failures are those of whole pictures."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from es_imgsearch.describe.hashes import perceptual_hash
from es_imgsearch.describe.layout import colour_vector
from es_imgsearch.describe.registry import load_describers, shorter_side_pixels
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.errors import ReadError
from es_imgsearch.read.decoding import Decoded, decode
from es_imgsearch.read.file import read_file
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.read.workers import ReadPlan
from es_imgsearch.records import Grid, Picture
from tests.support import picture_samples as samples

MAX_PIXELS = 10**8
DISPLAY_P3 = samples.rgb_profile(samples.DISPLAY_P3)
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
# What `starter` needs, twice 256; the describers that are installed ask for no more.
SHORTER_SIDE = 512

Embed = Callable[[Decoded], np.ndarray]


@cache
def enlarged(path: Path) -> Image.Image:
    """A photograph of 2,052 pixels on its shorter side and more, with a camera's grain."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    factor = 2052 / min(image.size)
    size = (round(image.width * factor), round(image.height * factor))
    pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.int16)
    grain = np.random.default_rng(0).normal(0, 4, (*pixels.shape[:2], 1)).round()
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options: object) -> bytes:
    return samples.saved(image, "JPEG", quality=90, **options)


KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg": jpeg,
    "progressive": lambda image: jpeg(image, progressive=True),
    "turned": lambda image: jpeg(image, exif=samples.exif_bytes(6)),
    "display p3": lambda image: jpeg(image, icc_profile=DISPLAY_P3),
    "inks": lambda image: jpeg(image.convert("CMYK"), icc_profile=samples.ink_profile()),
    "grey": lambda image: jpeg(image.convert("L")),
    "png": lambda image: samples.saved(image, "PNG", icc_profile=DISPLAY_P3, compress_level=1),
}


@pytest.fixture(scope="module")
def vit_b_32() -> Embed:
    """The picture tower of CLIP's ViT-B/32, its weights random."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=512)).eval()

    def embed(decoded: Decoded) -> np.ndarray:
        pixels = Preparation().apply(decoded.image, decoded.size)
        tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.inference_mode():
            return model(pixel_values=tensor).image_embeds[0].numpy()

    return embed


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def both(content: bytes) -> tuple[Decoded, Decoded]:
    whole = decode(content, max_pixels=MAX_PIXELS)
    small = decode(content, max_pixels=MAX_PIXELS, shorter_side_pixels=SHORTER_SIDE)
    assert whole.size == small.size == whole.image.size
    assert SHORTER_SIDE <= min(small.image.size) < 2 * SHORTER_SIDE
    return whole, small


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_the_whole_picture(
    kind: str, starter: Encoder, vit_b_32: Embed, photographs: Path
):
    names = PHOTOGRAPHS if kind == "jpeg" else PHOTOGRAPHS[1:2]
    for name in names:
        whole, small = both(KINDS[kind](enlarged(photographs / name)))
        pixels = [starter.preparation.apply(each.image, each.size) for each in (whole, small)]
        one, other = starter.embed_images(np.stack(pixels))
        assert cosine(one, other) >= 0.999, name
        assert cosine(vit_b_32(whole), vit_b_32(small)) >= 0.999, name


def test_hashes_and_colours_are_those_of_the_whole_picture(photographs: Path):
    for name in PHOTOGRAPHS:
        whole, small = both(jpeg(enlarged(photographs / name)))
        assert perceptual_hash(small.image) == perceptual_hash(whole.image), name
        assert cosine(colour_vector(small.image), colour_vector(whole.image)) >= 0.999, name


@pytest.mark.parametrize("size", [(1025, 1031), (4097, 1024), (1030, 3001)])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_width_height_and_tiles_are_of_the_whole_picture(
    size: tuple[int, int], orientation: int, tmp_path: Path
):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(samples.four_corners(size), exif=samples.exif_bytes(orientation)))
    grid, preparation = Grid(2, 2, has_centre=True), Preparation(width=32, height=32, resize=36)

    def read(pixels: int | None) -> Picture:
        found = read_file(
            str(path), preparation, max_pixels=MAX_PIXELS, grid=grid, shorter_side_pixels=pixels
        )
        assert isinstance(found, Picture)
        return found

    whole, small = read(None), read(144)
    upright = size if orientation in {1, 3} else size[::-1]
    assert (small.fields["width"], small.fields["height"]) == upright
    assert small.fields == whole.fields
    assert np.abs(small.pixels.astype(int) - whole.pixels).mean() < 2
    for one, other in zip(small.tiles, whole.tiles, strict=True):
        assert one.box == other.box
        assert np.abs(one.pixels.astype(int) - other.pixels).mean() < 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "L", "1"])
def test_modes_that_cannot_be_averaged_as_they_are_come_out_small_too(mode: str):
    if mode == "I;16":
        ramp = np.tile(np.linspace(0, 65535, 1200).astype(np.uint16), (1100, 1))
        image = Image.fromarray(ramp)
    else:
        image = samples.four_corners((1200, 1100)).convert(mode)
    whole, small = both(samples.saved(image, "PNG"))
    expected = whole.image.resize((40, 40), Image.Resampling.BOX)
    found = small.image.resize((40, 40), Image.Resampling.BOX)
    assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).mean() < 1


def test_a_transparent_edge_keeps_its_colour():
    """Averaged with what is under transparent pixels, the red would turn dark."""
    image = Image.new("RGBA", (1100, 1100), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 551, 1100))
    small = decode(
        samples.saved(image, "PNG"), max_pixels=MAX_PIXELS, shorter_side_pixels=SHORTER_SIDE
    ).image
    edge = np.asarray(small)[100]
    assert edge[:, 0].min() == 255


def test_damaged_jpegs_end_as_they_do_when_decoded_whole():
    dice = random.Random(20240601)
    image = samples.four_corners((640, 480))
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    good = Image.blend(image, Image.fromarray(noise), 0.3)
    files = [jpeg(good), jpeg(good, progressive=True), jpeg(good.convert("CMYK"))]
    outcomes = set()
    for number in range(150):
        content = samples.mutated(files[number % 3], files, dice)
        whole, small = (ending(content, pixels) for pixels in (None, 60))
        assert whole == small, number
        outcomes.add(whole)
    assert {"truncated", "corrupt", "read"} <= outcomes


def ending(content: bytes, pixels: int | None) -> str:
    try:
        decode(content, max_pixels=10**6, shorter_side_pixels=pixels)
    except ReadError as error:
        return error.error_class
    return "read"


def test_a_reader_decodes_as_much_as_whoever_needs_most():
    plan = ReadPlan(Preparation(), MAX_PIXELS, 1024, 10.0)
    assert plan.shorter_side_pixels([]) == 448
    assert plan.shorter_side_pixels(load_describers(["hashes", "layout"])) == 512
    # Small print needs the most.
    assert plan.shorter_side_pixels(load_describers(["hashes", "text_in_image"])) == 1200
    with_tiles = ReadPlan(Preparation(), MAX_PIXELS, 1024, 10.0, grid=Grid(3, 2))
    assert with_tiles.shorter_side_pixels([]) == 3 * 448

    class Anybodys:
        name = "anybodys"

    assert shorter_side_pixels([Anybodys(), *load_describers()]) is None  # type: ignore[list-item]
    assert plan.shorter_side_pixels([Anybodys()]) is None  # type: ignore[list-item]


@pytest.mark.parametrize("preparation", [Preparation(resize=256), Preparation(mode="squash")])
def test_a_preparation_that_crops_and_one_that_squashes_have_enough(preparation: Preparation):
    image = samples.four_corners((1601, 1203))
    content = io.BytesIO(jpeg(image)).getvalue()
    small = decode(
        content, max_pixels=MAX_PIXELS, shorter_side_pixels=preparation.shorter_side_pixels
    )
    assert min(small.image.size) >= preparation.shorter_side_pixels
    whole = decode(content, max_pixels=MAX_PIXELS)
    one, other = (preparation.apply(each.image, each.size).astype(int) for each in (small, whole))
    assert np.abs(one - other).mean() < 1
