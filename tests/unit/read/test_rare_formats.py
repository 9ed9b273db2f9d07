"""RAW files, TIFF files of kinds that Pillow refuses, JPEG XL, and colour profiles."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import rawpy
import tifffile
from PIL import Image, ImageCms

from es_imgsearch.describe.exif import Exif
from es_imgsearch.errors import ReadError
from es_imgsearch.read.decoding import Decoded, decode
from es_imgsearch.read.file import Skipped, read_file
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.read.srgb import to_rgb
from es_imgsearch.records import Picture
from tests.support import picture_samples as samples

PREPARATION = Preparation(width=32, height=32, mode="squash")
MAX_PIXELS = 1_000_000
UPRIGHT = [samples.RED, samples.GREEN, samples.BLUE, samples.YELLOW]
SENSOR_SIZE = (800, 600)

pytestmark = pytest.mark.filterwarnings("ignore")


def decoded(content: bytes, suffix: str = "", max_pixels: int = MAX_PIXELS) -> Decoded:
    return decode(content, max_pixels=max_pixels, suffix=suffix)


def read_(folder: Path, name: str, content: bytes, *describers: Any) -> Picture | Skipped:
    path = folder / name
    path.write_bytes(content)
    return read_file(str(path), PREPARATION, describers, max_pixels=MAX_PIXELS)


def failure(content: bytes, suffix: str, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(ReadError) as caught:
        decoded(content, suffix, max_pixels)
    return caught.value.error_class


# -- RAW -----------------------------------------------------------------------------------


def seen(turn: Image.Transpose | None = None, size: tuple[int, int] = SENSOR_SIZE) -> Image.Image:
    image = samples.four_corners(size)
    return image if turn is None else image.transpose(turn)


def with_preview(turn: Image.Transpose | None = None, orientation: int = 1) -> bytes:
    """The preview is paler than the sensor's picture, to tell which one was taken."""
    preview = seen(turn, (400, 300)).point(lambda level: 128 + level // 2)
    return samples.dng(seen(turn), preview, orientation)


PALE = [tuple(128 + level // 2 for level in colour) for colour in UPRIGHT]


@pytest.mark.parametrize("suffix", [".dng", ".nef", ".DNG", ".tif", ".jpg", ""])
def test_a_raw_file_is_shown_by_its_preview_whatever_its_name(suffix: str, tmp_path: Path):
    picture = read_(tmp_path, f"a{suffix}", with_preview())
    assert isinstance(picture, Picture)
    found = picture.fields
    assert (found["format"], found["width"], found["height"]) == ("raw", 400, 300)
    assert samples.near(samples.corners(Image.fromarray(picture.pixels)), PALE)


@pytest.mark.parametrize(
    ("turn", "orientation"),
    [(None, 1), (Image.Transpose.ROTATE_90, 6), (Image.Transpose.ROTATE_270, 8),
     (Image.Transpose.ROTATE_180, 3)],
)  # fmt: skip
def test_a_camera_held_any_way_gives_an_upright_raw_picture(
    turn: Image.Transpose | None, orientation: int
):
    found = decoded(with_preview(turn, orientation), ".dng").image
    assert found.size == (400, 300)
    assert samples.near(samples.corners(found), PALE)
    developed = decoded(samples.dng(seen(turn), None, orientation), ".dng").image
    assert developed.size == (400, 300)
    assert samples.near(samples.corners(developed), UPRIGHT, 60)


@pytest.mark.parametrize("preview", [None, samples.four_corners((160, 120))])
@pytest.mark.parametrize("suffix", [".dng", ".tif", ""])
def test_without_a_preview_of_use_the_sensors_data_is_developed(
    preview: Image.Image | None, suffix: str
):
    found = decoded(samples.dng(seen(), preview), suffix)
    assert found.format == "RAW"
    assert found.image.size == (400, 300)
    assert samples.near(samples.corners(found.image), UPRIGHT, 60)


def test_the_camera_of_a_raw_file_is_known(tmp_path: Path):
    for content in (with_preview(), samples.dng(seen())):
        picture = read_(tmp_path, "a.dng", content, ("exif", Exif().describe))
        assert isinstance(picture, Picture)
        assert picture.fields["camera"] == "Maker X1"


@pytest.mark.parametrize("share", [0.0001, 0.002, 0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("has_preview", [True, False])
def test_half_a_raw_file_is_a_failure_even_if_its_preview_is_there(share: float, has_preview: bool):
    content = with_preview() if has_preview else samples.dng(seen())
    assert failure(content[: max(8, int(len(content) * share))], ".dng") in {"truncated", "corrupt"}


def test_of_a_whole_raw_file_with_a_preview_the_sensors_data_is_not_decoded(
    monkeypatch: pytest.MonkeyPatch,
):
    class Watched:
        def __init__(self, raw: rawpy.RawPy) -> None:
            self._raw = raw

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self._raw.close()

        def __getattr__(self, name: str) -> Any:
            assert name not in {"unpack", "postprocess"}
            return getattr(self._raw, name)

    imread = rawpy.imread
    monkeypatch.setattr(rawpy, "imread", lambda file: Watched(imread(file)))
    assert decoded(with_preview(), ".dng").image.size == (400, 300)


def test_too_many_pixels_of_a_sensor_are_refused():
    assert failure(samples.dng(seen()), ".dng", max_pixels=800 * 600 - 1) == "too_large"
    assert failure(with_preview(), ".dng", max_pixels=800 * 600 - 1) == "too_large"


@pytest.mark.parametrize("suffix", [".nef", ".cr3", ".raf", ".arw"])
def test_what_is_named_raw_and_is_none(suffix: str, tmp_path: Path):
    assert failure(b"a letter to the editor" * 50, suffix) == "unidentified"
    assert failure(samples.sample("tiff"), suffix) == "corrupt"
    jpeg = read_(tmp_path, f"a{suffix}", samples.sample("jpeg"))
    assert isinstance(jpeg, Picture)
    assert jpeg.fields["format"] == "jpeg"


@pytest.mark.parametrize(
    "content",
    [b"MMORPGs I have played\n" * 20, b"IIRO and IIRS\n" * 20, b"FUJIFILMCCD-RAW" + bytes(500)],
)
def test_what_begins_like_raw_and_is_none_is_a_failure_only_if_named_like_one(
    content: bytes, tmp_path: Path
):
    assert read_(tmp_path, "notes.txt", content) is Skipped.NOT_A_PICTURE
    assert failure(content, ".orf") in {"corrupt", "truncated"}


def test_a_disk_image_named_raw_is_no_picture(tmp_path: Path):
    assert read_(tmp_path, "disk.raw", bytes(100_000)) is Skipped.NOT_A_PICTURE
    assert isinstance(read_(tmp_path, "photo.raw", with_preview()), Picture)


# -- TIFF ----------------------------------------------------------------------------------

WORDS, FLOATS = (np.uint16, 65535), (np.float32, 1.0)
TIFFS: dict[str, bytes] = {
    "rgb16": samples.tiff(samples.corners_array(*WORDS), photometric="rgb"),
    "rgba16": samples.tiff(
        samples.corners_array(*WORDS, 4), photometric="rgb", extrasamples=["unassalpha"]
    ),
    "rgb16 in planes": samples.tiff(
        samples.corners_array(*WORDS).transpose(2, 0, 1), photometric="rgb", planarconfig="separate"
    ),
    "rgb16 lzw": samples.tiff(samples.corners_array(*WORDS), photometric="rgb", compression="lzw"),
    "rgb16 zstd": samples.tiff(
        samples.corners_array(*WORDS), photometric="rgb", compression="zstd"
    ),
    "rgb16 in tiles": samples.tiff(
        samples.corners_array(*WORDS), photometric="rgb", tile=(16, 16), compression="deflate"
    ),
    "rgb16 big endian": samples.tiff(
        samples.corners_array(*WORDS), photometric="rgb", byteorder=">"
    ),
    "rgb16 in a BigTIFF": samples.tiff(
        samples.corners_array(*WORDS), photometric="rgb", bigtiff=True
    ),
    "rgb32": samples.tiff(samples.corners_array(np.uint32, 2**32 - 1), photometric="rgb"),
    "float rgb": samples.tiff(samples.corners_array(*FLOATS), photometric="rgb"),
    "half float rgb": samples.tiff(samples.corners_array(np.float16, 1.0), photometric="rgb"),
    "double rgb, lzw": samples.tiff(
        samples.corners_array(np.float64, 1.0), photometric="rgb", compression="lzw", predictor=True
    ),
    "float rgba": samples.tiff(
        samples.corners_array(*FLOATS, 4), photometric="rgb", extrasamples=["unassalpha"]
    ),
    "jpeg2000": samples.tiff(
        np.asarray(samples.four_corners()), photometric="rgb", compression="jpeg2000"
    ),
}


@pytest.mark.parametrize("name", TIFFS)
def test_tiff_of_every_depth_and_layout_has_its_colours(name: str, tmp_path: Path):
    picture = read_(tmp_path, "a.tif", TIFFS[name])
    assert isinstance(picture, Picture)
    found = picture.fields
    assert (found["format"], found["width"], found["height"]) == ("tiff", *samples.SIZE)
    # 32-bit integers are stretched over what is there, and 230 of 255 is the lightest.
    tolerance = 26 if name == "rgb32" else 12
    assert samples.near(samples.corners(decoded(TIFFS[name]).image), UPRIGHT, tolerance)


@pytest.mark.parametrize("name", TIFFS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.95])
def test_half_a_tiff_is_a_failure(name: str, share: float):
    content = TIFFS[name]
    assert failure(content[: int(len(content) * share)], ".tif") in {"truncated", "corrupt"}


def test_grey_tiffs():
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (16, 1))
    opaque = np.full_like(ramp, 65535)
    opaque[8:] = 0
    for name, content in {
        "with transparency": samples.tiff(
            np.dstack([ramp, opaque]), photometric="minisblack", extrasamples=["unassalpha"]
        ),
        "half floats": samples.tiff((ramp / 65535).astype(np.float16)),
        "doubles": samples.tiff(ramp / 65535.0),
        "negative, plain": samples.tiff(65535 - ramp, photometric="miniswhite"),
        "negative": samples.tiff(65535 - ramp, photometric="miniswhite", compression="zstd"),
    }.items():
        found = np.asarray(decoded(content, ".tif").image)
        assert samples.near(found[4, :, 0], np.linspace(0, 255, 64), 1), name
        below = 255 if name == "with transparency" else np.linspace(0, 255, 64)
        assert samples.near(found[12, :, 0], below, 1), name


def test_the_first_page_of_many_counts(photographs: Path, tmp_path: Path):
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(samples.corners_array(*FLOATS), photometric="rgb")
        writer.write(np.zeros((500, 700), np.float32), photometric="minisblack")
    assert samples.near(samples.corners(decoded(stream.getvalue()).image), UPRIGHT, 12)
    content = (photographs / "multipage_rgb.tif").read_bytes()
    picture = read_(tmp_path, "a.tif", content)
    assert isinstance(picture, Picture)
    assert (picture.fields["width"], picture.fields["height"]) == (10, 10)


@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_tiff_that_pillow_refuses_is_turned_upright(bigtiff: bool):
    turned = samples.corners_array(*FLOATS).transpose(1, 0, 2)[::-1]
    content = samples.tiff(
        turned, photometric="rgb", bigtiff=bigtiff, extratags=[(274, "H", 1, 6, True)]
    )
    image = decoded(content).image
    assert image.size == samples.SIZE
    assert samples.near(samples.corners(image), UPRIGHT, 12)


def test_too_many_pixels_of_a_tiff_are_refused_before_anything_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: pytest.fail("decoded"))
    assert failure(TIFFS["float rgb"], ".tif", max_pixels=64 * 48 - 1) == "too_large"
    many = samples.tiff(np.zeros((4, 4, 900), np.float32), photometric="minisblack")
    assert failure(many, ".tif", max_pixels=1000) == "too_large"


# -- JPEG XL -------------------------------------------------------------------------------

JXLS = {
    "lossy": samples.jxl(samples.four_corners(), level=95),
    "lossless": samples.jxl(samples.four_corners(), lossless=True),
    "container": samples.jxl(samples.four_corners(), lossless=True, usecontainer=True),
    "sixteen bits": samples.jxl(samples.corners_array(*WORDS), lossless=True),
    "floats": samples.jxl(samples.corners_array(*FLOATS), lossless=True),
    "opaque": samples.jxl(samples.corners_array(np.uint8, 255, 4), lossless=True),
}


@pytest.mark.parametrize("name", JXLS)
def test_jpeg_xl_is_read(name: str, tmp_path: Path):
    picture = read_(tmp_path, "a.jxl", JXLS[name])
    assert isinstance(picture, Picture)
    found = picture.fields
    assert (found["format"], found["width"], found["height"]) == ("jpegxl", *samples.SIZE)
    assert samples.near(samples.corners(decoded(JXLS[name], ".jxl").image), UPRIGHT, 12)


@pytest.mark.parametrize("name", JXLS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_half_a_jpeg_xl_is_a_failure(name: str, share: float):
    content = JXLS[name][: max(5, int(len(JXLS[name]) * share))]
    assert failure(content, ".jxl") in {"truncated", "corrupt", "unidentified"}


def test_transparent_grey_and_the_frames_of_jpeg_xl():
    image = Image.new("RGBA", (32, 16), (0, 0, 0, 0))
    image.paste((200, 100, 100, 255), (0, 0, 16, 16))
    found = decoded(samples.jxl(image, lossless=True), ".jxl").image
    assert [found.getpixel((2, 8)), found.getpixel((30, 8))] == [(200, 100, 100), (255, 255, 255)]
    grey = decoded(samples.jxl(Image.new("L", (16, 16), 77), lossless=True), ".jxl").image
    assert grey.getpixel((3, 3)) == (77, 77, 77)
    frames = np.stack([np.asarray(samples.four_corners()), np.zeros((48, 64, 3), np.uint8)])
    first = decoded(samples.jxl(frames, lossless=True), ".jxl").image
    assert samples.corners(first) == UPRIGHT


@pytest.mark.parametrize(
    "size", [(8, 8), (64, 48), (1, 1), (100, 7), (1920, 1080), (300, 200), (7, 3000)]
)
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
):
    import imagecodecs

    image = Image.new("RGB", size, samples.RED)
    contents = [samples.jxl(image, usecontainer=inside) for inside in (False, True)]
    for content in contents:
        assert decoded(content, ".jxl", max_pixels=size[0] * size[1] + 1).image.size == size
    monkeypatch.setattr(imagecodecs, "jpegxl_decode", lambda *_, **__: pytest.fail("decoded"))
    for content in contents:
        with pytest.raises(ReadError, match=f"^{size[0]} x {size[1]} pixels"):
            decoded(content, ".jxl", max_pixels=size[0] * size[1] - 1)


def test_exif_of_a_jpeg_xl_is_read_and_turns_nothing():
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    data = bytes(4) + exif.tobytes().removeprefix(b"Exif\0\0")
    box = struct.pack(">I", len(data) + 8) + b"Exif" + data
    found = decoded(JXLS["container"] + box)
    assert found.exif[0x010F] == "Maker"
    assert found.image.size == samples.SIZE


def test_what_is_named_jxl_and_is_none_is_told(tmp_path: Path):
    assert failure(b"Dear all," * 30, ".jxl") == "unidentified"
    assert read_(tmp_path, "notes.txt", b"\xff\x0a" + bytes(range(200))) is Skipped.NOT_A_PICTURE


# -- colour profiles -----------------------------------------------------------------------

# The corners of sRGB as other spaces number them: published values.
IN_ADOBE_RGB = {(219, 0, 0): (255, 0, 0), (144, 255, 60): (0, 255, 0), (128, 128, 128): (127,) * 3}
IN_DISPLAY_P3 = {(234, 51, 35): (255, 0, 0), (117, 251, 76): (0, 255, 0), (0, 0, 245): (0, 0, 255)}
ADOBE_RGB = samples.rgb_profile(samples.ADOBE_RGB, 563 / 256)
DISPLAY_P3 = samples.rgb_profile(samples.DISPLAY_P3)


def middle(content: bytes, suffix: str = "") -> Any:
    return decoded(content, suffix).image.getpixel((8, 8))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF", "HEIF"])
@pytest.mark.parametrize(
    ("profile", "colours"), [(ADOBE_RGB, IN_ADOBE_RGB), (DISPLAY_P3, IN_DISPLAY_P3)]
)
def test_a_profile_is_followed(kind: str, profile: bytes, colours: dict[Any, Any]):
    options = {"WEBP": {"lossless": True}, "PNG": {}, "TIFF": {}}.get(kind, {"quality": 98})
    for stored, shown in colours.items():
        content = samples.saved(
            Image.new("RGB", (16, 16), stored), kind, icc_profile=profile, **options
        )
        assert samples.near(middle(content), shown, 14), (stored, shown)
        without = samples.saved(Image.new("RGB", (16, 16), stored), kind, **options)
        assert samples.near(middle(without), stored, 8)


def test_a_profile_is_followed_in_every_kind_of_picture():
    stored, shown = (144, 255, 60), (0, 255, 0)
    image = Image.new("RGB", (16, 16), stored)
    transparent = image.convert("RGBA")
    transparent.putalpha(Image.new("L", (16, 16), 255))
    transparent.paste((0, 0, 0, 0), (0, 0, 4, 16))
    for content in (
        samples.saved(image.quantize(4), "PNG", icc_profile=ADOBE_RGB),
        samples.saved(transparent, "PNG", icc_profile=ADOBE_RGB),
        samples.tiff(
            np.tile(np.array(stored, np.uint16) * 257, (16, 16, 1)),
            photometric="rgb", compression="zstd", iccprofile=ADOBE_RGB,
        ),
    ):  # fmt: skip
        assert samples.near(middle(content), shown, 14)
    found = decoded(samples.saved(transparent, "PNG", icc_profile=ADOBE_RGB)).image
    assert found.getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_the_profile_of_inks_is_followed(kind: str):
    for ink, shown in {(0, 0, 0, 0): (255, 255, 255), (255, 0, 0, 0): (255, 0, 0)}.items():
        image = Image.new("CMYK", (16, 16), ink)
        content = samples.saved(image, kind, icc_profile=samples.ink_profile())
        assert samples.near(middle(content), shown, 16), (ink, middle(content))


@pytest.mark.parametrize(
    "profile",
    [b"no profile", b"", ADOBE_RGB[:200], ADOBE_RGB[:128] + bytes(300), samples.ink_profile()],
    ids=["text", "empty", "cut off", "zeros", "of inks"],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_profile_that_is_broken_or_does_not_fit_is_ignored(profile: bytes, mode: str):
    image = Image.new("RGB", (16, 16), (90, 90, 90)).convert(mode)
    assert middle(samples.saved(image, "PNG", icc_profile=profile)) == (90, 90, 90)


def test_srgb_itself_changes_no_level():
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)
    found = decoded(samples.saved(Image.fromarray(noise), "PNG", icc_profile=content)).image
    assert (np.asarray(found) == noise).all()


def test_a_profile_is_followed_once():
    image = Image.new("RGB", (16, 16), (144, 255, 60))
    image.info["icc_profile"] = ADOBE_RGB
    once = to_rgb(image)
    assert samples.near(once.getpixel((1, 1)), (0, 255, 0), 14)
    assert to_rgb(once).getpixel((1, 1)) == once.getpixel((1, 1))
    assert image.info["icc_profile"] == ADOBE_RGB


def test_lab_has_its_colours():
    red = np.tile(np.array([138, 81, 70], np.uint8), (16, 16, 1))  # 54.3, 80.8, 69.9 under D50
    content = samples.tiff(red, photometric="cielab")
    assert samples.near(middle(content), (255, 0, 0), 14)
    grey = np.tile(np.array([137, 0, 0], np.uint8), (16, 16, 1))
    assert samples.near(middle(samples.tiff(grey, photometric="cielab")), (128, 128, 128), 4)


# -- cost ----------------------------------------------------------------------------------


def test_the_libraries_for_rare_formats_are_loaded_for_rare_formats_only(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(samples.sample("png"))
    (tmp_path / "a.tif").write_bytes(samples.sample("tiff"))
    code = (
        "import sys, es_imgsearch.read.workers\n"
        "from es_imgsearch.read.file import read_file\n"
        "from es_imgsearch.read.preparation import Preparation\n"
        "for name in ('a.png', 'a.tif'):\n"
        f"    read_file({str(tmp_path)!r} + '/' + name, Preparation(), max_pixels=10**6)\n"
        "print([name for name in ('rawpy', 'tifffile', 'imagecodecs') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
