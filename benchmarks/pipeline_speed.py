"""Compare `sync` with the limit of the cores and with hand-written loops.

    python benchmarks/pipeline_speed.py [--only large|small] [--files N] [--small-files N]
        [--naive N] [--workers N] [--peers PYTHON] [--json FILE]

Two jobs.  large: a ViT-B/32 of random weights (they run at the speed of the real ones) over 500
JPEGs of 12 megapixels.  small: the encoder `starter` over 3,000 of 500 x 375.

    encoder alone    `embed_images` on arrays that are ready, in batches
    sync             `es-imgsearch sync` into Elasticsearch, start of the processes included
    sync, running    the same without the start: the difference to a sync of half the files
    naive loop       Image.open, encode, es.index, one after the other, model loaded before
    clip-retrieval, rclip   their own loops over a sample, with the same weights (--peers)

The limit is cores / (encode CPU + read CPU of a picture): all cores busy with nothing else.  Both
are measured alone, each with the other core idle; a core that shares memory with a busy one is
slower, so the limit of busy cores has each measured while the other runs at the same time.
Reading is all that a reading worker does: decode, shrink, hash, describe (but for text_in_image,
which is left out).  Needs an Elasticsearch
(`make es-up`, or ES_URL), which takes its share of the cores when it runs on the same machine; the
indices it makes are removed.  --peers is a Python with clip-retrieval and rclip installed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from es_imgsearch.cli import let_waiting_threads_sleep

# As the command line has it; and torch's threads that spin while they wait would count as CPU.
let_waiting_threads_sleep()

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from photographs import write_photographs
from random_clips import save_vit_b_32
from report import arguments, report

from es_imgsearch.describe.registry import picture_describers
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.embed.runtime.network import batch_size
from es_imgsearch.embed.runtime.select import run_for_pictures
from es_imgsearch.read.file import read_file
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.read.workers import ReadPlan
from es_imgsearch.settings import available_cores, load_settings
from es_imgsearch.testing import remove_index

COMMAND = Path(sys.executable).with_name("es-imgsearch")
# While the model loads, reading goes ahead by as many files as have a place (`queue_size`): what is
# taken off as the start has to hold most of them, or the rest would seem to be read at no cost.
START_SHARE = 0.5
# All but the reading of text, which takes longer than everything else together.
DESCRIBERS = ["colours", "exif", "hashes", "iptc", "layout", "sidecar"]
ENCODE_SECONDS = 12.0
READ_SAMPLE = 40

# One picture from a file to a vector, as a person would write it.
Naive = Callable[[Path], Any]


class Job(NamedTuple):
    name: str
    encoder: str
    size: tuple[int, int]
    files: int


class Cost(NamedTuple):
    """Wall and CPU time of one picture."""

    cpu_seconds: float
    wall_seconds: float


def measured(work: Callable[[], int]) -> Cost:
    """Measure CPU time of all threads and wall time per picture."""
    cpu, wall = time.process_time(), time.perf_counter()
    pictures = work()
    return Cost((time.process_time() - cpu) / pictures, (time.perf_counter() - wall) / pictures)


def encode_cost(encoder: Encoder, count: int) -> Cost:
    wanted = encoder.preparation
    shape = (count, wanted.height, wanted.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    encoder.embed_images(pixels)

    def work() -> int:
        ends_at = time.perf_counter() + ENCODE_SECONDS
        done = 0
        while time.perf_counter() < ends_at:
            encoder.embed_images(pixels)
            done += count
        return done

    return measured(work)


def read_cost(preparation: Preparation, files: list[Path]) -> Cost:
    """Time a reading worker on one core, with files in the page cache."""
    plan = ReadPlan(preparation, 250_000_000, 0, 0.0)
    describers = picture_describers(DESCRIBERS)
    named = [(each.name, each.describe) for each in describers]
    pixels = plan.shorter_side_pixels(describers)

    def work() -> int:
        for file in files:
            read_file(
                str(file),
                plan.preparation,
                named,
                max_pixels=plan.max_pixels,
                shorter_side_pixels=pixels,
            )
        return len(files)

    work()
    return measured(work)


def busy_costs(encoder: Encoder, size: int, files: list[Path]) -> tuple[Cost, Cost]:
    """Measure encoding and reading, each while the other uses all cores but one."""
    readers = max(1, available_cores() - 1)
    with ProcessPoolExecutor(readers, multiprocessing.get_context("spawn")) as pool:
        # Once to start the processes, which is not measured; then one after the other until
        # encoding is done.
        pending = [pool.submit(read_cost, encoder.preparation, files) for _ in range(readers)]
        for each in pending:
            each.result()
        ended = threading.Event()
        read: list[Cost] = []

        def keep_reading() -> None:
            while not ended.is_set():
                read.append(pool.submit(read_cost, encoder.preparation, files).result())

        threads = [threading.Thread(target=keep_reading) for _ in range(readers)]
        for thread in threads:
            thread.start()
        encode = encode_cost(encoder, size)
        ended.set()
        for thread in threads:
            thread.join()
    return encode, sorted(read)[len(read) // 2]


@contextmanager
def new_index(encoder: str) -> Iterator[Store]:
    """Make an index as `init` does; point the command line's environment to it."""
    index = f"bench-pipeline-{uuid.uuid4().hex[:8]}"
    os.environ["ES_IMGSEARCH_INDEX"] = index
    store = Store(connect(load_settings()), index)
    try:
        subprocess.run([COMMAND, "init", "--encoder", encoder], check=True, capture_output=True)
        yield store
    finally:
        remove_index(store)
        store.connection.client.close()
        del os.environ["ES_IMGSEARCH_INDEX"]


