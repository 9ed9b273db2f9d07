"""Read RAW and those TIFF files that Pillow cannot read rightly.

Their libraries are imported when the first such file is met: most folders hold none, and
they would add 0.7 s to the start of every reading process.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from es_imgsearch.errors import ReadError
from es_imgsearch.read.pixel_parts.tiff import BEGINNINGS as TIFF_BEGINNINGS
from es_imgsearch.read.srgb import eight_bit

if TYPE_CHECKING:
    import rawpy
    import tifffile


RAW_SUFFIXES = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc",
    ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf",
    ".srw", ".x3f",
})  # fmt: skip
# Of some cameras, and of disk images and what not: believed only if the file begins like one.
_AMBIGUOUS_RAW_SUFFIX = ".raw"

# Fujifilm, Panasonic and Leica, Olympus (three), Sigma, Minolta.
_RAW_BEGINNINGS = (
    b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FOVb", b"\0MRM",
)  # fmt: skip
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION = 258, 262, 274
_PLANAR_CONFIGURATION, _DNG_VERSION = 284, 50706

# Old cameras embed 160 x 120, too little for an encoder's 224 to 384 pixels; then the sensor's
# data is developed at half its size (0.9 s for 24 megapixels, a preview 20 ms).
_SMALLEST_PREVIEW = 256


class HeaderInvalid(ReadError):
    """Header of a known format, followed by invalid data.

    `BM`, `P4` and `MMOR` begin texts, too: without a picture's name such a file is no picture.
    """


def begins_like_raw(prefix: bytes, suffix: str) -> bool:
    """Return True if these first 16 bytes are of a camera's RAW file."""
    if prefix.startswith(TIFF_BEGINNINGS):
        # Most are TIFF files whose first picture is a tiny preview.
        named = suffix in RAW_SUFFIXES or suffix == _AMBIGUOUS_RAW_SUFFIX
        return named or prefix[8:10] == b"CR"
    return (
        prefix.startswith(_RAW_BEGINNINGS)
        or prefix[4:12] == b"ftypcrx "
        or prefix[6:14] == b"HEAPCCDR"
    )


# -- RAW -----------------------------------------------------------------------------------


def raw_picture(file: IO[bytes], max_pixels: int) -> Image.Image | bytes:
    """Return the upright picture of a RAW file, or the JPEG embedded in it.

    LibRaw gives each such JPEG its orientation, if the camera did not.
    """
    import rawpy

    with _libraw_errors():
        file.seek(0)
        with rawpy.imread(cast("BinaryIO", file)) as raw:
            size = raw.sizes
            check_size(size.raw_width, size.raw_height, max_pixels)
            preview = _preview(raw, min(size.width, size.height))
            if preview is None:
                return Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True))
            # The preview often stands at the front, and half a file would show it as well.
            if not _is_whole_tiff(file):
                raw.unpack()
            return preview


