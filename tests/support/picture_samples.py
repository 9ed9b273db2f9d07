"""Small pictures in every format, made when asked for."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import tifffile
from PIL import Image

pillow_heif.register_heif_opener()

RED, GREEN, BLUE, YELLOW = (230, 30, 30), (30, 180, 30), (30, 30, 220), (230, 220, 40)
SIZE = (64, 48)

# format as the documents name it: (Pillow's name, suffix, options of `save`)
WRITTEN: dict[str, tuple[str, str, dict[str, Any]]] = {
    "avif": ("AVIF", ".avif", {"quality": 90}),
    "bmp": ("BMP", ".bmp", {}),
    "dds": ("DDS", ".dds", {}),
    "dib": ("DIB", ".dib", {}),
    "gif": ("GIF", ".gif", {}),
    "heif": ("HEIF", ".heic", {"quality": 90}),
    "ico": ("ICO", ".ico", {"sizes": [SIZE]}),
    "jpeg": ("JPEG", ".jpg", {"quality": 95}),
    "jpeg2000": ("JPEG2000", ".jp2", {}),
    "pcx": ("PCX", ".pcx", {}),
    "png": ("PNG", ".png", {}),
    "ppm": ("PPM", ".ppm", {}),
    "qoi": ("QOI", ".qoi", {}),
    "sgi": ("SGI", ".sgi", {}),
    "tga": ("TGA", ".tga", {}),
    "tiff": ("TIFF", ".tif", {}),
    "webp": ("WEBP", ".webp", {"quality": 95}),
}


def four_corners(size: tuple[int, int] = SIZE) -> Image.Image:
    """Red, green / blue, yellow."""
    width, height = size
    image = Image.new("RGB", size, RED)
    image.paste(GREEN, (width // 2, 0, width, height))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(YELLOW, (width // 2, height // 2, width, height))
    return image


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Colours of the middles of the four quarters, in reading order."""
    width, height = image.size
    return [
        image.getpixel((width * x // 4, height * y // 4))
        for y in (1, 3)
        for x in (1, 3)
    ]  # fmt: skip


def near(one: Any, other: Any, tolerance: float = 25) -> bool:
    return bool(np.abs(np.asarray(one, float) - np.asarray(other, float)).max() <= tolerance)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@cache
def sample(name: str) -> bytes:
    """The four corners in one of WRITTEN."""
    kind, _, options = WRITTEN[name]
    return saved(four_corners(), kind, **options)


@cache
def noisy(name: str) -> bytes:
    """Noise, so that no part of the file can be missing without being missed."""
    kind, _, options = WRITTEN[name]
    noise = np.random.default_rng(7).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    return saved(image.quantize(256) if kind == "GIF" else image, kind, **options)


def psd() -> bytes:
    """Pillow reads PSD and cannot write it: planes of raw bytes."""
    width, height = SIZE
    head = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, height, width, 8, 3)
    planes = np.asarray(four_corners()).transpose(2, 0, 1).tobytes()
    return head + struct.pack(">IIIH", 0, 0, 0, 0) + planes


def xpm() -> bytes:
    rows = ["rg" * 0 + "r" * 4 + "g" * 4] * 3 + ["b" * 4 + "y" * 4] * 3
    colours = {"r": RED, "g": GREEN, "b": BLUE, "y": YELLOW}
    lines = [f'"8 6 {len(colours)} 1",']
    lines += [f'"{key} c #{r:02x}{g:02x}{b:02x}",' for key, (r, g, b) in colours.items()]
    lines += [f'"{row}",' for row in rows]
    return "\n".join(["/* XPM */", "static char *p[] = {", *lines, "};"]).encode()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, pixels: bytes, *chunks: bytes) -> bytes:
    """A PNG of any header and (unfiltered, uncompressed) scan lines; chunks go before the data."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            head,
            *chunks,
            png_chunk(b"IDAT", zlib.compress(pixels)),
            png_chunk(b"IEND", b""),
        ]
    )


def exif_bytes(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


# -- RAW -----------------------------------------------------------------------------------

# XYZ (D65) to the linear RGB of a sensor that sees just like sRGB.
_SENSOR = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)


def dng(
    image: Image.Image,
    preview: Image.Image | None = None,
    orientation: int = 1,
    more_tags: Sequence[tuple[Any, ...]] = (),
    **options: Any,
) -> bytes:
    """A camera's RAW file: linear samples under a Bayer filter, and a JPEG preview if given.

    `image` and `preview` are as the sensor saw them, before `orientation` turns them upright.
    """
    camera = [
        (50706, "B", 4, (1, 4, 0, 0), True), (50707, "B", 4, (1, 1, 0, 0), True),
        (271, "s", 0, "Maker", True), (272, "s", 0, "Maker X1", True),
        (50708, "s", 0, "Maker X1", True), (50721, "2i", 9, _fractions(_SENSOR), True),
        (50728, "2I", 3, _fractions((1, 1, 1)), True), (50778, "H", 1, 21, True),
        (274, "H", 1, orientation, True), *more_tags,
    ]  # fmt: skip
    sensor = [
        (33421, "H", 2, (2, 2), True), (33422, "B", 4, (0, 1, 1, 2), True),
        (50714, "H", 1, 0, True), (50717, "H", 1, 65535, True),
    ]  # fmt: skip
    plain = {"metadata": None, "software": False}
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        if preview is not None:
            content = saved(preview, "JPEG", quality=95, subsampling=0)
            writer.write(
                iter([content]), shape=(preview.height, preview.width, 3), dtype="uint8",
                photometric="ycbcr", compression="jpeg", subsampling=(1, 1), subfiletype=1,
                rowsperstrip=preview.height, subifds=1, extratags=camera, **plain,
            )  # fmt: skip
        tags = sensor if preview is not None else camera + sensor
        writer.write(bayer(image), photometric="cfa", extratags=tags, **plain, **options)
    return stream.getvalue()


def bayer(image: Image.Image) -> np.ndarray:
    """What a sensor with filters red, green / green, blue measures; light is linear."""
    light = ((np.asarray(image) / 255) ** 2.2 * 65535).astype(np.uint16)
    seen = light[..., 1].copy()
    seen[::2, ::2], seen[1::2, 1::2] = light[::2, ::2, 0], light[1::2, 1::2, 2]
    return seen


def _fractions(numbers: tuple[float, ...]) -> list[int]:
    return [part for number in numbers for part in (round(number * 10_000), 10_000)]


# -- what tifffile and imagecodecs write ---------------------------------------------------


def tiff(samples: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, samples, metadata=None, **options)
    return stream.getvalue()


def corners_array(dtype: Any, top: float, channels: int = 3) -> np.ndarray:
    """The four corners with `top` for 255; a fourth channel is opaque."""
    samples = np.asarray(four_corners()) / 255 * top
    if channels == 4:
        samples = np.dstack([samples, np.full(samples.shape[:2], top)])
    return samples.astype(dtype)


def jxl(image: Image.Image | np.ndarray, **options: Any) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(np.asarray(image), **options))


# -- colour profiles -----------------------------------------------------------------------

ADOBE_RGB = (
    (0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457),
)  # fmt: skip
DISPLAY_P3 = (
    (0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407),
)  # fmt: skip


def rgb_profile(primaries: tuple[tuple[float, ...], ...], gamma: float = 2.2) -> bytes:
    """An ICC profile of a display; `primaries` are XYZ under D50."""
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256))
    tags = {f"{name}TRC".encode(): curve for name in "rgb"}
    tags |= {f"{n}XYZ".encode(): _xyz(xyz) for n, xyz in zip("rgb", primaries, strict=True)}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def ink_profile() -> bytes:
    """An ICC profile of a press whose cyan ink is red, and whose other inks are black."""
    paper, red, black = (255, 128, 128), (138, 209, 198), (0, 128, 128)  # Lab
    table = [
        (black if others else red if cyan else paper)
        for cyan in (0, 1)
        for others in range(8)
    ]  # fmt: skip
    line = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0])
    lut += struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9)))
    lut += line * 4 + bytes(level for lab in table for level in lab) + line * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})


def _xyz(numbers: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(n * 65536) for n in numbers))


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    directory, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        directory += name + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    head = struct.pack(">I4xI", start + len(data), 0x02400000) + kind + space + connection
    head += bytes(12) + b"acsp" + bytes(28) + _xyz((0.9642, 1.0, 0.8249))[8:]
    return head.ljust(128, b"\0") + directory + data


# -- files to damage -----------------------------------------------------------------------


def good_files() -> dict[str, bytes]:
    """Suffix (made unique by a stem) to content, small and each of its own format."""
    files = {f"{name}{WRITTEN[name][1]}": sample(name) for name in WRITTEN}
    image = four_corners()
    files |= {
        "palette.png": saved(image.quantize(16), "PNG", transparency=0),
        "grey16.png": saved(image.convert("I;16"), "PNG"),
        "float.tif": saved(image.convert("F"), "TIFF"),
        "lzw.tif": saved(image, "TIFF", compression="tiff_lzw"),
        "cmyk.jpg": saved(image.convert("CMYK"), "JPEG"),
        "progressive.jpg": saved(image, "JPEG", progressive=True),
        "turned.jpg": saved(image, "JPEG", exif=exif_bytes(6)),
        "bits.xbm": saved(image.convert("1"), "XBM"),
        "frames.gif": saved(
            image, "GIF", save_all=True, append_images=[image.rotate(90)], duration=10
        ),
        "picture.psd": psd(),
        "picture.xpm": xpm(),
    }
    files |= {
        "preview.dng": dng(four_corners((128, 96)), image),
        "developed.dng": dng(four_corners((128, 96))),
        "lossy.jxl": jxl(image, level=90),
        "container.jxl": jxl(image, lossless=True, usecontainer=True),
        "float-rgb.tif": tiff(corners_array(np.float32, 1.0), photometric="rgb"),
        "double-lzw.tif": tiff(
            corners_array(np.float64, 1.0), photometric="rgb", compression="lzw", predictor=True
        ),
        "planes.tif": tiff(
            corners_array(np.uint16, 65535).transpose(2, 0, 1),
            photometric="rgb",
            planarconfig="separate",
        ),
        "bigtiff.tif": tiff(corners_array(np.uint16, 65535), photometric="rgb", bigtiff=True),
        "adobe-rgb.png": saved(image, "PNG", icc_profile=rgb_profile(ADOBE_RGB)),
        "inks.jpg": saved(image.convert("CMYK"), "JPEG", icc_profile=ink_profile()),
    }
    return files


def mutated(content: bytes, others: list[bytes], dice: random.Random) -> bytes:
    changed = bytearray(content)
    kind = dice.randrange(5)
    if kind == 0:  # bytes flipped anywhere
        for _ in range(dice.randint(1, 30)):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
    elif kind == 1:  # bytes flipped in the header, where sizes and offsets stand
        for _ in range(dice.randint(1, 6)):
            changed[dice.randrange(min(64, len(changed)))] = dice.choice([0, 1, 127, 255])
    elif kind == 2:  # cut off
        del changed[dice.randrange(len(changed)) :]
    elif kind == 3:  # the header of another format
        other = dice.choice(others)
        length = dice.choice([4, 16, 40])
        changed[:length] = other[:length]
    else:  # a piece moved or repeated
        start, length = dice.randrange(len(changed)), dice.randrange(1, 200)
        at = dice.randrange(len(changed))
        changed[at:at] = changed[start : start + length]
    return bytes(changed)