def sync_seconds(encoder: str, folder: Path, files: int, workers: int) -> tuple[float, float]:
    """Measure wall time of a whole `sync`, and CPU of the command's processes."""
    with new_index(encoder) as store:
        started, cpu = time.perf_counter(), cpu_of_children()
        done = subprocess.run(
            [
                COMMAND,
                "sync",
                folder,
                "--workers",
                str(workers),
                "--describers",
                ",".join(DESCRIBERS),
            ],
            capture_output=True,
            text=True,
        )
        seconds, cpu = time.perf_counter() - started, cpu_of_children() - cpu
        if done.returncode:
            raise RuntimeError(done.stderr)
        found = store.connection.request("GET", f"/{store.index}/_count")["count"]
        if found != files:
            raise RuntimeError(f"{found} of {files} pictures are in the index")
    return seconds, cpu


def cpu_of_children() -> float:
    """CPU seconds of all ended child processes and of their children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def naive_loop(job: Job, encoder: Encoder, model: Path | None) -> Naive:
    from PIL import Image

    if model is None:
        return lambda file: encoder.embed_images(
            encoder.preparation.apply(Image.open(file).convert("RGB"))[None]
        )[0]
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(str(model), device="cpu")
    return lambda file: loaded.encode(Image.open(file), show_progress_bar=False)


def naive_cost(job: Job, encoder: Encoder, model: Path | None, files: list[Path]) -> Cost:
    embed = naive_loop(job, encoder, model)
    embed(files[0])
    with new_index(job.encoder) as store:

        def work() -> int:
            for number, file in enumerate(files):
                document = {
                    "image_id": str(number),
                    "root": "b",
                    "relative_path": file.name,
                    "content_id": str(number),
                    "image_embedding": embed(file).tolist(),
                }
                store.connection.client.index(index=store.index, id=str(number), document=document)
            return len(files)

        return measured(work)


def peer_rows(python: str, model: Path, files: list[Path]) -> dict[str, float]:
    """Measure pictures/s of the peers' own loops; skip peers not installed."""
    loops = Path(__file__).with_name("peer_loops.py")
    done = subprocess.run(
        [python, loops, model / "0_CLIPModel", *files],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(job: Job, home: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    folder = home / job.name
    folder.mkdir()
    written = write_photographs(folder, job.files, job.size)
    files = sorted(folder.iterdir())
    beginning = home / f"{job.name}-start"
    beginning.mkdir()
    start_files = files[: int(len(files) * START_SHARE)]
    for file in start_files:
        (beginning / file.name).hardlink_to(file)
    model = Path(job.encoder) if Path(job.encoder).is_dir() else None
    encoder = load_encoder(job.encoder)
    settings = load_settings()
    run_for_pictures(encoder, settings)
    encode = encode_cost(encoder, batch_size(encoder))
    read = read_cost(encoder.preparation, files[:READ_SAMPLE])
    busy = busy_costs(encoder, batch_size(encoder), files[:READ_SAMPLE])
    cores = available_cores()
    limit = cores / (encode.cpu_seconds + read.cpu_seconds)
    start = sync_seconds(job.encoder, beginning, len(start_files), given.workers)
    whole = sync_seconds(job.encoder, folder, job.files, given.workers)
    more = job.files - len(start_files)
    seconds, cpu_seconds = (after - before for after, before in zip(whole, start, strict=True))
    speeds = {
        "encoder alone": 1 / encode.wall_seconds,
        "limit of the cores": limit,
        "limit of busy cores": cores / sum(cost.cpu_seconds for cost in busy),
        "sync": job.files / whole[0],
        "sync, running": more / seconds,
    }
    naive = files[: min(given.naive, job.files)]
    speeds["naive loop"] = 1 / naive_cost(job, load_encoder(job.encoder), model, naive).wall_seconds
    if given.peers and model is not None:
        speeds |= peer_rows(given.peers, model, naive)
    print(
        f"\n{job.name}: CPU of a picture: encode {encode.cpu_seconds * 1000:.1f} ms,"
        f" read {read.cpu_seconds * 1000:.1f} ms; on busy cores {busy[0].cpu_seconds * 1000:.1f}"
        f" and {busy[1].cpu_seconds * 1000:.1f} ms; all of sync {cpu_seconds / more * 1000:.1f} ms;"
        f" {cores} cores; files of {written / job.files / 1e6:.2f} MB"
    )
    return [
        {
            "job": job.name,
            "what": what,
            "pictures/s": round(speed, 2),
            "of the limit": round(speed / limit, 3),
            "times naive": round(speed / speeds["naive loop"], 2),
        }
        for what, speed in speeds.items()
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=("large", "small"))
    parser.add_argument("--files", type=int, default=500, help="of the job large")
    parser.add_argument("--small-files", type=int, default=3000, help="of the job small")
    parser.add_argument("--naive", type=int, default=60, help="files of the loops compared with")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--peers", metavar="PYTHON")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        if given.only != "small":
            model = save_vit_b_32(home / "vit-b-32")
            os.environ["ES_IMGSEARCH_MODELS_DIR"] = str(home)
            rows += run(Job("large", str(model), (4000, 3000), given.files), home, given)
        if given.only != "large":
            rows += run(Job("small", "starter", (500, 375), given.small_files), home, given)
    report(f"pictures a second, {given.workers} encoder processes", rows, given.json)


if __name__ == "__main__":
    main()
