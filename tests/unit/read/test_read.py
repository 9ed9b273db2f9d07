"""Files of every kind become upright RGB pictures, skips, or failures with a known name."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from es_imgsearch.errors import ReadError
from es_imgsearch.read import file as read
from es_imgsearch.read.decoding import decode
from es_imgsearch.read.file import Skipped, read_file
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.records import FileSignature, FileState, Picture
from tests.support import picture_samples as samples
from tests.support.processes import without_root

PREPARATION = Preparation(width=32, height=32, mode="squash")
MAX_PIXELS = 1_000_000
UPRIGHT = [samples.RED, samples.GREEN, samples.BLUE, samples.YELLOW]

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]


def put(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def read_(path: str | Path, *describers: Any, max_pixels: int = MAX_PIXELS) -> Picture | Skipped:
    return read_file(str(path), PREPARATION, describers, max_pixels=max_pixels)


def failure(path: str | Path, **options: Any) -> str:
    with pytest.raises(ReadError) as caught:
        read_(path, **options)
    return caught.value.error_class


def decoded(content: bytes, suffix: str = "") -> Image.Image:
    return decode(content, max_pixels=MAX_PIXELS, suffix=suffix).image


# -- formats -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", samples.WRITTEN)
def test_every_format_is_read_with_its_size_colours_and_name(name: str, tmp_path: Path):
    path = put(tmp_path, f"picture{samples.WRITTEN[name][1]}", samples.sample(name))
    picture = read_(path)
    assert isinstance(picture, Picture)
    fields = picture.fields
    assert (fields["format"], fields["width"], fields["height"]) == (name, *samples.SIZE)
    assert fields["orientation"] == "landscape"
    assert picture.pixels.shape == (32, 32, 3)
    assert samples.near(samples.corners(Image.fromarray(picture.pixels)), UPRIGHT)
    means = np.asarray(samples.four_corners().resize((32, 32))).mean(axis=(0, 1))
    assert samples.near(picture.pixels.mean(axis=(0, 1)), means, 6)
    assert picture.state == FileState.of(os.stat(path))
    assert picture.read_ms > 0


@pytest.mark.parametrize(
    ("name", "content"), [("psd", samples.psd()), ("xpm", samples.xpm())]
)  # fmt: skip
def test_formats_that_pillow_reads_only_are_read(name: str, content: bytes):
    found = decode(content, max_pixels=MAX_PIXELS)
    assert found.format.lower() == name
    assert samples.near(samples.corners(found.image), UPRIGHT)


def test_the_largest_picture_of_an_icns_is_taken():
    content = samples.saved(samples.four_corners((128, 128)), "ICNS")
    image = decode(content, max_pixels=1024 * 1024).image
    assert image.size == (1024, 1024)
    assert samples.near(samples.corners(image), UPRIGHT)


def test_a_phones_several_pictures_in_one_jpeg_are_one_jpeg():
    content = samples.saved(
        samples.four_corners(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))]
    )
    assert Image.open(io.BytesIO(content)).format == "MPO"
    found = decode(content, max_pixels=MAX_PIXELS)
    assert found.format == "JPEG"
    assert samples.near(samples.corners(found.image), UPRIGHT)


def test_xbm_and_pbm_of_one_bit_are_black_and_white():
    image = Image.new("1", (16, 16), 1)
    image.paste(0, (0, 0, 8, 16))
    for kind in ("PPM", "PNG", "TIFF", "BMP"):
        found = decoded(samples.saved(image, kind))
        assert [found.getpixel((2, 2)), found.getpixel((12, 2))] == [(0, 0, 0), (255, 255, 255)]
    assert {*decoded(samples.saved(image, "XBM")).get_flattened_data()} == {
        (0, 0, 0),
        (255, 255, 255),
    }


# -- orientation ---------------------------------------------------------------------------

# What is stored so that orientation N shows the four corners upright.
_UNTURN = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def turned(orientation: int) -> Image.Image:
    image, method = samples.four_corners(), _UNTURN[orientation]
    return image if method is None else image.transpose(method)


@pytest.mark.parametrize("orientation", _UNTURN)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_a_camera_held_any_way_gives_an_upright_picture(kind: str, orientation: int):
    content = samples.saved(turned(orientation), kind, exif=samples.exif_bytes(orientation))
    image = decoded(content)
    assert image.size == samples.SIZE
    assert samples.near(samples.corners(image), UPRIGHT, 40)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(value: int):
    image = decoded(samples.saved(samples.four_corners(), "JPEG", exif=samples.exif_bytes(value)))
    assert samples.near(samples.corners(image), UPRIGHT)


def test_width_and_height_are_those_of_the_upright_picture(tmp_path: Path):
    content = samples.saved(samples.four_corners(), "JPEG", exif=samples.exif_bytes(6))
    picture = read_(put(tmp_path, "a.jpg", content))
    assert isinstance(picture, Picture)
    fields = picture.fields
    assert (fields["width"], fields["height"], fields["orientation"]) == (48, 64, "portrait")


# -- transparency and modes ----------------------------------------------------------------


def with_alpha(mode: str) -> Image.Image:
    """Left half opaque (or light grey), right half fully transparent black."""
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    image.paste((200, 100, 100, 255), (0, 0, 8, 16))
    return image if mode == "RGBA" else image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGBA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF"), ("RGBA", "AVIF"), ("RGBA", "HEIF"),
     ("RGBA", "TGA"), ("RGBA", "ICO"), ("RGBA", "JPEG2000"), ("RGBA", "DDS"), ("RGBA", "QOI"),
     ("LA", "PNG"), ("LA", "TIFF"), ("PA", "PNG"), ("RGBA", "GIF")],
)  # fmt: skip
def test_what_is_transparent_is_white(mode: str, kind: str):
    options = {"ICO": {"sizes": [(16, 16)]}, "WEBP": {"lossless": True}}.get(kind, {})
    image = with_alpha("RGBA" if mode == "PA" else mode)
    if mode == "PA":
        image = image.quantize(16)
    found = decoded(samples.saved(image, kind, **options), ".tga")
    assert samples.near(found.getpixel((13, 8)), (255, 255, 255), 6)
    opaque = (200, 100, 100) if mode != "LA" else (130, 130, 130)
    assert samples.near(found.getpixel((2, 8)), opaque, 15)


def test_half_transparent_black_is_middle_grey():
    content = samples.saved(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), "PNG")
    assert samples.near(decoded(content).getpixel((4, 4)), (127, 127, 127), 2)


@pytest.mark.parametrize(
    ("colour", "pixel", "key"),
    [
        (0, bytes([40]), struct.pack(">H", 40)),
        (2, bytes([10, 20, 30]), struct.pack(">HHH", 10, 20, 30)),
    ],
    ids=["grey", "rgb"],
)
def test_the_key_colour_of_a_png_is_white(colour: int, pixel: bytes, key: bytes):
    lines = b"".join(b"\0" + pixel * 2 + bytes([90]) * len(pixel) * 2 for _ in range(4))
    image = decoded(samples.png(4, 4, 8, colour, lines, samples.png_chunk(b"tRNS", key)))
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.getpixel((3, 0)) == (90, 90, 90)


def test_a_palette_with_a_transparent_entry_is_white_there():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.paste(0, (0, 0, 4, 8))
    for kind in ("PNG", "GIF"):
        found = decoded(samples.saved(image, kind, transparency=0))
        assert found.getpixel((1, 1)) == (255, 255, 255)
        assert samples.near(found.getpixel((6, 6)), (0, 0, 200), 2)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_read_with_its_colours(kind: str):
    content = samples.saved(samples.four_corners().convert("CMYK"), kind, quality=95)
    assert samples.near(samples.corners(decoded(content)), UPRIGHT, 12)


def test_adobes_inverted_cmyk_jpeg_is_not_a_negative():
    content = samples.saved(samples.four_corners().convert("CMYK"), "JPEG", quality=95)
    marker = content.index(b"\xff\xee\x00\x0eAdobe")
    assert samples.near(samples.corners(decoded(content)), UPRIGHT, 12)
    # Files without the marker follow the same convention, and Pillow knows it.
    without = content[:marker] + content[marker + 16 :]
    assert samples.near(samples.corners(decoded(without)), UPRIGHT, 12)


@pytest.mark.parametrize(("mode", "kind"), [("I;16", "PNG"), ("I;16", "TIFF"), ("I;16B", "TIFF")])
def test_sixteen_bit_grey_fills_its_range(mode: str, kind: str):
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (16, 1))
    if mode == "I;16B":
        image = Image.frombytes("I;16B", (64, 16), ramp.astype(">u2").tobytes())
    else:
        image = Image.fromarray(ramp)
    found = np.asarray(decoded(samples.saved(image, kind)))
    assert samples.near(found[8, :, 0], np.linspace(0, 255, 64), 1)


def test_dark_sixteen_bit_grey_stays_dark():
    image = Image.fromarray(np.full((8, 8), 6553, np.uint16))
    assert samples.near(decoded(samples.saved(image, "PNG")).getpixel((4, 4)), (26, 26, 26), 1)


def test_sixteen_bit_colour_of_png_and_tiff_loses_its_low_byte_only():
    pixel = struct.pack(">HHH", 0xE61E, 0x1E1E, 0x801E)
    image = decoded(samples.png(4, 4, 16, 2, (b"\0" + pixel * 4) * 4))
    assert samples.near(image.getpixel((1, 1)), (0xE6, 0x1E, 0x80), 1)
    entries = [
        (256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 3, 8 + 2 + 9 * 12 + 4), (259, 3, 1, 1),
        (262, 3, 1, 2), (273, 4, 1, 8 + 2 + 9 * 12 + 4 + 6), (277, 3, 1, 3), (278, 3, 1, 4),
        (279, 4, 1, 96),
    ]  # fmt: skip
    tiff = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    tiff += b"".join(struct.pack("<HHII", *entry) for entry in entries)
    tiff += struct.pack("<IHHH", 0, 16, 16, 16) + struct.pack("<HHH", 0xE61E, 0x1E1E, 0x801E) * 16
    assert samples.near(decoded(tiff).getpixel((1, 1)), (0xE6, 0x1E, 0x80), 1)


def test_floats_are_stretched_over_what_is_there():
    ramp = np.tile(np.linspace(-3, 1000, 64).astype(np.float32), (16, 1))
    found = np.asarray(decoded(samples.saved(Image.fromarray(ramp), "TIFF")))
    assert samples.near(found[8, :, 0], np.linspace(0, 255, 64), 1)
    ramp[0, 0], ramp[0, 1] = np.nan, np.inf
    assert decoded(samples.saved(Image.fromarray(ramp), "TIFF")).mode == "RGB"


def test_thirty_two_bit_integers_are_read():
    ramp = np.tile(np.linspace(0, 1_000_000, 64).astype(np.int32), (16, 1))
    found = np.asarray(decoded(samples.saved(Image.fromarray(ramp), "TIFF")))
    assert samples.near(found[8, :, 0], np.linspace(0, 255, 64), 1)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind: str):
    content = samples.saved(
        samples.four_corners(),
        kind,
        save_all=True,
        append_images=[Image.new("RGB", samples.SIZE, colour) for colour in ("black", "white")],
        duration=100,
    )
    assert Image.open(io.BytesIO(content)).n_frames == 3
    assert samples.near(samples.corners(decoded(content)), UPRIGHT)


# -- content, not names --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.heic", "a.txt", "a", "a.JPG", "a.tga", "a.pcx"])
def test_a_jpeg_is_a_jpeg_whatever_its_name(name: str, tmp_path: Path):
    picture = read_(put(tmp_path, name, samples.sample("jpeg")))
    assert isinstance(picture, Picture)
    assert picture.fields["format"] == "jpeg"


TEXTS = {
    "prose": b"Dear all,\nplease find enclosed the minutes.\n",
    "starts with BM": b"BMW invoice no. 4711, please pay within a fortnight.\n" * 3,
    "starts with P4": b"P4 meeting notes\n1. budget\n2. lunch\n",
    "starts with P6": b"P6 is a ward of the hospital.\n",
    "c source": b"#define WIDTH 10\n#define HEIGHT 20\nint main(void) { return 0; }\n",
    "GIF8": b"GIF8 is not a version.",
    "pdf": b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n%%EOF\n",
    "mp4": b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41\0\0\0\x08free" + bytes(64),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n",
    "html": b"<!DOCTYPE html><title>x</title>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "zeros": bytes(4096),
}


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.jpg", samples.sample("jpeg"))
    return buffer.getvalue()


@pytest.mark.parametrize("what", [*TEXTS, "zip"])
@pytest.mark.parametrize("name", ["notes.txt", "notes", "film.mp4"])
def test_what_is_no_picture_and_not_called_one_is_skipped(what: str, name: str, tmp_path: Path):
    content = TEXTS.get(what) or zipped()
    assert read_(put(tmp_path, name, content)) is Skipped.NOT_A_PICTURE


@pytest.mark.parametrize("what", [*TEXTS, "zip"])
@pytest.mark.parametrize("name", ["notes.jpg", "notes.TGA"])
def test_what_is_called_a_picture_and_is_none_is_a_failure(what: str, name: str, tmp_path: Path):
    content = TEXTS.get(what) or zipped()
    assert failure(put(tmp_path, name, content)) in {"unidentified", "corrupt", "truncated"}
    if what in {"prose", "pdf", "mp4", "zip", "html", "svg"} and name == "notes.jpg":
        assert failure(put(tmp_path, name, content)) == "unidentified"


def test_an_empty_file_is_a_failure_if_called_a_picture(tmp_path: Path):
    assert failure(put(tmp_path, "a.jpg", b"")) == "empty"
    assert read_(put(tmp_path, "a.txt", b"")) is Skipped.NOT_A_PICTURE


@given(st.binary(max_size=200), st.sampled_from([".jpg", ".tga", ".pcx", ".txt", ""]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_bytes_are_never_anything_else(content: bytes, suffix: str):
    told = None
    try:
        decode(content, max_pixels=MAX_PIXELS, suffix=suffix)
    except ReadError as error:
        told = error
    assert told is None or told.error_class in DOCUMENTED
    assert told is None or told.message.encode()


DOCUMENTED = {
    line.split()[0]
    for line in (read.__doc__ or "").splitlines()
    if line.startswith("    ") and line.strip()
}


def test_the_error_classes_are_documented():
    assert {"empty", "unidentified", "truncated", "corrupt", "too_large", "timeout"} <= DOCUMENTED


# -- broken files --------------------------------------------------------------------------


@pytest.mark.parametrize("name", samples.WRITTEN)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_file_that_ends_too_early_is_never_a_picture(name: str, share: float, tmp_path: Path):
    content = samples.noisy(name)
    path = put(tmp_path, f"a{samples.WRITTEN[name][1]}", content[: int(len(content) * share)])
    assert failure(path) in {"truncated", "corrupt"}


def test_the_classic_half_jpeg_is_called_truncated(tmp_path: Path):
    content = samples.noisy("jpeg")
    assert failure(put(tmp_path, "a.jpg", content[: len(content) // 2])) == "truncated"
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_too_many_pixels_are_refused_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _self: pytest.fail("decoded"))
    path = put(tmp_path, "a.png", samples.png(60_000, 60_000, 8, 2, b"\0"))
    assert failure(path, max_pixels=250_000_000) == "too_large"


def test_a_picture_inside_an_icon_may_not_be_larger_than_the_icon_says(tmp_path: Path):
    inner = samples.png(60_000, 60_000, 8, 2, b"\0")
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    assert failure(put(tmp_path, "a.ico", icon)) == "too_large"


def test_pillows_own_limit_is_left_as_it_was():
    before = Image.MAX_IMAGE_PIXELS
    decoded(samples.sample("png"))
    with pytest.raises(ReadError):
        decode(b"no picture", max_pixels=MAX_PIXELS)
    assert before == Image.MAX_IMAGE_PIXELS
    assert before is not None


def test_a_picture_at_the_limit_is_read():
    width, height = samples.SIZE
    assert decode(samples.sample("png"), max_pixels=width * height).image.size == samples.SIZE
    with pytest.raises(ReadError, match="64 x 48"):
        decode(samples.sample("png"), max_pixels=width * height - 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_shapes_are_prepared(size: tuple[int, int], tmp_path: Path):
    path = put(tmp_path, "a.png", samples.saved(Image.new("RGB", size, samples.RED), "PNG"))
    for preparation in (PREPARATION, Preparation(), Preparation(width=32, height=32, resize=40)):
        picture = read_file(path, preparation, max_pixels=MAX_PIXELS)
        assert isinstance(picture, Picture)
        assert samples.near(picture.pixels.mean(axis=(0, 1)), samples.RED, 2)


# -- what is no plain file -----------------------------------------------------------------


def test_pipes_sockets_folders_and_devices_are_skipped_without_waiting(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))
        for path in ("pipe.jpg", "folder.jpg", "/dev/null", "/dev/zero"):
            assert read_(tmp_path / path) is Skipped.NOT_A_PICTURE
        # It cannot be opened; a file of a mount that does not answer says the same.
        assert read_(tmp_path / "socket.jpg") is Skipped.GONE


def test_what_is_not_there_is_gone(tmp_path: Path):
    put(tmp_path, "file", b"x")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    for path in ("none.jpg", "file/none.jpg", "loop.jpg"):
        assert read_(tmp_path / path) is Skipped.GONE


def test_a_link_to_a_picture_is_read(tmp_path: Path):
    put(tmp_path, "a.png", samples.sample("png"))
    (tmp_path / "link").symlink_to("a.png")
    assert isinstance(read_(tmp_path / "link"), Picture)


def test_a_file_that_may_not_be_read_is_a_failure(tmp_path: Path):
    path = put(tmp_path, "a.png", samples.sample("png"))
    os.chmod(path, 0)
    assert without_root(lambda: failure(path), tmp_path) == "permission_denied"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT])
def test_a_disk_that_fails_while_a_picture_is_decoded_is_told_apart(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def load(_self: ImageFile.ImageFile) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert failure(put(tmp_path, "a.bmp", samples.sample("bmp"))) == "io_error"


# -- files that change ---------------------------------------------------------------------


def test_a_file_that_changes_while_it_is_read_is_neither_picture_nor_failure(tmp_path: Path):
    path = put(tmp_path, "a.png", samples.sample("png"))

    def grow(_image: Image.Image, _exif: Image.Exif, at: str) -> dict[str, Any]:
        with open(at, "ab") as file:
            file.write(b"more")
        return {}

    assert read_(path, ("grow", grow)) is Skipped.CHANGING


def test_half_a_file_that_is_still_being_written_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = put(tmp_path, "a.jpg", samples.noisy("jpeg")[:2000])
    decode_ = read.decode

    def decode_and_grow(*given: Any, **options: Any) -> Any:
        with open(path, "ab") as file:
            file.write(b"more")
        return decode_(*given, **options)

    monkeypatch.setattr(read, "decode", decode_and_grow)
    assert read_(path) is Skipped.CHANGING


def test_a_file_that_a_file_server_holds_a_lease_on_is_waited_for(tmp_path: Path):
    path = put(tmp_path, "a.png", samples.sample("png"))
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    holder = os.open(path, os.O_RDWR)
    try:
        try:
            fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:
            pytest.skip("this file system has no leases")
        assert read_(path) is Skipped.CHANGING
    finally:
        os.close(holder)
        signal.signal(signal.SIGIO, before)


# -- describers and identity ---------------------------------------------------------------


def test_a_describer_that_raises_costs_its_own_fields_only(tmp_path: Path):
    def bad(*_given: Any) -> dict[str, Any]:
        raise KeyError("palette")

    def good(image: Image.Image, _exif: Image.Exif, path: str) -> dict[str, Any]:
        return {"caption": f"{image.mode} {image.size} {Path(path).name}"}

    picture = read_(put(tmp_path, "a.png", samples.sample("png")), ("bad", bad), ("good", good))
    assert isinstance(picture, Picture)
    assert picture.fields["caption"] == "RGB (64, 48) a.png"
    assert picture.fields["describe_errors"] == ["bad: KeyError: 'palette'"]


@pytest.mark.parametrize("value", [{1, 2}, object(), math.nan, Image.new("L", (1, 1)), 2**70])
def test_a_describer_whose_fields_cannot_be_written_costs_them_only(value: Any, tmp_path: Path):
    picture = read_(
        put(tmp_path, "a.png", samples.sample("png")), ("bad", lambda *_: {"caption": value})
    )
    assert isinstance(picture, Picture)
    assert "caption" not in picture.fields
    (told,) = picture.fields["describe_errors"]
    assert told.startswith("bad: ")


def test_of_what_a_describer_gives_only_what_cannot_be_written_is_left_out(tmp_path: Path):
    fields = {"caption": "caf\udce9", "tags": ["a", {1}], "iso": 5, "title": b"x", 7: 8}
    path = put(tmp_path, "a.png", samples.sample("png"))
    picture = read_(path, ("bad", lambda *_: fields))
    assert isinstance(picture, Picture)
    found = {name: value for name, value in picture.fields.items() if name in fields}
    assert found == {"caption": r"caf\udce9", "tags": ["a"], "iso": 5}
    assert picture.fields["describe_errors"] == [
        "bad: left out: tags: a set is no JSON",
        "bad: left out: title: a bytes is no JSON",
        "bad: left out: 7: the name of a field is a text",
    ]


def test_an_error_that_names_an_undecodable_path_can_be_written(tmp_path: Path):
    def bad(_image: Image.Image, _exif: Image.Exif, path: str) -> dict[str, Any]:
        raise ValueError(path)

    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    Path(path).write_bytes(samples.sample("png"))
    picture = read_(path, ("bad", bad))
    assert isinstance(picture, Picture)
    (told,) = picture.fields["describe_errors"]
    assert r"caf\udce9" in told.encode().decode()


def test_copies_have_one_content_and_other_bytes_another(tmp_path: Path):
    contents = [samples.sample("png"), samples.sample("png"), samples.sample("png") + b"\0"]
    pictures = [read_(put(tmp_path, f"{n}.png", each)) for n, each in enumerate(contents)]
    ids = [picture.content_id for picture in pictures if isinstance(picture, Picture)]
    assert ids[0] == ids[1] != ids[2]
    assert all(len(each) == 32 for each in ids)


def test_exif_can_be_read_by_describers_in_every_format_that_has_it(tmp_path: Path):
    exif = Image.Exif()
    exif[0x010F], exif[0x8769] = "Maker", {0x9003: "2024:05:31 18:00:00"}

    def describe(_image: Image.Image, found: Image.Exif, _path: str) -> dict[str, Any]:
        return {"camera": found.get(0x010F), "title": found.get_ifd(0x8769).get(0x9003)}

    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"):
        content = samples.saved(samples.four_corners(), kind, exif=exif.tobytes())
        picture = read_(put(tmp_path, f"{kind}.jpg", content), ("exif", describe))
        assert isinstance(picture, Picture)
        assert "describe_errors" not in picture.fields, kind
        assert (picture.fields["camera"], picture.fields["title"]) == (
            "Maker",
            "2024:05:31 18:00:00",
        ), kind


def test_reading_loads_neither_torch_nor_the_elasticsearch_client():
    code = (
        "import sys, es_imgsearch.read.workers, es_imgsearch.describe.exif;"
        "print([name for name in ('torch', 'elasticsearch', 'sentence_transformers')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- a file that changes while it is read ------------------------------------------------------


@pytest.mark.parametrize("is_large", [False, True])
def test_content_id_and_pixels_are_of_the_same_bytes(
    is_large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Other bytes of the same size and time are written between decoding and hashing."""
    old, new = (samples.saved(Image.new("RGB", (32, 32), each), "BMP") for each in ("red", "blue"))
    path = put(tmp_path, "a.bmp", old)
    status = os.stat(path)

    def decode_then_change(*arguments: Any, **options: Any):
        result = decode(*arguments, **options)
        put(tmp_path, "a.bmp", new)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return result

    monkeypatch.setattr(read, "decode", decode_then_change)
    if is_large:
        monkeypatch.setattr(read, "_WHOLE_BYTES", 100)
    outcome = read_(path)
    if is_large:
        assert outcome is Skipped.CHANGING
    else:
        assert isinstance(outcome, Picture)
        assert outcome.pixels[0, 0].tolist() == [255, 0, 0]
        assert outcome.content_id == hashlib.blake2b(old, digest_size=16).hexdigest()


def test_a_picture_carries_inode_and_times_of_its_own_read(tmp_path: Path):
    path = put(tmp_path, "a.bmp", samples.saved(Image.new("RGB", (32, 32)), "BMP"))
    began_at = time.monotonic()
    picture = read_(path)
    assert isinstance(picture, Picture)
    assert picture.signature == FileSignature.of(os.stat(path))
    assert began_at <= picture.read_began_at <= time.monotonic()


def test_of_a_large_file_that_is_no_picture_only_the_beginning_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = put(tmp_path, "film.mp4", b"\0\0\0\x18ftypmp42" + bytes(2**20))
    monkeypatch.setattr(read, "_content_id", None)
    assert read_(path) is Skipped.NOT_A_PICTURE
