"""Measure what regions add (crops found first) and cost (disk, time).

    python benchmarks/regions.py [STAMPS] [--most-stamps N] [--grid GRID]... [--json FILE]

Stores scikit-image's photographs (and stamps of tuxpaint, see same_picture.py) in an index without
regions and in one for each grid (by default 2x2+centre and 3x3), profile `balanced`, encoder
`starter`, by the daemon's own pipeline.  Then asks each with parts of every picture, and with the
picture itself recompressed, which regions must not make worse.  The figures of a row:

    a kind of query   share of queries whose original is the first hit (recall@1)
    kB a picture      the index on disk, merged, divided by the pictures
    embed ms          the encoder's time a picture, its tiles with it
    search ms         Elasticsearch's own time a search
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from copies import sources
from report import arguments, report

from es_imgsearch import ImageSearch
from es_imgsearch.describe.registry import load_describers
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import open_context
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.records import Grid
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index
from es_imgsearch.watch.roots import parse_roots, register_roots

INDEX = "bench-regions"
RANDOM = np.random.default_rng(5)


def saved(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return Image.open(buffer).convert("RGB")


def quarter(image: Image.Image) -> Image.Image:
    """Crop half of each side at random: hardly ever on a tile."""
    width, height = image.width // 2, image.height // 2
    left = int(RANDOM.integers(0, image.width - width + 1))
    top = int(RANDOM.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def three_quarters(image: Image.Image) -> Image.Image:
    """Crop a quarter of each side, as `cropped 25 %` of same_picture.py."""
    left, top = round(image.width * 0.175), round(image.height * 0.075)
    return image.crop((left, top, left + image.width * 3 // 4, top + image.height * 3 // 4))


QUERIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "quarter": quarter,
    "left half": lambda image: image.crop((0, 0, image.width // 2, image.height)),
    "lower half": lambda image: image.crop((0, image.height // 2, image.width, image.height)),
    "cropped 25 %": three_quarters,
    "whole": lambda image: image,
}


def main() -> None:
    parser = arguments(__doc__)
    stamps = os.environ.get("STAMPS")
    parser.add_argument("stamps", type=Path, nargs="?", default=stamps and Path(stamps))
    parser.add_argument("--most-stamps", type=int, default=36)
    parser.add_argument("--grid", action="append")
    given = parser.parse_args()
    pictures = [each.image for each in sources(given.stamps, given.most_stamps)]
    encoder = load_encoder("starter", device="cpu")
    asked = {
        kind: encoder.embed_images(
            np.stack([encoder.preparation.apply(saved(make(each))) for each in pictures])
        )
        for kind, make in QUERIES.items()
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pictures"
        folder.mkdir()
        for n, image in enumerate(pictures):
            image.save(folder / f"{n}.png", compress_level=1)
        grids = [None, *(given.grid or ["2x2+centre", "3x3"])]
        rows = [measured(folder, name, asked, encoder) for name in grids]
    title = f"{len(pictures)} pictures: recall@1 of the original, encoder starter"
    report(title, rows, given.json)


def measured(
    folder: Path, grid_name: str | None, asked: dict[str, Any], encoder: Any
) -> dict[str, Any]:
    grid = None if grid_name is None else Grid.parse(grid_name)
    settings = load_settings({"index": INDEX, "settle_seconds": 0.0})
    client = ImageSearch(settings=settings, encoder=encoder)
    store: Store = client.store
    described = [each.mapping for each in load_describers()]
    try:
        store.generations.create(
            new_meta(seal_of(encoder), "balanced", "cosine", grid=grid), described
        )
        started = time.perf_counter()
        fill(store, settings, folder, encoder, grid)
        seconds = time.perf_counter() - started
        store.generations.merge(wait_seconds=60)
        store.refresh()
        row: dict[str, Any] = {"regions": grid_name or "none"}
        took, number = 0, 0
        for kind, vectors in asked.items():
            found = 0
            for n, vector in enumerate(vectors):
                hits = client.search(vector, k=1, regions=grid is not None)
                found += hits[0].relative_path == f"{n}.png"
                took, number = took + hits.took_ms, number + 1
            row[kind] = f"{found / len(vectors):.2f}"
        count = store.listings.count()
        mean = {"size": 0, "aggs": {"ms": {"avg": {"field": "embed_ms"}}}}
        answer = store.connection.request("POST", f"/{INDEX}/_search", mean)
        stats = store.connection.request("GET", f"/{INDEX}/_stats/store")
        size = stats["_all"]["primaries"]["store"]["size_in_bytes"]
        return row | {
            "kB a picture": round(size / count / 1e3, 1),
            "embed ms": round(answer["aggregations"]["ms"]["value"], 1),
            "sync s": round(seconds, 1),
            "search ms": round(took / number, 2),
        }
    finally:
        remove_index(store)


def fill(store: Store, settings: Any, folder: Path, encoder: Any, grid: Grid | None) -> None:
    roots = parse_roots([str(folder)])
    register_roots(store, roots, settings.host)
    indexer = Indexer(open_context(store, settings, encoder), roots, settings)
    try:
        sync(indexer)
    finally:
        indexer.pipeline.close()
    if indexer.counts.failed or store.listings.count() != len(list(folder.iterdir())):
        sys.exit(f"not everything was stored: {indexer.counts.in_words()}")


if __name__ == "__main__":
    main()
