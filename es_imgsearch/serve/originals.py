"""Choose media type and file name of an original by its stored format.

A file's own name says nothing about its content: a JPEG may be called `cat.html`, and a browser
that believes it runs what somebody wrote into the picture, in the origin of this service.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import quote

from es_imgsearch.errors import ImageMissing, ReadError
from es_imgsearch.read.rare_formats import RAW_SUFFIXES
from es_imgsearch.records import is_url, open_at_once
from es_imgsearch.watch.sources.opened import opened_at, status_at

# No file any more, or something other than a file.
_GONE: Final = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO}

_UNKNOWN_TYPE: Final = "application/octet-stream"
# The longest name of most file systems has 255 bytes.
_MOST_STEM_BYTES: Final = 180
# Devices of Windows, with any suffix.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_FORBIDDEN: Final = frozenset('/\\:*?"<>|;')


@dataclass(frozen=True, slots=True)
class Kind:
    """A format: media type, suffixes, and whether some browser shows it."""

    media_type: str = _UNKNOWN_TYPE
    suffixes: tuple[str, ...] = (".bin",)
    is_shown: bool = False


_UNKNOWN: Final = Kind()
_JPEG_SUFFIXES: Final = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")
# By the field `format`.  What is not here may be anything, so it is saved and never shown.
_KINDS: Final = {
    "avif": Kind("image/avif", (".avif", ".avifs"), is_shown=True),
    "blp": Kind(suffixes=(".blp",)),
    "bmp": Kind("image/bmp", (".bmp", ".dib"), is_shown=True),
    "dds": Kind("image/vnd-ms.dds", (".dds",)),
    "dib": Kind("image/bmp", (".dib", ".bmp"), is_shown=True),
    "gif": Kind("image/gif", (".gif",), is_shown=True),
    "heif": Kind("image/heif", (".heif", ".heic", ".heics", ".heifs", ".hif"), is_shown=True),
    "icns": Kind("image/icns", (".icns",)),
    "ico": Kind("image/x-icon", (".ico",), is_shown=True),
    "jpeg": Kind("image/jpeg", _JPEG_SUFFIXES, is_shown=True),
    "jpeg2000": Kind("image/jp2", (".jp2", ".j2c", ".j2k", ".jpf", ".jpx")),
    "jpegxl": Kind("image/jxl", (".jxl",), is_shown=True),
    "pcx": Kind("image/x-pcx", (".pcx",)),
    "png": Kind("image/png", (".png", ".apng"), is_shown=True),
    "ppm": Kind("image/x-portable-anymap", (".pnm", ".pbm", ".pgm", ".ppm", ".pfm")),
    "psd": Kind("image/vnd.adobe.photoshop", (".psd",)),
    "qoi": Kind("image/qoi", (".qoi",)),
    "raw": Kind(suffixes=(".bin", ".raw", *sorted(RAW_SUFFIXES))),
    "sgi": Kind("image/sgi", (".sgi",)),
    "tga": Kind("image/x-tga", (".tga",)),
    "tiff": Kind("image/tiff", (".tif", ".tiff"), is_shown=True),
    "webp": Kind("image/webp", (".webp",), is_shown=True),
    "xbm": Kind("image/x-xbitmap", (".xbm",)),
    "xpm": Kind("image/x-xpixmap", (".xpm",)),
}


def kind_of(format_: str) -> Kind:
    """Return the kind of a stored format; an unknown one may be anything."""
    return _KINDS.get(format_, _UNKNOWN)


def file_name(name: str, format_: str) -> str:
    """Return a name to save a file under, with a suffix of its format.

    On any system it names one file in the folder of downloads.
    """
    kind = kind_of(format_)
    # Not printable are control characters, those that turn the order of letters, and surrogates.
    plain = "".join("_" if not c.isprintable() or c in _FORBIDDEN else c for c in name)
    plain = plain.lstrip(". ").rstrip(". ")
    suffix = PurePosixPath(plain).suffix
    if suffix.lower() in kind.suffixes:
        plain = plain.removesuffix(suffix)
    else:
        suffix = kind.suffixes[0]
    stem = plain.encode()[:_MOST_STEM_BYTES].decode(errors="ignore") or "picture"
    return f"_{stem}{suffix}" if _DEVICE.fullmatch(stem) else stem + suffix


def disposition(name: str, format_: str) -> str:
    """Return the header Content-Disposition (RFC 6266) of an original of this name."""
    how = "inline" if kind_of(format_).is_shown else "attachment"
    safe = file_name(name, format_)
    # Some browsers decode % here too.
    ascii_name = "".join("_" if not c.isascii() or c == "%" else c for c in safe)
    header = f'{how}; filename="{ascii_name}"'
    return header if ascii_name == safe else f"{header}; filename*=UTF-8''{quote(safe, safe='')}"


def local_copy(path: Path, image_id: str) -> Path:
    """Copy the file of a URL into a temporary one, which the caller removes.

    Raises ImageMissing if it is gone, ReadError if it cannot be read.
    """
    descriptor, name = tempfile.mkstemp(prefix="es-imgsearch-")
    try:
        with os.fdopen(descriptor, "wb") as copy, opened_at(path) as (content, _status):
            shutil.copyfileobj(content, copy, 2**20)
    except OSError as error:
        os.unlink(name)
        if isinstance(error, FileNotFoundError):
            raise ImageMissing(f"The original of {image_id!r} is gone.") from error
        raise ReadError(
            "io_error", f"The original of {image_id!r} cannot be read ({error.strerror})."
        ) from error
    return Path(name)


def state_of(path: Path, image_id: str) -> os.stat_result:
    """Return the state of an original that can be read.

    Raises ImageMissing if there is no file, ReadError if there is one that may not be read.
    """
    try:
        if is_url(path):
            state = status_at(path)
        else:
            descriptor = open_at_once(path)
            try:
                state = os.fstat(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        if not isinstance(error, FileNotFoundError) and error.errno not in _GONE:
            raise ReadError(
                "io_error",
                f"The original of {image_id!r} cannot be read here ({error.strerror}): let the"
                " user who runs `es-imgsearch serve` read it.",
            ) from error
    else:
        if stat.S_ISREG(state.st_mode):
            return state
    raise ImageMissing(
        f"The original of {image_id!r} is gone: run `es-imgsearch sync` on its folder."
    )
