"""A path, or bytes, become a picture: identified by content, upright, RGB, of sane size.

Meant to run in a worker process (`workers.py`), because what it opens may be hostile.

Error classes of a ReadError, stable names that failure documents carry:

    empty               no bytes at all
    unidentified        named like a picture, but no known format
    truncated           ends too early
    corrupt             a known format that does not decode
    too_large           more pixels than `max_pixels`
    out_of_memory       decoding needs more memory than a worker may use
    timeout             reading took longer than `read_timeout_seconds`
    crashed             the decoder took its process down
    permission_denied   the file may not be read
    io_error            the disk or the network share failed
    embed_failed        the encoder could not embed it
    rejected            Elasticsearch refused its document
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from io import BufferedReader
from pathlib import PurePosixPath
from typing import IO, Any

import orjson
from PIL import ExifTags, Image, UnidentifiedImageError

from es_imgsearch.errors import ReadError
from es_imgsearch.preparation import Preparation
from es_imgsearch.records import FileState, Picture

# Formats that say what they are in their first bytes.  Left out on purpose: EPS, PDF and WMF
# (they start interpreters), video, and documents.
_FORMATS = [
    "AVIF", "BLP", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PNG",
    "PPM", "PSD", "QOI", "SGI", "TIFF", "WEBP", "XBM", "XPM",
]  # fmt: skip
# Formats whose first bytes fit half of all text files too: believed only with their suffix.
_WEAK_FORMATS = {".pcx": "PCX", ".tga": "TGA"}
PICTURE_SUFFIXES = frozenset({
    ".apng", ".avif", ".avifs", ".bmp", ".dds", ".dib", ".gif", ".heic", ".heics", ".heif",
    ".heifs", ".hif", ".icns", ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf",
    ".jpg", ".jpx", ".mpo", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi",
    ".sgi", ".tga", ".tif", ".tiff", ".webp", ".xbm", ".xpm",
})  # fmt: skip

# Transparent parts are shown on white, as browsers and viewers do.
_GROUND = (255, 255, 255)

# A describer gets the upright RGB picture, its EXIF data and its path.
Describe = Callable[[Image.Image, Image.Exif, str], Mapping[str, Any]]


class Skipped(Enum):
    """Why a path gives neither a picture nor a failure."""

    NOT_A_PICTURE = auto()
    GONE = auto()
    CHANGING = auto()


@dataclass(frozen=True, slots=True)
class Decoded:
    """An upright RGB picture and what its file says of it."""

    image: Image.Image
    format: str
    exif: Image.Exif


class _HeaderInvalid(ReadError):
    """It begins like a known format and goes on like none.

    `BM` and `P4` begin texts, too: without a picture's name such a file is no picture.
    """


@cache
def _known_formats() -> tuple[str, ...]:
    import pillow_heif

    pillow_heif.register_heif_opener()
    Image.init()
    # A Pillow built without some codec does not know its format at all.
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def read_file(
    path: str,
    preparation: Preparation,
    describers: Sequence[tuple[str, Describe]] = (),
    *,
    max_pixels: int,
) -> Picture | Skipped:
    """The picture in a file, ready for the encoder.

    Raises ReadError for a file that is (or is named like) a picture and cannot be read.
    A file that changes while it is read, or is not there, is no failure: see Skipped.
    """
    started = time.perf_counter()
    try:
        # Without O_NONBLOCK the opening of a named pipe waits for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return _not_opened(error)
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        os.close(descriptor)
        return Skipped.NOT_A_PICTURE
    with os.fdopen(descriptor, "rb") as file:
        state = FileState.of(before)
        suffix = PurePosixPath(path).suffix.lower()
        try:
            picture = _read_open(file, path, suffix, state, preparation, describers, max_pixels)
        except ReadError:
            if FileState.of(os.fstat(file.fileno())) != state:
                return Skipped.CHANGING
            raise
        except OSError as error:
            raise ReadError("io_error", _words(error)) from error
        if FileState.of(os.fstat(file.fileno())) != state:
            return Skipped.CHANGING
    if isinstance(picture, Picture):
        picture.read_ms = (time.perf_counter() - started) * 1000
    return picture


def _not_opened(error: OSError) -> Skipped:
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE}:
        return Skipped.GONE
    if error.errno == errno.EWOULDBLOCK:
        # Somebody holds a lease on it (Samba does while a client writes); O_NONBLOCK never waits.
        return Skipped.CHANGING
    if error.errno in {errno.EISDIR, errno.ENXIO, errno.ENODEV}:
        return Skipped.NOT_A_PICTURE
    if error.errno in {errno.EACCES, errno.EPERM}:
        raise ReadError("permission_denied", "This file may not be read.") from error
    raise ReadError("io_error", _words(error)) from error


def _read_open(
    file: BufferedReader,
    path: str,
    suffix: str,
    state: FileState,
    preparation: Preparation,
    describers: Sequence[tuple[str, Describe]],
    max_pixels: int,
) -> Picture | Skipped:
    named_like_a_picture = suffix in PICTURE_SUFFIXES
    if state.size_bytes == 0:
        if named_like_a_picture:
            raise ReadError("empty", "The file is empty.")
        return Skipped.NOT_A_PICTURE
    try:
        decoded = decode(file, max_pixels=max_pixels, suffix=suffix)
    except ReadError as error:
        no_picture = isinstance(error, _HeaderInvalid) or error.error_class == "unidentified"
        if no_picture and not named_like_a_picture:
            return Skipped.NOT_A_PICTURE
        raise
    file.seek(0)
    content_id = hashlib.file_digest(file, _content_hash).hexdigest()
    image = decoded.image
    fields: dict[str, Any] = {
        "format": decoded.format.lower(),
        "width": image.width,
        "height": image.height,
        "orientation": _orientation(image),
    }
    for name, describe in describers:
        try:
            described = dict(describe(image, decoded.exif, path))
            # What JSON cannot hold would fail when it is written, together with everybody else.
            orjson.dumps(described, option=orjson.OPT_SERIALIZE_NUMPY)
        except Exception as error:  # noqa: BLE001 - a plug-in's failure costs its fields only
            words = f"{name}: {type(error).__name__}: {error}"[:500]
            fields.setdefault("describe_errors", []).append(_utf8(words))
        else:
            fields.update(described)
    with _told():
        return Picture(content_id, state, preparation.apply(image), fields)


def decode(source: IO[bytes] | bytes, *, max_pixels: int, suffix: str = "") -> Decoded:
    """Identify and decode the first frame of a picture, upright, as RGB.

    Raises ReadError; its class is `unidentified` where no known format fits.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    formats = [*_known_formats(), *filter(None, [_WEAK_FORMATS.get(suffix)])]
    with _told(_HeaderInvalid):
        opened = _opened(file, formats, max_pixels)
    with opened:
        if opened.width * opened.height > max_pixels:
            raise ReadError(
                "too_large",
                f"{opened.width} x {opened.height} pixels are more than max_pixels ({max_pixels}).",
            )
        # Phones write several pictures into one JPEG file and call it MPO; people do not.
        kind = "JPEG" if opened.format == "MPO" else opened.format or "unknown"
        with _told():
            opened.load()
            exif = _exif(opened)
            return Decoded(_upright(to_rgb(opened), kind, exif), kind, exif)


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
            raise _HeaderInvalid(
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
def _told(unreadable: type[ReadError] = ReadError) -> Iterator[None]:
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
            raise ReadError("io_error", _words(error)) from error
        words = _words(error)
        is_truncated = "truncated" in words.lower() or isinstance(error, EOFError)
        raise unreadable("truncated" if is_truncated else "corrupt", words) from error


# Pillow's own errors carry no number, and a nonsensical offset in a file gives EINVAL.
_OF_THE_DATA = {None, errno.EINVAL}


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB: transparency on white, 16-bit and float scaled to their range."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        image = _eight_bit(image)
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        ground = Image.new("RGB", picture.size, _GROUND)
        ground.paste(picture, mask=picture.getchannel("A"))
        return ground
    return image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    import numpy as np

    values = np.asarray(image, dtype=np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    # Unsigned 16 bits fill their range by definition; 32-bit integers and floats do not say
    # what white is, so what is there is stretched.
    if image.mode.startswith("I;16") or (
        image.mode == "I" and 255 < values.max(initial=0) <= 65535 and values.min(initial=0) >= 0
    ):
        low, high = 0.0, 65535.0
    elif values.min(initial=0) >= 0 and values.max(initial=0) <= 255 and image.mode == "I":
        low, high = 0.0, 255.0
    else:
        low, high = float(values.min(initial=0)), float(values.max(initial=1))
    scaled = (values - low) * (255.0 / (high - low)) if high > low else values * 0
    return Image.fromarray(scaled.round().clip(0, 255).astype("uint8"))


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


def _orientation(image: Image.Image) -> str:
    if image.width == image.height:
        return "square"
    return "landscape" if image.width > image.height else "portrait"


def _content_hash() -> Any:
    return hashlib.blake2b(digest_size=16)


def _words(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{_utf8(text)[:400].strip().rstrip('.')}."


def _utf8(text: str) -> str:
    """Without lone surrogates (of names that are not UTF-8), which JSON cannot hold."""
    return text.encode(errors="backslashreplace").decode()
