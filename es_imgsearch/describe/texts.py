"""Decode texts of files and of tags; compare names of files."""

from __future__ import annotations

import codecs
import re
from contextlib import suppress
from typing import Any, Final

from es_imgsearch.records import composed

# The longer marks first: that of UTF-16 begins that of UTF-32.
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Where the NULs stand in the first four bytes of text that begins in ASCII (RFC 4627, section 3).
_NULS: Final[dict[tuple[bool, ...], str]] = {
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}
_DECLARED = re.compile(rb"""\s*<\?xml\s[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")


def name_key(name: str) -> str:
    """Return the form in which names are compared: composed, without capitals.

    A Mac writes decomposed names.  For comparing only: a file is opened by its own name.
    """
    return composed(name).casefold()


def decoded_text(content: bytes) -> str:
    """Decode by byte order mark, NULs or declared encoding; else as UTF-8.

    A byte that is not UTF-8 is read as Windows-1252, which is what older programs write, and costs
    no other.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _decoded(content[len(mark) :], encoding)
    encoding = _NULS.get(tuple(byte == 0 for byte in content[:4]), "")
    if not encoding and (declared := _DECLARED.match(content[:200])):
        encoding = declared[1].decode()
        # It is declared in single bytes.
        if encoding.lower().startswith(("utf-16", "utf16", "utf-32", "ucs")):
            encoding = "utf-8"
    return _decoded(content, encoding or "utf-8")


def text_of_tag(value: Any) -> str:
    """Return the text of EXIF before the first NUL; empty for a value that is no text."""
    if isinstance(value, str):
        # Pillow takes every text of EXIF for Latin-1; most writers mean UTF-8.
        with suppress(UnicodeEncodeError):
            value = value.encode("latin-1")
    if isinstance(value, bytes):
        value = decoded_value(value)
    return value.partition("\0")[0].strip() if isinstance(value, str) else ""


def decoded_value(content: bytes) -> str:
    """Decode bytes of no declared encoding: UTF-8, else Windows-1252, by the byte."""
    return _decoded(content, "utf-8")


def _decoded(content: bytes, encoding: str) -> str:
    try:
        is_utf8 = codecs.lookup(encoding).name == "utf-8"
        return content.decode(encoding, _OR_WINDOWS if is_utf8 else "replace")
    except LookupError:
        return content.decode("utf-8", _OR_WINDOWS)


_OR_WINDOWS: Final = "es_imgsearch.windows-1252"


def _as_windows(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error(_OR_WINDOWS, _as_windows)
