"""Bytes of any format become an upright sRGB picture, or a ReadError of a known class."""

from __future__ import annotations

import errno
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import IO

from PIL import ExifTags, Image, UnidentifiedImageError

from es_imgsearch import rare_formats
from es_imgsearch.errors import ReadError
from es_imgsearch.rare_formats import HeaderInvalid
from es_imgsearch.srgb import to_rgb

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


# Metadata as they stand in the file, by the names that Pillow gives them.
_PACKETS = {"xmp", "photoshop"}


@dataclass(frozen=True, slots=True)
class Decoded:
    """An upright RGB picture and what its file says of it.

    `image.info` holds its XMP packet (`xmp`, bytes) and Photoshop's resources (`photoshop`), where
    it has any, and whether some of it was transparent (see `srgb`).
    """

    image: Image.Image
    format: str
    exif: Image.Exif


@cache
def _known_formats() -> tuple[str, ...]:
    import pillow_heif

    pillow_heif.register_heif_opener()
    Image.init()
    # A Pillow built without some codec does not know its format at all.
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def decode(source: IO[bytes] | bytes, *, max_pixels: int, suffix: str = "") -> Decoded:
    """Identify and decode the first frame of a picture, upright, as sRGB.

    Raises ReadError; its class is `unidentified` where no known format fits.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with told():
        prefix = file.read(16)
        file.seek(0)
    if rare_formats.begins_like_raw(prefix, suffix):
        return _raw(file, max_pixels)
    if rare_formats.begins_like_jxl(prefix, suffix):
        with told():
            image, exif = rare_formats.jxl_picture(file, max_pixels)
            return Decoded(to_rgb(image), "JPEGXL", exif)
    formats = [*_known_formats(), *filter(None, [_WEAK_FORMATS.get(suffix)])]
    try:
        with told(HeaderInvalid):
            opened = _opened(file, formats, max_pixels)
    except ReadError as error:
        if not prefix.startswith(rare_formats.TIFF_BEGINNINGS) or error.error_class in _FINAL:
            raise
        return _rare_tiff(file, max_pixels, error)
    with opened:
        if opened.width * opened.height > max_pixels:
            raise ReadError(
                "too_large",
                f"{opened.width} x {opened.height} pixels are more than max_pixels ({max_pixels}).",
            )
        # Phones write several pictures into one JPEG file and call it MPO; people do not.
        kind = "JPEG" if opened.format == "MPO" else opened.format or "unknown"
        with told():
            is_misread = rare_formats.is_misread(opened)
        if is_misread:
            return _rare_tiff(file, max_pixels)
        with told():
            opened.load()
            exif = _exif(opened)
            upright = _upright(to_rgb(opened), kind, exif)
            # A converted picture may have lost what its file said.
            upright.info |= {key: opened.info[key] for key in _PACKETS & opened.info.keys()}
            return Decoded(upright, kind, exif)


# Reading it in another way would fare no better.
_FINAL = {"too_large", "out_of_memory", "io_error"}


def _raw(file: IO[bytes], max_pixels: int) -> Decoded:
    with told():
        found = rare_formats.raw_picture(file, max_pixels)
    exif = rare_formats.container_exif(file)
    if isinstance(found, Image.Image):
        return Decoded(found, "RAW", exif)
    preview = decode(found, max_pixels=max_pixels)
    return Decoded(preview.image, "RAW", exif or preview.exif)


def _rare_tiff(file: IO[bytes], max_pixels: int, refused: ReadError | None = None) -> Decoded:
    """A TIFF file that Pillow refused, for the reason given, or would read wrongly."""
    try:
        with told():
            found = rare_formats.tiff_picture(file, max_pixels)
            if found is not None:
                image, exif = found
                return Decoded(_upright(to_rgb(image), "TIFF", exif), "TIFF", exif)
    except ReadError as error:
        if refused is None or error.error_class in {*_FINAL, "truncated"}:
            raise
        raise refused from error
    return _raw(file, max_pixels)


_opening = threading.Lock()


def _opened(file: IO[bytes], formats: list[str], max_pixels: int) -> Image.Image:
    """The picture with its header read and nothing decoded (but an icon, which Pillow decodes).

    Our limit of pixels stands in for Pillow's, which is a global that the rest of the process
    keeps: a thin client lives in other people's programs.
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
    accepts = [(name, Image.OPEN[name][1]) for name in formats]
    return [name for name, accept in accepts if accept is not None and accept(prefix) is True]


@contextmanager
def told(unreadable: type[ReadError] = ReadError) -> Iterator[None]:
    """Turn whatever a decoder raises on malformed data into a ReadError.

    Pillow and its plug-ins raise nearly every class there is (tests/unit/test_hostile.py).
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


def _upright(image: Image.Image, kind: str, exif: Image.Exif) -> Image.Image:
    # libheif turns the picture itself; its EXIF orientation is then history.  (Pillow's AVIF
    # plug-in turns nothing and gives the container's orientation as if it were of the EXIF.)
    if kind == "HEIF":
        return image
    methods = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    value = exif.get(ExifTags.Base.Orientation)
    method = methods.get(value) if isinstance(value, int) else None
    return image if method is None else image.transpose(method)


def words_of(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{utf8(text)[:400].strip().rstrip('.')}."


def utf8(text: str) -> str:
    """Without lone surrogates (of names that are not UTF-8), which JSON cannot hold."""
    return text.encode(errors="backslashreplace").decode()
