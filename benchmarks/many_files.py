"""Memory of a daemon while it indexes many files, and while it compares them again.

    python benchmarks/many_files.py [--files N] [--json FILE]

1,000 distinct pictures have N names by hard links, 1,000 in a folder.  The daemon is a process
with the instant encoder of testing, so that files a second are those of everything else.  The
memory is the resident one of all its processes together; pages that they share are counted once
for each.  Needs an Elasticsearch (`make es-up`, or ES_URL); the index it makes is removed.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from report import arguments, report

from es_imgsearch.describe.registry import load_describers
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import FakeEncoder, remove_index
from tests.support.house import paint
from tests.support.watching import Watching, watching

INDEX = "bench-many-files"
DISTINCT = 1_000
ROWS = 20
# Of a bar.
WIDTH = 40


def make_files(folder: Path, number: int) -> None:
    for n in range(number):
        path = folder / f"{n // 1000:04}" / f"{n:07}.png"
        if n % 1000 == 0:
            path.parent.mkdir(parents=True)
        if n < DISTINCT:
            paint(path, n)
        else:
            original = n % DISTINCT
            os.link(folder / f"{original // 1000:04}" / f"{original:07}.png", path)


def follow(store: Store, running: Watching, number: int) -> list[tuple[float, int]]:
    """Pictures in the index by the seconds since the begin, until all are there."""
    began, counts = time.monotonic(), [(0.0, 0)]
    while counts[-1][1] < number:
        time.sleep(2)
        if running.process.poll() is not None:
            raise SystemExit("The daemon has ended.")
        store.refresh()
        counts.append((time.monotonic() - began, store.listings.count()))
        print(f"\r{counts[-1][1]:,} of {number:,}", end="", file=sys.stderr, flush=True)
    return counts


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--files", type=int, default=200_000)
    given = parser.parse_args()
    settings = load_settings({"index": INDEX})
    store = Store(connect(settings), INDEX)
    described = [describer.mapping for describer in load_describers()]
    store.generations.create(new_meta(seal_of(FakeEncoder()), "balanced", "cosine"), described)
    try:
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home) / "photos"
            make_files(folder, given.files)
            with watching(folder, settings.es_url, INDEX) as running:
                counts = follow(store, running, given.files)
                samples = list(running.samples)
    finally:
        remove_index(store)
    seconds = np.array([each.seconds for each in samples])
    memory = np.array([each.megabytes for each in samples])
    rows = []
    for until in np.linspace(0, counts[-1][0], ROWS + 1)[1:]:
        lately = (seconds <= until) & (seconds > until - counts[-1][0] / ROWS)
        most = float(memory[lately].max()) if lately.any() else 0.0
        rows.append(
            {
                "s": round(float(until)),
                "pictures": round(np.interp(until, *zip(*counts, strict=True))),
                "MB": round(most),
                "": ("#" * round(WIDTH * most / memory.max())).ljust(WIDTH),
            }
        )
    report(f"{given.files:,} files, memory of all processes of the daemon", rows, given.json)
    grown = (
        memory[-len(memory) // 5 :].mean() / memory[len(memory) // 5 : 2 * len(memory) // 5].mean()
    )
    print(f"The last fifth takes {grown:.2f} times what the second takes.")


if __name__ == "__main__":
    main()
