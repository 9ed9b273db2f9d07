"""Image resources of Photoshop: blocks of IPTC data, XMP and profiles.

Adobe Photoshop File Formats Specification (2019), "Image Resources Section".
"""

from __future__ import annotations

_SIGNATURES = (b"8BIM", b"PHUT", b"DCSR", b"AgHg", b"MeSa")

XMP, PROFILE = 0x0424, 0x040F


def image_resources(content: bytes) -> dict[int, bytes]:
    """Return each resource's data by its number, up to a malformed one."""
    found: dict[int, bytes] = {}
    at = 0
    while content[at : at + 4] in _SIGNATURES and at + 7 <= len(content):
        number = int.from_bytes(content[at + 4 : at + 6])
        # A name begins with its length, and both take an even number of bytes.
        at += 6 + (content[at + 6] + 2) // 2 * 2
        size = int.from_bytes(content[at : at + 4])
        if at + 4 + size > len(content):
            break
        found.setdefault(number, content[at + 4 : at + 4 + size])
        at += 4 + (size + 1) // 2 * 2
    return found
