"""Formats have one name: that which reading stores, `search` filters by and `serve` knows."""

from __future__ import annotations

import os
from functools import cache

import pytest

from es_imgsearch.read.decoding import PICTURE_SUFFIXES, decode
from es_imgsearch.read.rare_formats import RAW_SUFFIXES
from es_imgsearch.search.filtering.values import _SYNONYMS, stored_name
from es_imgsearch.serve.originals import _KINDS, kind_of
from tests.support import picture_samples as samples


@cache
def stored_formats() -> dict[str, str]:
    """File name to stored format, of a real file in every format."""
    image = samples.four_corners()
    more = [image.rotate(90)]
    files = samples.good_files() | {
        "animated.apng": samples.saved(image, "PNG", save_all=True, append_images=more),
        "two.mpo": samples.saved(image, "MPO", save_all=True, append_images=more),
        "stream.j2k": samples.saved(image, "JPEG2000", no_jp2=True),
        "icon.icns": samples.saved(samples.four_corners((64, 64)), "ICNS"),
        "game.blp": samples.saved(image.quantize(256), "BLP"),
        "frames.avifs": samples.saved(image, "AVIF", save_all=True, append_images=more),
        "frames.heics": samples.saved(image, "HEIF", save_all=True, append_images=more),
        "bilevel.pbm": samples.saved(image.convert("1"), "PPM"),
        "grey.pgm": samples.saved(image.convert("L"), "PPM"),
    }
    return {
        name: decode(content, max_pixels=10**7, suffix=os.path.splitext(name)[1]).format.lower()
        for name, content in files.items()
    }


def test_serve_knows_every_stored_format_and_no_other():
    assert set(stored_formats().values()) == set(_KINDS)


def test_every_stored_format_is_found_by_its_own_name():
    for stored in set(stored_formats().values()):
        assert stored_name("format", stored) == stored
        assert stored_name("format", stored.upper()) == stored
    assert _SYNONYMS["format"].keys() <= set(stored_formats().values())


@pytest.mark.parametrize("suffix", sorted(PICTURE_SUFFIXES - RAW_SUFFIXES))
def test_every_suffix_leads_to_a_stored_format(suffix: str):
    assert stored_name("format", suffix) in set(stored_formats().values())


def test_every_file_is_found_by_its_suffix():
    found = {name: stored_name("format", os.path.splitext(name)[1]) for name in stored_formats()}
    raw = {name for name in found if os.path.splitext(name)[1] in RAW_SUFFIXES}
    assert {name: found[name] for name in found if name not in raw} == {
        name: each for name, each in stored_formats().items() if name not in raw
    }
    assert {stored_formats()[name] for name in raw} == {"raw"}


@pytest.mark.parametrize("stored", sorted(_KINDS.keys() - {"dib"}))
def test_every_media_type_leads_to_its_format(stored: str):
    media_type = kind_of(stored).media_type
    if media_type.startswith("image/"):
        assert stored_name("format", media_type) == stored
