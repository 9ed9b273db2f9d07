"""Measure the cost of describers: pictures/s of `sync` with all and with none.

    python benchmarks/describers.py [--files N] [--size WxH] [--rounds N] [--encoder NAME]
        [--ocr] [--json FILE]

Makes N different JPEGs (see folder.py) and stores them anew into an index of its own, by the
daemon's own pipeline: in each round once without describers and once with all that are installed
but `text_in_image` (--ocr has it as well, on a tenth of the pictures), in turns that change, so
that what else the machine does meets both alike.  The figures of a row:

    files/s         the median of the rounds
    share of none   the median of what each round's files/s are of the same round's without any
    ms a picture    CPU time that the describer takes a picture in one process, by itself

Ends with 1 if all describers keep less than 80 % of the files/s of none.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from es_imgsearch.cli import let_waiting_threads_sleep
from es_imgsearch.embed.context import open_context

# As the command line has it.
let_waiting_threads_sleep()

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from folder import make_pictures
from report import arguments, report

from es_imgsearch.describe.registry import chosen_describers, load_describers, picture_describers
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index
from es_imgsearch.watch.roots import parse_roots, register_roots

INDEX = "bench-describers"
OCR = "text_in_image"
LEAST_SHARE = 0.8
SAMPLE = 20


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--size", default="800x600")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--encoder", default="starter")
    parser.add_argument("--ocr", action="store_true")
    given = parser.parse_args()
    encoder = load_encoder(given.encoder, device="cpu")
    width, height = (int(side) for side in given.size.split("x"))
    names = [each.name for each in chosen_describers() if each.name != OCR]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pictures"
        folder.mkdir()
        make_pictures(folder, given.files, (width, height), 1)
        speeds: dict[str, list[float]] = {"none": [], "all": []}
        # The first round finds nothing in the cache of the disk.
        for n in range(given.rounds + 1):
            turns: list[tuple[str, Sequence[str]]] = [("none", ()), ("all", names)]
            for name, described in turns[:: -1 if n % 2 else 1]:
                speed = files_per_second(folder, encoder, described)
                if n:
                    speeds[name].append(speed)
        rows = [row_of(name, each, speeds["none"]) for name, each in speeds.items()]
        if given.ocr:
            few = Path(temporary) / "few"
            few.mkdir()
            make_pictures(few, max(1, given.files // 10), (width, height), 1)
            both = [files_per_second(few, encoder, each) for each in ((), [*names, OCR])]
            rows.append(row_of(f"all and {OCR}", both[1:], both[:1]))
            names.append(OCR)
        rows += [{**dict.fromkeys(rows[0], ""), "describers": name, "ms a picture": milliseconds}
                 for name, milliseconds in alone(folder, names).items()]  # fmt: skip
    title = (
        f"{given.files} pictures of {given.size}, encoder {given.encoder}, {given.rounds} rounds"
    )
    report(title, rows, given.json)
    share = statistics.median(map(float.__truediv__, speeds["all"], speeds["none"]))
    return int(share < LEAST_SHARE)


def files_per_second(folder: Path, encoder: Any, described: Sequence[str]) -> float:
    settings = load_settings({"index": INDEX, "settle_seconds": 0.0})
    store = Store(connect(settings), INDEX)
    try:
        mappings = [each.mapping for each in load_describers()]
        store.generations.create(new_meta(seal_of(encoder), "balanced", "cosine"), mappings)
        roots = parse_roots([str(folder)])
        register_roots(store, roots, settings.host)
        context = replace(open_context(store, settings, encoder), describers=tuple(described))
        indexer = Indexer(context, roots, settings, warm_up=True)
        try:
            started = time.perf_counter()
            sync(indexer)
            seconds = time.perf_counter() - started
            assert indexer.counts.failed == 0
            return indexer.counts.embedded / seconds
        finally:
            indexer.pipeline.close()
    finally:
        remove_index(store)
        store.connection.client.close()


def row_of(name: str, speeds: Sequence[float], none: Sequence[float]) -> dict[str, Any]:
    shares = [speed / other for speed, other in zip(speeds, none, strict=True)]
    return {
        "describers": name,
        "files/s": round(statistics.median(speeds), 1),
        "share of none": round(statistics.median(shares), 3),
        "lowest": round(min(shares), 3),
        "highest": round(max(shares), 3),
        "ms a picture": "",
    }


def alone(folder: Path, names: Sequence[str]) -> dict[str, float]:
    """Time each describer alone in this process; shared work counts for the first."""
    paths = sorted(folder.rglob("*.jpg"))[: SAMPLE + 1]
    opened = [Image.open(path).convert("RGB") for path in paths]
    exif = [image.getexif() for image in opened]
    describers = picture_describers(names)
    found = dict.fromkeys((each.name for each in describers), 0.0)
    for n, (path, image) in enumerate(zip(paths, opened, strict=True)):
        for each in describers:
            started = time.process_time()
            each.describe(image, exif[n], str(path))
            # With the first picture tables are built and models loaded.
            found[each.name] += (time.process_time() - started) * 1000 if n else 0.0
    return {name: round(total / SAMPLE, 2) for name, total in found.items()}


if __name__ == "__main__":
    sys.exit(main())
