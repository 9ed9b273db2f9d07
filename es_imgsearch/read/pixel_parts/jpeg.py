"""Segments of a JPEG: those that its pixels need, and metadata.

ITU-T T.81, annex B.  libjpeg, and so every browser, passes over what it does not know; Pillow
reads it, and refuses the file for what it finds there.  Further than libjpeg goes, an application
segment whose length is wrong costs itself only: the headers after it are searched for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any

from es_imgsearch.read.pixel_parts.parts import (
    MOST_SEARCHED_BYTES,
    MOST_SEARCHES,
    Piece,
    PixelParts,
    joined,
    read_at,
    size_of,
)
from es_imgsearch.read.pixel_parts.photoshop import image_resources

SIGNATURE = b"\xff\xd8"
_END = b"\xff\xd9"
_SCAN = 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_TABLES = {0xC4, 0xCC, 0xDB, 0xDD}
_NEEDED = _FRAMES | _TABLES | {_SCAN}
_APPLICATIONS = range(0xE0, 0xF0)
_COMMENT = 0xFE
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_KNOWN = _NEEDED | {*_APPLICATIONS, _COMMENT, 0xDC, 0xDE, 0xDF}
_MARKER = re.compile(rb"\xff[\xc0-\xc7\xc9-\xcf\xda\xdb\xdd\xe0-\xef\xfe]")

_MOST_CANDIDATES = 1000
_MOST_SEGMENTS = 10_000
_MOST_FILLING = 1000  # bytes before a marker

# By these two libjpeg knows the colours' space, if they are as long as here (bytes).
_COLOUR_SEGMENTS = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_PROFILE, _PHOTOSHOP = b"ICC_PROFILE\0", b"Photoshop 3.0\0"


@dataclass(frozen=True, slots=True)
class _Segment:
    marker: int
    start: int  # of the marker
    length: int  # of its data

    @property
    def end(self) -> int:
        return self.start + 4 + self.length

    @property
    def whole(self) -> Piece:
        return self.start, self.end - self.start


@dataclass(slots=True)
class _Found:
    segments: list[_Segment] = field(default_factory=list)
    is_framed: bool = True  # one segment follows the other up to the scan

    @property
    def scan(self) -> _Segment | None:
        last = self.segments[-1] if self.segments else None
        return last if last is not None and last.marker == _SCAN else None


def is_misframed(file: IO[bytes]) -> bool:
    """Return True if a segment before the scan does not end where the next one begins.

    Decoders take what follows for tables then, and may give a wrong picture without a word.
    """
    found = _walk(file)
    return found.scan is not None and not found.is_framed


def jpeg_parts(file: IO[bytes]) -> PixelParts | None:
    """Reduce a JPEG to tables, frame, scans and colour space; None without a scan."""
    found = _walk(file)
    if found.scan is None:
        return None
    pieces: list[Piece] = [SIGNATURE]
    pieces += [
        each.whole
        for each in found.segments[:-1]
        if each.marker in _NEEDED or _says_colours(file, each)
    ]
    pieces.append((found.scan.start, size_of(file) - found.scan.start))
    return PixelParts(joined(file, pieces), _metadata(file, found.segments))


def _walk(file: IO[bytes]) -> _Found:
    found = _Found()
    at = len(SIGNATURE)
    searches = 0
    for _ in range(_MOST_SEGMENTS):
        segment = _segment_at(file, at)
        if segment is not None and (segment.marker in _NEEDED or _is_followed(file, segment)):
            found.segments.append(segment)
            if segment.marker == _SCAN:
                return found
            at = segment.end
            continue
        found.is_framed = False
        searches += 1
        if searches > MOST_SEARCHES:
            return found
        has_frame = any(each.marker in _FRAMES for each in found.segments)
        next_ = _headers_after(file, at + (4 if segment is not None else 0), has_frame=has_frame)
        if next_ is None:
            return found
        if segment is not None and segment.end <= next_:
            # Its length may be right, and what follows be nothing.
            found.segments.append(segment)
        at = next_
    return found


def _segment_at(file: IO[bytes], at: int) -> _Segment | None:
    """Return the segment whose marker, after filling bytes, stands here."""
    for _ in range(_MOST_FILLING):
        head = read_at(file, at, 4)
        if len(head) < 4 or head[0] != 0xFF:
            return None
        if head[1] == 0xFF:
            at += 1
        elif head[1] in _WITHOUT_LENGTH:
            at += 2
        else:
            break
    else:
        return None
    segment = _Segment(head[1], at, int.from_bytes(head[2:]) - 2)
    is_segment = segment.marker in _KNOWN and segment.length >= 0
    return segment if is_segment and _has_its_length(file, segment) else None


def _has_its_length(file: IO[bytes], segment: _Segment) -> bool:
    """Check the lengths of frames and scans, which their number of channels gives."""
    if segment.marker == _SCAN:
        channels = read_at(file, segment.start + 4, 1)
        return bool(channels) and segment.length == 4 + 2 * channels[0]
    if segment.marker in _FRAMES:
        channels = read_at(file, segment.start + 9, 1)
        return bool(channels) and segment.length == 6 + 3 * channels[0]
    return True


def _is_followed(file: IO[bytes], segment: _Segment) -> bool:
    return _segment_at(file, segment.end) is not None


def _headers_after(file: IO[bytes], at: int, *, has_frame: bool) -> int | None:
    """Search for segments that follow each other up to the scan.

    An EXIF thumbnail is a JPEG, too: of several pictures the largest counts.
    """
    content = read_at(file, at, MOST_SEARCHED_BYTES)
    best, best_rank = None, (-1, 0, 0)
    for match in islice(_MARKER.finditer(content), _MOST_CANDIDATES):
        headers = _headers_at(file, at + match.start())
        if headers is None or has_frame is not (headers.pixels is None):
            continue
        if headers.pixels is None:
            end = content.find(_END, headers.scan - at)
            size = (len(content) + at if end < 0 else end + at) - headers.scan
        else:
            size = headers.pixels
        # Of those before one scan, noise that looks like a marker has swallowed a segment.
        rank = size, -headers.scan, headers.count
        if rank >= best_rank:
            best, best_rank = at + match.start(), rank
    return best


@dataclass(frozen=True, slots=True)
class _Headers:
    pixels: int | None  # of the frame, None without one
    scan: int  # its start
    count: int  # of segments


def _headers_at(file: IO[bytes], at: int) -> _Headers | None:
    """Return what well-framed segments up to a scan hold; None if they are not that."""
    pixels = None
    for count in range(_MOST_CANDIDATES):
        segment = _segment_at(file, at)
        if segment is None:
            return None
        if segment.marker == _SCAN:
            return _Headers(pixels, segment.start, count)
        if segment.marker in _FRAMES:
            if pixels is not None:
                return None
            size = read_at(file, segment.start + 5, 4)
            pixels = int.from_bytes(size[:2]) * int.from_bytes(size[2:])
        at = segment.end
    return None


def _says_colours(file: IO[bytes], segment: _Segment) -> bool:
    beginning, least = _COLOUR_SEGMENTS.get(segment.marker, (b"", 0))
    is_long_enough = bool(beginning) and segment.length >= least
    return is_long_enough and _content(file, segment, len(beginning)) == beginning


def _content(file: IO[bytes], segment: _Segment, most_bytes: int | None = None) -> bytes:
    length = segment.length if most_bytes is None else min(most_bytes, segment.length)
    return read_at(file, segment.start + 4, length)


def _metadata(file: IO[bytes], segments: list[_Segment]) -> dict[str, Any]:
    info: dict[str, Any] = {}
    profile_parts: list[bytes] = []
    for segment in segments:
        if segment.marker not in {0xE1, 0xE2, 0xED}:
            continue
        content = _content(file, segment)
        if segment.marker == 0xE1 and content.startswith(_EXIF):
            # What is longer than a segment goes on in the next one.
            info["exif"] = info["exif"] + content[len(_EXIF) :] if "exif" in info else content
        elif segment.marker == 0xE1 and content.startswith(_XMP):
            info.setdefault("xmp", content[len(_XMP) :])
        elif segment.marker == 0xE2 and content.startswith(_PROFILE):
            profile_parts.append(content[len(_PROFILE) :])
        elif segment.marker == 0xED and content.startswith(_PHOTOSHOP):
            resources = image_resources(content[len(_PHOTOSHOP) :])
            info["photoshop"] = resources | info.get("photoshop", {})
    if profile := _profile(profile_parts):
        info["icc_profile"] = profile
    return info


def _profile(parts: list[bytes]) -> bytes | None:
    """Join the numbered parts of a profile; None if one is missing."""
    numbered = {part[0]: part for part in parts if len(part) > 2}
    if not numbered or {*numbered} != {*range(1, next(iter(numbered.values()))[1] + 1)}:
        return None
    return b"".join(numbered[number][2:] for number in sorted(numbered))
