"""Decode any format to an upright sRGB picture, or raise a ReadError."""

from __future__ import annotations

import errno
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import IO

from PIL import ExifTags, Image, UnidentifiedImageError

from es_imgsearch.errors import ReadError
from es_imgsearch.read import jpeg_xl, rare_formats
from es_imgsearch.read.packets import packets
from es_imgsearch.read.pixel_parts import PixelParts, parts_at_once, parts_of_refused
from es_imgsearch.read.pixel_parts.tiff import BEGINNINGS as TIFF_BEGINNINGS
from es_imgsearch.read.rare_formats import HeaderInvalid
from es_imgsearch.read.srgb import shrunk, to_rgb
from es_imgsearch.records import utf8

# Formats that say what they are in their first bytes.  Left out on purpose: EPS, PDF and WMF
# (they start interpreters), video, and documents.
_FORMATS = [
    "AVIF", "BLP", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PNG",
    "PPM", "PSD", "QOI", "SGI", "TIFF", "WEBP", "XBM", "XPM",
]  # fmt: skip
# Formats whose first bytes fit half of all text files too: believed only with their suffix.
_WEAK_FORMATS = {".pcx": "PCX", ".tga": "TGA"}
PICTURE_SUFFIXES = rare_formats.RAW_SUFFIXES | {
    ".apng", ".avif", ".avifs", ".bmp", ".dds", ".dib", ".gif", ".heic", ".heics", ".heif",
    ".heifs", ".hif", ".icns", ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf",
    ".jpg", ".jpx", ".jxl", ".mpo", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".psd",
    ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp", ".xbm", ".xpm",
}  # fmt: skip


# Metadata as it stands in the file, by the names that Pillow gives it.
_PACKETS = {"xmp", "photoshop"}


@dataclass(frozen=True, slots=True)
class Decoded:
    """Upright RGB picture with format, EXIF and size.

    `size` is the width and height of the whole upright picture; `image` may be smaller.
    `image.info` holds its XMP packet (`xmp`, bytes) and Photoshop's resources (`photoshop`), where
    it has any, and whether some of it was transparent (see `srgb`).
    """

    image: Image.Image
    format: str
    exif: Image.Exif
    size: tuple[int, int]


