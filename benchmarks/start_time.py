"""Time one search from the command line, with and without torch.

    python benchmarks/start_time.py [--runs N] [--json FILE]

Needs an Elasticsearch at ES_URL; makes an index of scikit-image's photographs with `starter`,
and removes it.  "with torch" is `backend = "torch"`, and the Elasticsearch client with all that it
imports where that is installed; "without" is what a search does after `sync` ran on the machine.
Both take turns; figures are medians, CPU is that of all threads.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import skimage

sys.path.insert(0, str(Path(__file__).parent))
from report import arguments, report

from es_imgsearch.elastic.client import new_client
from es_imgsearch.elastic.store import Store
from es_imgsearch.testing import remove_index

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
NAMES = ("chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "coins.png")
WITHOUT = "from es_imgsearch.cli import main; main()"
WITH = f"import elasticsearch; {WITHOUT}"


def run(code: str, *command: str, **environment: str) -> tuple[float, float]:
    """Measure wall seconds, and CPU of the process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, *command],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    )
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=7, help="of each search")
    given = parser.parse_args()
    url = os.environ.get("ES_URL", "http://127.0.0.1:9200")
    store = Store(new_client(url), f"bench-{uuid.uuid4().hex[:12]}")
    os.environ.update(ES_URL=url, ES_IMGSEARCH_INDEX=store.index)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["ES_IMGSEARCH_CACHE_DIR"] = str(folder / "cache")
        photos = folder / "photos"
        photos.mkdir()
        for each in NAMES:
            (photos / each).write_bytes((PHOTOGRAPHS / each).read_bytes())
        try:
            run(WITHOUT, "init", "--encoder", "starter")
            run(WITHOUT, "sync", str(photos), ES_IMGSEARCH_BACKEND="onnx")
            rows = measured(photos / NAMES[0], given.runs)
        finally:
            remove_index(store)
    report(f"one search, {given.runs} runs", rows, given.json)


def measured(picture: Path, runs: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for what, query in {
        "words": ["search", "a", "cat"],
        "a picture": ["search", "--image", str(picture)],
    }.items():
        pairs = []
        for number in range(runs + 1):
            pair = (run(WITH, *query, ES_IMGSEARCH_BACKEND="torch"), run(WITHOUT, *query))
            # The first reads files from the disk.
            pairs += [pair] if number else []
        seconds_with, cpu_with, seconds, cpu = (
            statistics.median(pair[side][at] for pair in pairs) for side in (0, 1) for at in (0, 1)
        )
        rows.append(
            {
                "search with": what,
                "with torch s": round(seconds_with, 2),
                "CPU s": round(cpu_with, 2),
                "without s": round(seconds, 2),
                "CPU s ": round(cpu, 2),
                "ratio": round(seconds / seconds_with, 2),
                "ratio of CPU": round(cpu / cpu_with, 2),
            }
        )
    return rows


if __name__ == "__main__":
    main()
