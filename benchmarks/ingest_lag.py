"""Measure the time from a finished write to searchable, one file at a time, step by step.

    python benchmarks/ingest_lag.py [--files N] [--encoder NAME] [--json FILE]

A daemon with the settings of a new installation watches a temporary folder; each picture is a
JPEG of 1600 x 1200 pixels with a content of its own, written within a second of the one before.
Each row is a step of the way of a picture (es_imgsearch/pipeline/__init__.py): how long after the
file was closed it was reached.  "searchable" is when a search first finds it (asked every 10 ms).
Needs an Elasticsearch (`make es-up`, or ES_URL); the index it makes is removed.
"""

from __future__ import annotations

import functools
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from es_imgsearch.pipeline.acknowledge_stage import AcknowledgeStage
from es_imgsearch.pipeline.daemon import Daemon
from es_imgsearch.pipeline.describe_stage import DescribeStage
from es_imgsearch.pipeline.embed_stage import EmbedStage
from es_imgsearch.pipeline.engines.local import Pipeline
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.jobs import Job
from es_imgsearch.pipeline.write_stage import WriteStage
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


class Timeline:
    """When each path reached each step: the functions of the way of a picture, wrapped."""

    def __init__(self) -> None:
        self._reached: dict[tuple[str, str], float] = {}
        self._wrap(Indexer, "offer", "event", lambda hint: [hint.relative_path])
        self._wrap(Pipeline, "submit", "settled", lambda change: [change.relative_path])
        self._wrap(EmbedStage, "put", "read, described", lambda job, _: [_path(job)])
        self._wrap(DescribeStage, "put", "embedded", lambda items: [_path(i.job) for i in items])
        self._wrap(WriteStage, "put", "document made", lambda item: [_path(item.job)])
        self._wrap(AcknowledgeStage, "put", "acknowledged", lambda item: [_path(item.job)])

    def _wrap(self, owner: type, name: str, step: str, paths: Callable[..., list[str]]) -> None:
        whole = getattr(owner, name)

        @functools.wraps(whole)
        def noted(stage: Any, *given: Any, **named: Any) -> Any:
            for path in paths(*given):
                # Events go on while a file is written: the last one counts, and each later step.
                self._reached[step, path] = time.time()
            return whole(stage, *given, **named)

        setattr(owner, name, noted)

    def of(self, path: str) -> dict[str, float]:
        return {step: at for (step, each), at in self._reached.items() if each == path}


def _path(job: Job) -> str:
    return job.change.relative_path


def measure(
    store: Store, timeline: Timeline, root: str, folder: Path, numbers: range
) -> dict[str, list[float]]:
    chance = random.Random(numbers.start)
    lags: dict[str, list[float]] = {}
    for number in numbers:
        image = picture(number, chance)
        # At any moment of the index's refresh interval.
        time.sleep(0.5 + chance.random())
        name = f"{number}.jpg"
        image.save(folder / name, quality=90)
        written = time.time()
        found = found_after(store, image_id(root, name))
        for step, at in {**timeline.of(name), "searchable": found}.items():
            lags.setdefault(step, []).append(at - written)
    return lags


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--encoder", default="starter")
    given = parser.parse_args()
    timeline = Timeline()
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
            root = roots[0].name
            measure(store, timeline, root, folder, range(-3, 0))
            lags = measure(store, timeline, root, folder, range(given.files))
            daemon.stop()
            thread.join()
    finally:
        remove_index(store)
    rows = [
        {
            "step": step,
            "p50 s": round(float(np.percentile(values, 50)), 3),
            "p95 s": round(float(np.percentile(values, 95)), 3),
            "max s": round(max(values), 3),
        }
        for step, values in lags.items()
    ]
    report(f"{given.files} files, one at a time, encoder {given.encoder}", rows, given.json)


if __name__ == "__main__":
    main()
