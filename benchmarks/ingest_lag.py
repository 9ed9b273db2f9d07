"""Measure the time from a finished write to searchable, one file at a time.

    python benchmarks/ingest_lag.py [--files N] [--encoder NAME] [--json FILE]

A daemon with the settings of a new installation watches a temporary folder; each picture is a
JPEG of 1600 x 1200 pixels with a content of its own.  "searchable" is when a search first finds
it (asked every 10 ms), "document made" when it goes into a bulk (`ingest_lag_ms`), "embedding"
the part of that the encoder took (`embed_ms`).  Needs an Elasticsearch (`make es-up`, or
ES_URL); the index it makes is removed.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from es_imgsearch.describe.registry import load_describers
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import open_context
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.embed.runtime.select import run_for_pictures
from es_imgsearch.pipeline.daemon import Daemon
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.records import image_id
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index
from es_imgsearch.watch.roots import parse_roots, register_roots

sys.path.insert(0, str(Path(__file__).parent))
from report import arguments, report

INDEX = "bench-ingest-lag"
PHOTOGRAPHS = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png")


def picture(number: int, chance: random.Random) -> Image.Image:
    """Cut the part of a photograph that belongs to this number alone."""
    path = Path(skimage.__file__).parent / "data" / PHOTOGRAPHS[number % len(PHOTOGRAPHS)]
    with Image.open(path) as image:
        width, height = image.size
        left, top = chance.randrange(width // 4), chance.randrange(height // 4)
        part = image.convert("RGB").crop((left, top, left + width // 2, top + height // 2))
        return part.resize((1600, 1200))


def found_after(store: Store, wanted: str) -> float:
    body = {"query": {"ids": {"values": [wanted]}}, "_source": False}
    while not store.searches.search(body)["hits"]["total"]["value"]:
        time.sleep(0.01)
    return time.time()


def measure(store: Store, indexer: Indexer, folder: Path, numbers: range) -> dict[str, list[float]]:
    chance = random.Random(numbers.start)
    lags: dict[str, list[float]] = {"searchable": [], "document made": [], "embedding": []}
    for number in numbers:
        image = picture(number, chance)
        # At any moment of the index's refresh interval.
        time.sleep(0.5 + chance.random())
        name = f"{number}.jpg"
        image.save(folder / name, quality=90)
        written = time.time()
        found = found_after(store, image_id(indexer.roots[0].name, name))
        fields = store.documents.get(image_id(indexer.roots[0].name, name))
        lags["searchable"].append(found - written)
        lags["document made"].append(fields["ingest_lag_ms"] / 1000)
        lags["embedding"].append(fields["embed_ms"] / 1000)
    return lags


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--encoder", default="starter")
    given = parser.parse_args()
    settings = load_settings({"index": INDEX})
    store = Store(connect(settings), INDEX)
    encoder = load_encoder(given.encoder)
    run_for_pictures(encoder, settings)
    described = [describer.mapping for describer in load_describers()]
    store.generations.create(new_meta(seal_of(encoder), "balanced", "cosine"), described)
    try:
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home) / "photos"
            folder.mkdir()
            roots = parse_roots([str(folder)])
            register_roots(store, roots, settings.host)
            context = open_context(store, settings, encoder)
            indexer = Indexer(context, roots, settings, warm_up=True)
            ready = threading.Event()
            daemon = Daemon(indexer, settings, on_ready=ready.set)
            thread = threading.Thread(target=daemon.run)
            thread.start()
            ready.wait()
            measure(store, indexer, folder, range(-3, 0))
            lags = measure(store, indexer, folder, range(given.files))
            daemon.stop()
            thread.join()
    finally:
        remove_index(store)
    rows = [
        {
            "until": what,
            "p50 s": round(float(np.percentile(values, 50)), 3),
            "p95 s": round(float(np.percentile(values, 95)), 3),
            "max s": round(max(values), 3),
        }
        for what, values in lags.items()
    ]
    report(f"{given.files} files, one at a time, encoder {given.encoder}", rows, given.json)


if __name__ == "__main__":
    main()