def _preview(raw: rawpy.RawPy, short_side: int) -> Image.Image | bytes | None:
    import rawpy

    try:
        found = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    preview: Image.Image | bytes
    if isinstance(found.data, bytes):
        preview = found.data
        try:
            with Image.open(io.BytesIO(preview), formats=["JPEG"]) as image:
                shorter = min(image.size)
        except (OSError, SyntaxError):
            # The preview is damaged; what the sensor saw may be whole.
            return None
    else:
        preview = _turned(Image.fromarray(found.data), raw.sizes.flip)
        shorter = min(preview.size)
    return preview if shorter >= min(_SMALLEST_PREVIEW, short_side // 2) else None


def _turned(image: Image.Image, flip: int) -> Image.Image:
    methods = {
        3: Image.Transpose.ROTATE_180,
        5: Image.Transpose.ROTATE_90,
        6: Image.Transpose.ROTATE_270,
    }
    return image.transpose(methods[flip]) if flip in methods else image


@contextmanager
def _libraw_errors() -> Iterator[None]:
    import rawpy

    try:
        yield
    except rawpy.LibRawFileUnsupportedError as error:
        raise HeaderInvalid(
            "corrupt", "It begins like a RAW file but is of a kind that cannot be read."
        ) from error
    except rawpy.LibRawIOError as error:
        raise ReadError("truncated", "The RAW file ends too early.") from error
    except (rawpy.LibRawUnsufficientMemoryError, rawpy.LibRawMemPoolOverflowError) as error:
        raise MemoryError from error
    except rawpy.LibRawError as error:
        reason = error.args[0] if error.args else ""
        words = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ReadError("corrupt", f"The RAW file is damaged: {words[:300]}.") from error


def _is_whole_tiff(file: IO[bytes]) -> bool:
    """Return True if a TIFF-structured RAW file holds all data it refers to."""
    file.seek(0)
    if not file.read(4).startswith(TIFF_BEGINNINGS):
        return False
    try:
        with _tiff(file) as tiff:
            end = tiff.filehandle.size
            pages = [page.aspage() for page in tiff.pages]
            parts = [part.aspage() for page in pages for part in page.pages or ()]
            return all(_lies_within(page, end) for page in (*pages, *parts))
    except Exception:  # noqa: BLE001 - then LibRaw has to look
        return False


# -- TIFF ----------------------------------------------------------------------------------


def is_misread(opened: Image.Image) -> bool:
    """Return True if Pillow opened the wrong part, or would decode it wrongly.

    Of a DNG file it opens the preview.  Of more than 8 bits a sample it mistakes colours in
    planes for one plane, and a scale from white to black for its opposite (Pillow 13.0).
    """
    tags = getattr(opened, "tag_v2", {})
    if opened.format != "TIFF" or _DNG_VERSION in tags:
        return _DNG_VERSION in tags
    is_deep = max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8
    return is_deep and (tags.get(_PLANAR_CONFIGURATION) == 2 or tags.get(_PHOTOMETRIC) == 0)


def tiff_picture(file: IO[bytes], max_pixels: int) -> tuple[Image.Image, Image.Exif] | None:
    """Return the first page of a TIFF file, not upright yet; None if it is RAW."""
    with _tiff(file) as tiff:
        page = tiff.pages.first
        if _DNG_VERSION in page.tags or page.photometric in {32803, 34892}:
            return None
        check_size(page.imagewidth, page.imagelength * page.imagedepth, max_pixels)
        # Four channels are a picture with transparency; hundreds are something else.
        check_size(page.size, 1, 4 * max_pixels)
        stored = page.size * page.bitspersample // 8
        if not _lies_within(page, tiff.filehandle.size) or (
            page.compression == 1 and sum(page.databytecounts) < stored
        ):
            raise ReadError("truncated", "The TIFF file ends too early.")
        image = _page_image(page)
        if (profile := page.iccprofile) is not None:
            image.info["icc_profile"] = profile
        return image, container_exif(file)


@contextmanager
def _tiff(file: IO[bytes]) -> Iterator[tifffile.TiffFile]:
    import tifffile

    # It logs every oddity; without any handler that would go to standard error.
    logger = logging.getLogger("tifffile")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    file.seek(0)
    # (Without a name it asks the file for one, which for a descriptor is a number.)
    with tifffile.TiffFile(file, name="picture") as tiff:
        yield tiff


def _lies_within(page: tifffile.TiffPage, end: int) -> bool:
    segments = zip(page.dataoffsets, page.databytecounts, strict=True)
    return all(offset > 0 and count > 0 and offset + count <= end for offset, count in segments)


def _page_image(page: tifffile.TiffPage) -> Image.Image:
    kind = int(page.photometric)
    # Axes: planes, depth, rows, columns, channels; a plane or a channel is a sample.
    planes = page.asarray(maxworkers=1).reshape(page.shaped)[:, 0]
    values = planes[0] if planes.shape[0] == 1 else np.moveaxis(planes[..., 0], 0, -1)
    if values.dtype.kind == "u" and page.bitspersample not in {8, 16, 32, 64}:
        values = values << (8 * values.dtype.itemsize - page.bitspersample)
    is_jpeg = int(page.compression) in {6, 7}
    wanted = {0: 1, 1: 1, 2: 3, 5: 4, 6: 3 if is_jpeg else 0}.get(kind, 0)
    if not wanted or values.shape[-1] < wanted:
        raise ReadError("corrupt", f"Its colours are of a kind that cannot be read ({kind}).")
    return image_of(
        values, wanted, has_alpha=bool({1, 2} & set(page.extrasamples)), is_negative=not kind
    )


def image_of(
    values: npt.NDArray[Any], channels: int, *, has_alpha: bool, is_negative: bool = False
) -> Image.Image:
    """Convert (rows, columns, >= channels) of any type to an 8-bit picture."""
    colours = eight_bit(values[..., :channels])
    if is_negative:
        colours = 255 - colours
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[channels]
    size = (colours.shape[1], colours.shape[0])
    image = Image.frombytes(mode, size, np.ascontiguousarray(colours).tobytes())
    if has_alpha and channels < 4 and values.shape[-1] > channels:
        alpha = values[..., channels]
        if alpha.dtype.kind == "f":
            alpha = (np.nan_to_num(alpha).clip(0, 1) * 255).round().astype(np.uint8)
        image.putalpha(Image.fromarray(np.ascontiguousarray(eight_bit(alpha))))
    return image


def container_exif(file: IO[bytes]) -> Image.Exif:
    """Read the EXIF of a TIFF-structured file's first directory; empty for others."""
    exif = Image.Exif()
    try:
        file.seek(0)
        head = file.read(16)
        if b"+" in head[2:4]:
            exif.bigtiff, exif.endian = True, "<" if head.startswith(b"II") else ">"
            exif.load_from_fp(file, *struct.unpack_from(f"{exif.endian}Q", head, 8))
        else:
            file.seek(0)
            exif.load_from_fp(file)
        exif.get(_ORIENTATION)  # reads it all
    except Exception:  # noqa: BLE001 - malformed EXIF raises anything; the pixels are good
        return Image.Exif()
    return exif


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise ReadError for a picture that is too large, or has a side of no length."""
    if width < 1 or height < 1:
        # A side of 2,130,706,480 pixels and one of none need 16 GB for pointers to rows.
        raise HeaderInvalid("corrupt", f"{width} x {height} pixels are no picture.")
    if width * height > max_pixels:
        raise ReadError(
            "too_large",
            f"{width} x {height} pixels are more than max_pixels ({max_pixels}).",
        )
