"""Measure which copies level near of `duplicates` finds, and its false groups.

    python benchmarks/duplicates.py [STAMPS] [--json FILE]

Families of drawn pictures that are alike (tests/support/drawings.py: flags, icons, drawings, pages
of text, screenshots), scikit-image's photographs, and the stamps of animals and food of the folder
STAMPS (see starter_quality.py).  Without Elasticsearch, by the rules of es_imgsearch.duplicates.

1. Every picture with each of its copies: the share that is a candidate (by hash or colours) and is
   confirmed by its pixels.
2. Every picture with every other of its family: candidates, those confirmed (false), and those that
   hash and corners confirmed before.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))
from report import arguments, report

from es_imgsearch.describe.colours import Colours
from es_imgsearch.describe.hashes import perceptual_hash
from es_imgsearch.describe.layout import colour_vector
from es_imgsearch.duplicates.candidates import _has_few_colours
from es_imgsearch.duplicates.colours import MIN_COSINE
from es_imgsearch.duplicates.corners import count_agreeing, detect_corners
from es_imgsearch.duplicates.hashes import ALL_TURNS, UPRIGHT, Turn, turned_hash
from es_imgsearch.duplicates.near import HASH_RADIUS, MIN_CORNERS
from es_imgsearch.duplicates.pixels import Pixels, may_be_parts, show_the_same
from es_imgsearch.read.decoding import decode
from tests.support.drawings import FAMILIES, copies

# Of each family, at most this many are copied.
COPIED = 30


class Features:
    """What the index stores of a picture, and its pixels."""

    def __init__(self, image: Image.Image) -> None:
        self.image, self.pixels = image, Pixels.of(image)
        digits = perceptual_hash(image)
        self.hash = None if digits is None else int(digits, 16)
        fields = Colours().describe(image, Image.Exif(), "")
        self.colours = colour_vector(image) if _has_few_colours(fields) else None

    def turns(self, other: Features) -> Iterator[Turn]:
        """Yield the turns in which the other picture is a candidate."""
        if self.hash is None or other.hash is None:
            return
        distances = {t: (turned_hash(self.hash, t) ^ other.hash).bit_count() for t in ALL_TURNS}
        found = [turn for turn, distance in distances.items() if distance <= HASH_RADIUS]
        if UPRIGHT not in found and self.colours is not None and other.colours is not None:
            found += [UPRIGHT] * bool(self.colours @ other.colours >= MIN_COSINE)
        yield from found

    def shows(self, other: Features) -> bool:
        return any(
            may_be_parts(self.image.size, other.image.size, turn)
            and show_the_same(self.pixels, other.pixels, turn)
            for turn in self.turns(other)
        )

    def corners_agree(self, other: Features, turn: Turn) -> bool:
        other_corners = detect_corners(other.image, mirrored=turn.is_reflection)
        return count_agreeing(detect_corners(self.image), other_corners) >= MIN_CORNERS


def opened(content: bytes, suffix: str) -> Image.Image:
    return decode(content, max_pixels=10**8, suffix=suffix).image


def files(folder: Path) -> list[Image.Image]:
    names = sorted(f for f in folder.rglob("*") if f.suffix in {".png", ".jpg"})
    # Two files of one picture would be each other's copies.
    twins = {"chessboard_RGB.png", "motorcycle_right.png"}
    return [opened(f.read_bytes(), f.suffix) for f in names if f.name not in twins]


def main() -> None:
    import skimage

    parser = arguments(__doc__)
    stamps = os.environ.get("STAMPS")
    parser.add_argument("stamps", type=Path, nargs="?", default=stamps and Path(stamps))
    given = parser.parse_args()
    families: dict[str, list[Image.Image]] = {
        name: [image for _, image in make()] for name, make in FAMILIES.items()
    }
    families["photographs"] = files(Path(skimage.__file__).parent / "data")
    if given.stamps is not None:
        families["stamps"] = [i for n in ("animals", "food") for i in files(given.stamps / n)]
    started = time.perf_counter()
    described = {name: [Features(each) for each in images] for name, images in families.items()}
    rows: list[dict[str, Any]] = []
    for kind, (suffix, make) in copies().items():
        row: dict[str, Any] = {"copy": kind}
        for name, pictures in described.items():
            copied = pictures[:: max(1, len(pictures) // COPIED)]
            found = [each.shows(Features(opened(make(each.image), suffix))) for each in copied]
            row[name] = f"{sum(found) / len(found):.2f}"
        rows.append(row)
    title = f"Share of copies that are found, {time.perf_counter() - started:.0f} s"
    report(title, rows, given.json and given.json.with_suffix(".copies.json"))
    rows = []
    for name, pictures in described.items():
        candidates = false = by_corners = 0
        for one, other in combinations(pictures, 2):
            turns = list(one.turns(other))
            candidates += bool(turns)
            false += one.shows(other)
            by_corners += bool(turns) and one.corners_agree(other, turns[0])
        rows.append(
            {"pictures": name, "number": len(pictures), "candidate pairs": candidates,
             "false pairs": false, "by hash and corners": by_corners}
        )  # fmt: skip
    report(
        "Pairs of different pictures", rows, given.json and given.json.with_suffix(".pairs.json")
    )


if __name__ == "__main__":
    main()