@cache
def _known_formats() -> tuple[str, ...]:
    import pillow_heif

    pillow_heif.register_heif_opener()
    Image.init()
    # A Pillow built without some codec does not know its format at all.
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def decode(
    source: IO[bytes] | bytes,
    *,
    max_pixels: int,
    suffix: str = "",
    shorter_side_pixels: int | None = None,
) -> Decoded:
    """Identify and decode the first frame of a picture, upright, as sRGB.

    With `shorter_side_pixels` it may come out smaller, its shorter side not below that: a JPEG of
    12 megapixels is decoded at a quarter of its size in half the time.
    Raises ReadError; its class is `unidentified` where no known format fits.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    decoded = _decoded(file, max_pixels, suffix, shorter_side_pixels)
    decoded.image.info.update(packets(file, decoded.format))
    return decoded


def _decoded(
    file: IO[bytes], max_pixels: int, suffix: str, shorter_side_pixels: int | None
) -> Decoded:
    with as_read_errors():
        file.seek(0)
        prefix = file.read(16)
    if rare_formats.begins_like_raw(prefix, suffix):
        return _raw(file, max_pixels, shorter_side_pixels)
    if jpeg_xl.begins_like_jxl(prefix, suffix):
        with as_read_errors():
            image, exif = jpeg_xl.jxl_picture(file, max_pixels)
            colours = to_rgb(image, shorter_side_pixels)
            _keep_packets(image, colours)
            return Decoded(colours, "JPEGXL", exif, image.size)
    formats = [*_known_formats(), *filter(None, [_WEAK_FORMATS.get(suffix)])]
    try:
        with as_read_errors():
            parts = parts_at_once(file, prefix) or PixelParts(file)
        return _by_pillow(parts, formats, max_pixels, shorter_side_pixels)
    except ReadError as refused:
        if refused.error_class in _FINAL:
            raise
        decoded = _without_the_rest(file, prefix, formats, max_pixels, shorter_side_pixels)
        if decoded is None:
            raise
        return decoded


def _without_the_rest(
    file: IO[bytes],
    prefix: bytes,
    formats: list[str],
    max_pixels: int,
    shorter_side_pixels: int | None,
) -> Decoded | None:
    """Decode a refused file by what its pixels need; None if that is refused, too."""
    with as_read_errors():
        for parts in parts_of_refused(file, prefix):
            try:
                decoded = _by_pillow(parts, formats, max_pixels, shorter_side_pixels)
            except ReadError as error:
                if error.error_class in _FINAL:
                    raise
                continue
            if prefix.startswith(TIFF_BEGINNINGS):
                return replace(decoded, exif=rare_formats.container_exif(file) or decoded.exif)
            return decoded
    return None


def _begins_like_tiff(file: IO[bytes]) -> bool:
    file.seek(0)
    return file.read(4).startswith(TIFF_BEGINNINGS)


def _by_pillow(
    parts: PixelParts, formats: list[str], max_pixels: int, shorter_side_pixels: int | None
) -> Decoded:
    file = parts.file
    try:
        with as_read_errors(HeaderInvalid):
            opened = _opened(file, formats, max_pixels)
    except ReadError as error:
        if not _begins_like_tiff(file) or error.error_class in _FINAL:
            raise
        return _rare_tiff(file, max_pixels, shorter_side_pixels, error)
    with opened:
        rare_formats.check_size(*opened.size, max_pixels)
        # Phones write several pictures into one JPEG file and call it MPO; people do not.
        kind = "JPEG" if opened.format == "MPO" else opened.format or "unknown"
        with as_read_errors():
            is_misread = rare_formats.is_misread(opened)
        if is_misread:
            return _rare_tiff(file, max_pixels, shorter_side_pixels)
        with as_read_errors():
            whole = opened.size
            # Only plug-ins that can decode at a reduced scale do so: libjpeg at 1/2, 1/4 and 1/8.
            is_reduced = bool(shorter_side_pixels) and opened.draft(
                None, (shorter_side_pixels or 1, shorter_side_pixels or 1)
            )
            opened.load()
            opened.info.update(parts.info)
            # An icon has the size of its largest picture only once that is loaded.
            size = whole if is_reduced else opened.size
            decoded = _upright(opened, kind, _exif(opened), size, shorter_side_pixels)
            _keep_packets(opened, decoded.image)
            return decoded


def _keep_packets(opened: Image.Image, converted: Image.Image) -> None:
    """Copy what the file said to a picture that lost it when it was converted."""
    for key in _PACKETS & opened.info.keys():
        converted.info[key] = opened.info[key]


# Reading it in another way would fare no better.
_FINAL = {"too_large", "out_of_memory", "io_error"}


def _raw(file: IO[bytes], max_pixels: int, shorter_side_pixels: int | None) -> Decoded:
    with as_read_errors():
        found = rare_formats.raw_picture(file, max_pixels)
    exif = rare_formats.container_exif(file)
    if isinstance(found, Image.Image):
        return Decoded(shrunk(found, shorter_side_pixels), "RAW", exif, found.size)
    preview = decode(found, max_pixels=max_pixels, shorter_side_pixels=shorter_side_pixels)
    return replace(preview, format="RAW", exif=exif or preview.exif)


def _rare_tiff(
    file: IO[bytes],
    max_pixels: int,
    shorter_side_pixels: int | None,
    refused: ReadError | None = None,
) -> Decoded:
    """Decode a TIFF file that Pillow refused (`refused`) or would read wrongly."""
    try:
        with as_read_errors():
            found = rare_formats.tiff_picture(file, max_pixels)
            if found is not None:
                image, exif = found
                return _upright(image, "TIFF", exif, image.size, shorter_side_pixels)
    except ReadError as error:
        if refused is None or error.error_class in {*_FINAL, "truncated"}:
            raise
        raise refused from error
    return _raw(file, max_pixels, shorter_side_pixels)


_opening = threading.Lock()

# Pillow's plug-ins of BMP and others unpack an integer without looking whether there is one.
_SHORTEST_PREFIX = 4


def _opened(file: IO[bytes], formats: list[str], max_pixels: int) -> Image.Image:
    """Open the picture; decode nothing yet, except icons, which Pillow decodes.

    Our limit of pixels replaces Pillow's only here: it is a global of the process, and a
    thin client runs inside other programs.
    """
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            return Image.open(file, formats=formats)
        except UnidentifiedImageError as error:
            # Some plug-ins say of a damaged file of theirs that it is not theirs.
            kinds = _kinds_by_first_bytes(file, formats)
            if not kinds:
                raise
            raise HeaderInvalid(
                "corrupt",
                f"It begins like {' or '.join(kinds)} but is damaged, or of a kind that cannot be"
                " read.",
            ) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _kinds_by_first_bytes(file: IO[bytes], formats: list[str]) -> list[str]:
    file.seek(0)
    prefix = file.read(16)
    if len(prefix) < _SHORTEST_PREFIX:
        return []
    accepts = [(name, Image.OPEN[name][1]) for name in formats]
    return [name for name, accept in accepts if accept is not None and accept(prefix) is True]


@contextmanager
def as_read_errors(unreadable: type[ReadError] = ReadError) -> Iterator[None]:
    """Turn whatever a decoder raises on malformed data into a ReadError.

    Pillow and its plug-ins raise nearly every class there is (tests/unit/read/test_hostile.py).
    """
    try:
        yield
    except ReadError:
        raise
    except UnidentifiedImageError as error:
        raise ReadError("unidentified", "This is no picture format known here.") from error
    except MemoryError as error:
        raise ReadError(
            "out_of_memory", "Decoding it needs more memory than read_memory_mb allows."
        ) from error
    except Image.DecompressionBombError as error:
        raise ReadError(
            "too_large", "It has, or a picture inside it has, more pixels than max_pixels allows."
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in _OF_THE_DATA:
            raise ReadError("io_error", words_of(error)) from error
        words = words_of(error)
        is_truncated = "truncated" in words.lower() or isinstance(error, EOFError)
        raise unreadable("truncated" if is_truncated else "corrupt", words) from error


# Pillow's own errors carry no number, and a nonsensical offset in a file gives EINVAL.
_OF_THE_DATA = {None, errno.EINVAL}


def _exif(image: Image.Image) -> Image.Exif:
    try:
        return image.getexif()
    except Exception:  # noqa: BLE001 - malformed EXIF raises anything; the pixels are good
        return Image.Exif()


_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = 5  # and what follows
# libheif turns the picture itself, and Photoshop did: their EXIF orientation is history.
_UPRIGHT = {"HEIF", "PSD"}


def _upright(
    image: Image.Image,
    kind: str,
    exif: Image.Exif,
    size: tuple[int, int],
    shorter_side_pixels: int | None,
) -> Decoded:
    """`size` is that of the whole picture as it is stored."""
    colours = to_rgb(image, shorter_side_pixels)
    # (Pillow's AVIF plug-in gives the container's orientation as if it were of the EXIF.)
    value = None if kind in _UPRIGHT else exif.get(ExifTags.Base.Orientation)
    if not isinstance(value, int) or (method := _METHODS.get(value)) is None:
        return Decoded(colours, kind, exif, size)
    upright_size = (size[1], size[0]) if value >= _SIDEWAYS else size
    return Decoded(colours.transpose(method), kind, exif, upright_size)


def words_of(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{utf8(text)[:400].strip().rstrip('.')}."
