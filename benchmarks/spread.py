"""Compare `sync --engine ray` with one process, with the cores' limit beside them.

    python benchmarks/spread.py [--files N] [--size WxH] [--encoder NAME] [--json FILE]

The same folder is indexed by one process with all cores, by one with one thread and one reader, and
by one, two and four actors of one thread and one reader each.  Four are for correctness only: they
share the cores.  Needs an Elasticsearch (`make es-up`, or ES_URL), which takes its share of the
cores, as Ray's own processes do.

    start        the time for a folder of one picture: Python, Ray, the model
    running      pictures a second without the start
    ratio        of `running` to that of the process with all cores
    of limit     of `running` to cores / (CPU time of reading and of embedding one picture)
    right        as many pictures and failures as the first one has, with the same vectors
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from es_imgsearch.cli import let_waiting_threads_sleep

let_waiting_threads_sleep()

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from folder import make_pictures
from pipeline_speed import encode_cost, read_cost
from report import arguments, report

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.embed.runtime.network import batch_size
from es_imgsearch.embed.runtime.select import run_for_pictures
from es_imgsearch.settings import available_cores, load_settings
from es_imgsearch.testing import remove_index

COMMAND = Path(sys.executable).with_name("es-imgsearch")
ONE_THREAD = {"ES_IMGSEARCH_THREADS": "1", "ES_IMGSEARCH_READ_WORKERS": "1"}


class Engine(NamedTuple):
    name: str
    options: tuple[str, ...] = ()
    environment: dict[str, str] = {}  # noqa: RUF012 - never changed


def on_ray(actors: int, cores: float = 1.0) -> Engine:
    options = ("--engine", "ray", "--workers", str(actors))
    return Engine(f"{actors} actors of 1 thread", options, {"ES_IMGSEARCH_RAY_CPUS": f"{cores:g}"})


ENGINES = [
    Engine("1 process, all cores"),
    Engine("1 process, 1 thread", environment=ONE_THREAD),
    on_ray(1),
    on_ray(2),
    on_ray(4, cores=available_cores() / 4),
]


def timed(engine: Engine, encoder: str, folder: Path) -> tuple[float, dict[str, Any]]:
    """Index a folder into a new index; return the seconds and the vectors by path."""
    index = f"bench-spread-{uuid.uuid4().hex[:8]}"
    environment = {**os.environ, **engine.environment, "ES_IMGSEARCH_INDEX": index}
    store = Store(connect(load_settings({"index": index})), index)
    try:
        run = [COMMAND, "init", "--encoder", encoder]
        subprocess.run(run, env=environment, check=True, capture_output=True)
        began_at = time.perf_counter()
        run = [COMMAND, "sync", folder, *engine.options]
        subprocess.run(run, env=environment, check=True, capture_output=True)
        return time.perf_counter() - began_at, vectors_of(store)
    finally:
        remove_index(store)


def vectors_of(store: Store) -> dict[str, Any]:
    store.refresh()
    body = {"size": 10_000, "_source": ["relative_path"], "docvalue_fields": [VECTOR_FIELD]}
    found = store.connection.request("POST", f"/{store.index}/_search", body)["hits"]["hits"]
    return {
        each["_source"]["relative_path"]: np.ravel(each["fields"][VECTOR_FIELD]) for each in found
    }


def are_alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        vector @ other[path] >= 0.9999 * np.linalg.norm(vector) * np.linalg.norm(other[path])
        for path, vector in one.items()
    )


def limit(spec: str, files: list[Path]) -> float:
    """Return pictures a second of all cores, busy with nothing but reading and embedding."""
    encoder = load_encoder(spec)
    run_for_pictures(encoder, load_settings({"threads": 1}))
    encode = encode_cost(encoder, batch_size(encoder, None))
    read = read_cost(encoder.preparation, files[:40])
    return available_cores() / (encode.cpu_seconds + read.cpu_seconds)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--files", type=int, default=600)
    parser.add_argument("--size", default="1000x750")
    parser.add_argument("--encoder", default="starter")
    given = parser.parse_args()
    width, height = (int(side) for side in given.size.split("x"))
    os.environ.setdefault("ES_IMGSEARCH_DESCRIBERS", "-text_in_image")
    rows: list[dict[str, Any]] = []
    first: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        single, whole = Path(temporary) / "single", Path(temporary) / "whole"
        for folder, count in ((single, 1), (whole, given.files)):
            folder.mkdir()
            make_pictures(folder, count, (width, height), 20)
        most = limit(given.encoder, sorted(whole.rglob("*.jpg")))
        for engine in ENGINES:
            start, _ = timed(engine, given.encoder, single)
            seconds, vectors = timed(engine, given.encoder, whole)
            first = first or vectors
            running = (given.files - 1) / (seconds - start)
            rows.append(
                {
                    "engine": engine.name,
                    "start s": round(start, 1),
                    "whole s": round(seconds, 1),
                    "running /s": round(running, 1),
                    "ratio": round(running / (rows[0]["running /s"] if rows else running), 2),
                    "of limit": round(running / most, 2),
                    "right": are_alike(first, vectors) and len(vectors) == given.files,
                }
            )
    cores = available_cores()
    title = f"{given.files} pictures of {given.size}, {given.encoder}, {cores} cores: {most:.1f} /s"
    report(title, rows, given.json)
    return not all(each["right"] for each in rows)


if __name__ == "__main__":
    sys.exit(main())
