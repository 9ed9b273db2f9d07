"""A query picture may be given in every way a caller is likely to have it."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from es_imgsearch.errors import QueryPictureInvalid
from es_imgsearch.search.query import open_query_picture
from tests.support import picture_samples as samples

UPRIGHT = [samples.RED, samples.GREEN, samples.BLUE, samples.YELLOW]


def opened(picture: Any, box: Any = None, max_pixels: int = 1_000_000) -> Image.Image:
    return open_query_picture(picture, box, max_pixels=max_pixels)


def refused(picture: Any, box: Any = None, **options: Any) -> str:
    with pytest.raises(QueryPictureInvalid) as caught:
        opened(picture, box, **options)
    return str(caught.value)


# -- ways of giving one --------------------------------------------------------------------


def test_path_bytes_and_pil_image_are_the_same_picture(tmp_path: Path):
    path = tmp_path / "a.txt"
    content = samples.sample("png")
    path.write_bytes(content)
    for picture in (path, str(path), content, bytearray(content), memoryview(content),
                    Image.open(io.BytesIO(content))):  # fmt: skip
        image = opened(picture)
        assert (image.mode, image.size) == ("RGB", samples.SIZE)
        assert samples.near(samples.corners(image), UPRIGHT, 0)


def test_an_open_file_is_read_from_where_it_stands_and_left_there(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(samples.sample("png"))
    with path.open("rb") as file:
        assert samples.near(samples.corners(opened(file)), UPRIGHT, 0)
        assert file.tell() == 0
    assert "cannot be read" in refused(file)
    with path.open(encoding="latin-1") as file:
        assert "open it with mode 'rb'" in refused(file)


class Stream:
    """What some libraries give for an open file: no more than can be read."""

    def read(self) -> bytes:
        return samples.sample("png")


def test_a_stream_that_can_only_be_read_is_a_picture():
    assert samples.near(samples.corners(opened(Stream())), UPRIGHT, 0)


def test_an_open_file_of_an_archive_that_is_broken_is_told():
    packed = gzip.compress(samples.sample("png"))
    with gzip.open(io.BytesIO(packed)) as file:
        assert samples.near(samples.corners(opened(file)), UPRIGHT, 0)
    broken = [packed[:-20], packed[:20] + b"\xff" * 20 + packed[40:], packed[:-8] + bytes(8)]
    for each in broken:
        with gzip.open(io.BytesIO(each)) as file:
            assert "The open file cannot be read: " in refused(file)
    with zipfile.ZipFile(content := io.BytesIO(), "w") as archive:
        archive.writestr("a.png", b"abc" * 100)
    content.getbuffer()[50] ^= 1
    with zipfile.ZipFile(content) as archive, archive.open("a.png") as member:
        assert "Bad CRC-32" in refused(member)


def test_what_is_too_short_for_any_format_is_no_picture():
    for content in (b"B", b"cat"):
        assert "no picture format" in refused(content)
    assert "it is empty" in refused(b"")


def test_an_image_without_pixels_is_told():
    assert "no pixels" in refused(Image.new("RGB", (0, 0)))


def test_a_tga_is_known_by_its_name_as_in_a_folder(tmp_path: Path):
    path = tmp_path / "a.tga"
    path.write_bytes(samples.sample("tga"))
    assert opened(path).size == samples.SIZE


def test_an_undecodable_name_can_be_opened(tmp_path: Path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    path.write_bytes(samples.sample("png"))
    assert opened(path).size == samples.SIZE


@pytest.mark.parametrize("way", ["pil", "bytes"])
def test_exif_orientation_is_applied(way: str):
    turned = samples.four_corners().transpose(Image.Transpose.ROTATE_90)
    content = samples.saved(turned, "PNG", exif=samples.exif_bytes(6))
    image = opened(Image.open(io.BytesIO(content)) if way == "pil" else content)
    assert image.size == samples.SIZE
    assert samples.near(samples.corners(image), UPRIGHT, 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I", "F", "HSV"])
def test_a_pil_image_of_any_mode_becomes_rgb(mode: str):
    image = Image.new("RGB", (4, 4), "white").convert("L" if mode in {"I;16", "I", "F"} else mode)
    if mode in {"I;16", "I", "F"}:
        image = image.convert(mode)
    assert opened(image).mode == "RGB"


def test_the_callers_image_stays_as_it_is():
    image = samples.four_corners()
    opened(image).paste((0, 0, 0), (0, 0, 64, 48))
    assert samples.near(samples.corners(image), UPRIGHT, 0)


# -- arrays --------------------------------------------------------------------------------

RGB = np.asarray(samples.four_corners())


@pytest.mark.parametrize(
    "array",
    [RGB, RGB / 255, (RGB / 255).astype(np.float32), np.asfortranarray(RGB), RGB[::-1][::-1],
     np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])],
    ids=["uint8", "float64", "float32", "fortran", "view", "rgba"],
)  # fmt: skip
def test_arrays_of_colour_are_pictures(array: np.ndarray):
    image = opened(array)
    assert image.size == samples.SIZE
    assert samples.near(samples.corners(image), UPRIGHT, 1)


@pytest.mark.parametrize(
    "array",
    [np.full((5, 7), 128, np.uint8), np.full((5, 7, 1), 128, np.uint8), np.full((5, 7), 0.5),
     np.full((5, 7), 0.5, np.float16)],
    ids=["uint8", "one channel", "float", "float16"],
)  # fmt: skip
def test_grey_arrays_are_pictures(array: np.ndarray):
    image = opened(array)
    assert (image.mode, image.size) == ("RGB", (7, 5))
    assert samples.near(image.getpixel((3, 3)), (128, 128, 128), 1)


def test_masks_are_black_and_white():
    image = opened(np.array([[True, False]]))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]


def test_a_transparent_array_lies_on_white():
    assert opened(np.zeros((2, 2, 4), np.uint8)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    "array",
    [np.zeros((3,)), np.zeros((2, 2, 2)), np.zeros((2, 2, 5)), np.zeros((1, 2, 2, 3)),
     np.zeros((0, 4, 3), np.uint8), np.zeros((4, 0), np.uint8), np.zeros(()),
     np.zeros((3, 8, 8), np.uint8)],
    ids=lambda array: str(array.shape),
)  # fmt: skip
def test_arrays_of_another_shape_are_refused(array: np.ndarray):
    assert str(array.shape) in refused(array)


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.uint16, np.int64, np.complex64, object])
def test_arrays_of_another_type_are_refused(kind: Any):
    assert "uint8 or floats" in refused(np.zeros((2, 2), kind))


@pytest.mark.parametrize("value", [-0.1, 1.1, 255.0, np.nan, np.inf])
def test_floats_that_are_no_brightness_are_refused(value: float):
    assert "from 0 to 1" in refused(np.full((2, 2), value))


# -- boxes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "size", "colour"),
    [
        ((0, 0, 64, 48), (64, 48), None),
        ((0, 0, 32, 24), (32, 24), samples.RED),
        ((32, 24, 32, 24), (32, 24), samples.YELLOW),
        ((-10, -10, 20, 20), (10, 10), samples.RED),
        ((50, 40, 100, 100), (14, 8), samples.YELLOW),
        ((-1000, -1000, 5000, 5000), (64, 48), None),
        ((0.4, 0.4, 10.2, 10.2), (11, 11), samples.RED),
        ((63, 47, 1, 1), (1, 1), samples.YELLOW),
        (["0", "0", "8", "8"], (8, 8), samples.RED),
        (np.array([0, 0, 8, 8]), (8, 8), samples.RED),
    ],
)
def test_a_box_is_cut_out_and_what_sticks_out_is_cut_off(box: Any, size: Any, colour: Any):
    image = opened(samples.four_corners(), box)
    assert image.size == size
    if colour is not None:
        assert image.getpixel((0, 0)) == image.getpixel((size[0] - 1, size[1] - 1)) == colour


@pytest.mark.parametrize(
    "box",
    [(0, 0, 0, 10), (0, 0, 10, 0), (0, 0, -5, 10), (64, 0, 10, 10), (0, 48, 10, 10),
     (-10, 0, 10, 10), (1000, 1000, 5, 5), (10.2, 10.2, 0.2, 0.2)],
)  # fmt: skip
def test_a_box_without_any_part_of_the_picture_is_refused(box: Any):
    assert "64 x 48" in refused(samples.four_corners(), box)


@pytest.mark.parametrize(
    "box",
    [(1, 2, 3), (1, 2, 3, 4, 5), "abcd", (None,) * 4, 7, ("a", 0, 1, 1),
     (float("nan"), 0, 1, 1), (0, 0, float("inf"), 1), (0, 0, float("-inf"), 1)],
    ids=str,
)  # fmt: skip
def test_a_box_that_is_none_is_refused(box: Any):
    assert "box" in refused(samples.four_corners(), box)


@given(st.tuples(*[st.floats(-200, 200)] * 4))
def test_any_box_gives_a_part_of_the_picture_or_is_refused(box: tuple[float, ...]):
    try:
        image = opened(samples.four_corners(), box)
    except QueryPictureInvalid:
        return
    assert 1 <= image.width <= 64
    assert 1 <= image.height <= 48


def test_a_box_counts_pixels_of_the_upright_picture():
    turned = samples.four_corners().transpose(Image.Transpose.ROTATE_90)
    content = samples.saved(turned, "JPEG", quality=95, exif=samples.exif_bytes(6))
    image = opened(content, (34, 2, 28, 20))
    assert samples.near(image.getpixel((14, 10)), samples.GREEN)


# -- what is no picture --------------------------------------------------------------------


def test_what_is_no_picture_is_refused_with_what_it_is(tmp_path: Path):
    text = tmp_path / "a.jpg"
    text.write_text("text")
    assert "no picture format known" in refused(text)
    assert "a.jpg" in refused(text)
    assert "no file" in refused(tmp_path / "none.jpg")
    assert "is not a file" in refused(tmp_path)
    assert "is not a file" in refused(Path("/dev/zero"))
    assert "cannot be read" in refused(text / "below")
    assert "cannot be read" in refused(Path("a\0b"))
    assert refused(b"").startswith("The query picture")
    assert "truncated" in refused(samples.noisy("jpeg")[:2000])
    assert "max_pixels" in refused(samples.sample("png"), max_pixels=10)


@pytest.mark.parametrize(
    "thing", [None, 7, ["a.jpg"], object()], ids=["none", "number", "list", "object"]
)
def test_what_cannot_be_a_picture_is_refused_by_its_type(thing: Any):
    assert type(thing).__name__ in refused(thing)


def test_a_pil_image_whose_pixels_cannot_be_read_is_refused():
    image = Image.open(io.BytesIO(samples.noisy("jpeg")[:2000]))
    assert "truncated" in refused(image)
    closed = Image.open(io.BytesIO(samples.sample("png")))
    closed.close()
    assert "PIL image" in refused(closed)
