"""Measure which copies `duplicates` finds, and its false matches.

    python benchmarks/same_picture.py [STAMPS] [--most-stamps N] [--json FILE] [--sweep]

Makes 17 kinds of copies (copies.py) of scikit-image's photographs and, where STAMPS names the
folder `usr/share/tuxpaint/stamps` of the Debian package tuxpaint-stamps-default (see
starter_quality.py), of its animals and food.  Every copy is compared with every original, by the
same rules as es_imgsearch.duplicates.find, without Elasticsearch:

    hash             pHash within SURE_RADIUS bits, upright
    hash, turned     the same, turned and mirrored as well
    no originals     level near, unconfirmed, where originals are away: and the embeddings' cosine
    near             level near: pHash within HASH_RADIUS bits, confirmed by the pixels
    thorough         near, and agreeing corners of these and the ten nearest by embedding
    similar          cosine of the embeddings (encoder `starter`)

Each column is the share of copies whose original is found; the last row counts pairs of a copy
and another picture's original that were found too.  --sweep prints how thresholds move both.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from es_imgsearch.describe.hashes import perceptual_hash
from es_imgsearch.duplicates import near as duplicates
from es_imgsearch.duplicates.corners import count_agreeing, detect_corners
from es_imgsearch.duplicates.hashes import ALL_TURNS, BITS, turned_hash
from es_imgsearch.duplicates.pixels import Pixels, show_the_same
from es_imgsearch.embed.registry import load_encoder

sys.path.insert(0, str(Path(__file__).parent))
from copies import copies, sources
from report import arguments, report

MEMBERS = ("hash", "hash, turned", "no originals", "near", "thorough", "similar")
# A hash differs from that of a picture without one as from an unrelated one.
NO_HASH = BITS // 2


class Side:
    """Features of some pictures: hashes, unit vectors (n, dims), corners."""

    def __init__(self, images: list[Any], encoder: Any) -> None:
        self.images = images
        hashes = [perceptual_hash(image) for image in images]
        self.hashes = [None if each is None else int(each, 16) for each in hashes]
        parts = [images[n : n + 16] for n in range(0, len(images), 16)]
        pixels = (np.stack([encoder.preparation.apply(each) for each in part]) for part in parts)
        self.vectors = np.concatenate([encoder.embed_images(part) for part in pixels])
        self._corners: dict[tuple[int, bool], Any] = {}

    def corners(self, n: int, mirrored: bool = False) -> Any:
        if (n, mirrored) not in self._corners:
            self._corners[n, mirrored] = detect_corners(self.images[n], mirrored=mirrored)
        return self._corners[n, mirrored]


class Compared:
    """Comparison of one kind of copies: arrays of shape (copies, originals)."""

    def __init__(self, copied: Side, originals: Side) -> None:
        shape = len(copied.images), len(originals.images)
        others = np.array([each or 0 for each in originals.hashes], np.uint64)
        distances = np.full((len(ALL_TURNS), *shape), NO_HASH)
        for n, one in enumerate(copied.hashes):
            if one is not None:
                turned = np.array([turned_hash(one, turn) for turn in ALL_TURNS], np.uint64)
                distances[:, n] = np.bitwise_count(turned[:, None] ^ others[None])
        distances[:, :, [each is None for each in originals.hashes]] = NO_HASH
        self.upright, self.turned = distances[0], distances.min(axis=0)
        hands = np.array([turn.is_reflection for turn in ALL_TURNS])
        mirrored = hands[distances.argmin(axis=0)]
        self.cosine = copied.vectors @ originals.vectors.T
        ranks = np.argsort(np.argsort(-self.cosine, axis=1), axis=1)
        self.is_neighbour = (ranks < duplicates.THOROUGH_NEIGHBOURS) & (
            self.cosine >= duplicates.THOROUGH_COSINE
        )
        # Corners are compared where some rule could ask for them, and of every right pair.
        self.by_hash = np.zeros(shape, int)
        self.by_pixels = np.zeros(shape, bool)
        self.by_vector = np.zeros(shape, int)
        for n, m in np.argwhere(self.turned <= SWEPT_RADIUS):
            found = count_agreeing(copied.corners(n), originals.corners(m, bool(mirrored[n, m])))
            self.by_hash[n, m] = found
            turn = ALL_TURNS[int(distances[:, n, m].argmin())]
            if self.turned[n, m] <= duplicates.HASH_RADIUS:
                one, other = copied.images[n], originals.images[m]
                self.by_pixels[n, m] = show_the_same(Pixels.of(one), Pixels.of(other), turn)
        for n, m in np.argwhere(self.is_neighbour):
            self.by_vector[n, m] = count_agreeing(copied.corners(n), originals.corners(m))

    def found(self) -> dict[str, Any]:
        sure = np.vectorize(duplicates.is_sure)(self.turned, self.cosine)
        enough = duplicates.MIN_CORNERS
        alike = self.turned <= duplicates.HASH_RADIUS
        alike &= ~np.vectorize(duplicates.is_by_chance)(self.turned, self.cosine)
        near = alike & self.by_pixels
        by_corners = (alike & (self.by_hash >= enough)) | (
            self.is_neighbour & (self.by_vector >= enough)
        )
        return {
            "hash": self.upright <= duplicates.SURE_RADIUS,
            "hash, turned": self.turned <= duplicates.SURE_RADIUS,
            "no originals": sure,
            "near": near,
            "thorough": near | by_corners,
            "similar": self.cosine >= duplicates.SIMILAR_COSINE,
        }


SWEPT_RADIUS = 16


def main() -> None:
    parser = arguments(__doc__)
    stamps = os.environ.get("STAMPS")
    parser.add_argument("stamps", type=Path, nargs="?", default=stamps and Path(stamps))
    parser.add_argument("--most-stamps", type=int, default=36)
    parser.add_argument("--sweep", action="store_true")
    given = parser.parse_args()
    started = time.perf_counter()
    pictures = sources(given.stamps, given.most_stamps)
    background = next(each.image for each in pictures if each.name == "hubble_deep_field.jpg")
    pictures = [each for each in pictures if each.name != "hubble_deep_field.jpg"]
    encoder = load_encoder("starter", device="cpu")
    originals = Side([each.image for each in pictures], encoder)
    right = np.eye(len(pictures), dtype=bool)
    rows, compared = [], []
    false_pairs = dict.fromkeys(MEMBERS, 0)
    for kind, make in copies(background).items():
        compared.append(Compared(Side([make(each) for each in pictures], encoder), originals))
        row: dict[str, Any] = {"kind": kind}
        for name, found in compared[-1].found().items():
            wrong = int((found & ~right).sum())
            row[name] = f"{found[right].mean():.2f}" + (f" +{wrong}" if wrong else "")
            false_pairs[name] += wrong
        rows.append(row)
        if given.sweep:
            print(kind, f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
    every = {name: np.stack([each.found()[name] for each in compared]) for name in MEMBERS}
    shares = {name: f"{found[:, right].mean():.3f}" for name, found in every.items()}
    rows.append({"kind": "all kinds", **shares})
    rows.append({"kind": "false pairs", **false_pairs})
    pairs = len(compared) * len(pictures) * (len(pictures) - 1)
    title = (
        f"{len(pictures)} pictures, {len(compared)} copies of each: share whose original is found"
        f" (+ wrong pairs of {len(pictures) * (len(pictures) - 1)}; {pairs} in all),"
        f" {time.perf_counter() - started:.0f} s"
    )
    report(title, rows, given.json)
    if given.sweep:
        sweep(compared, right)
        name_wrong(compared, right, [each.name for each in pictures])


def sweep(compared: list[Compared], right: Any) -> None:
    turned, upright, cosine, by_hash, by_vector = (
        np.stack([getattr(each, name) for each in compared])
        for name in ("turned", "upright", "cosine", "by_hash", "by_vector")
    )

    def row(name: str, at: float, found: Any) -> dict[str, Any]:
        return {
            "rule": name,
            "at": at,
            "recall": f"{found[:, right].mean():.3f}",
            "false": int(found[:, ~right].sum()),
        }

    rows = [row("hash, upright", r, upright <= r) for r in (2, 4, 6, 8, 10, 12, 14)]
    rows += [row("hash, turned", r, turned <= r) for r in (2, 4, 6, 8, 10, 12, 14)]
    for least in (0.6, 0.7, 0.8, 0.9):
        rows += [
            row(f"hash, turned, cosine {least}", r, (turned <= r) & (cosine >= least))
            for r in (4, 6, 8, 10, 12)
        ]
    for enough in (8, 10, 12, 15):
        rows += [
            row(f"hash, {enough} corners", r, (turned <= r) & (by_hash >= enough))
            for r in (8, 10, 12, 14, 16)
        ]
    rows += [row("neighbours, corners", n, by_vector >= n) for n in (6, 8, 10, 12, 15, 20)]
    rows += [row("similar", c, cosine >= c) for c in (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)]
    report("Thresholds over all kinds", rows, None)


def name_wrong(compared: list[Compared], right: Any, names: list[str]) -> None:
    """Print the pairs of different pictures that corners match."""
    counts: dict[tuple[str, str], int] = {}
    for each in compared:
        for n, m in np.argwhere(each.found()["thorough"] & ~right):
            counts[names[n], names[m]] = counts.get((names[n], names[m]), 0) + 1
    for pair, count in sorted(counts.items(), key=lambda item: -item[1])[:20]:
        print(count, *pair)


if __name__ == "__main__":
    main()
