"""Compare reconcile with a bare walk of the disk and a bare scan of the index.

    python benchmarks/reconcile.py [--files N] [--folder DIR] [--json FILE]

Makes N empty files in folders of 1,000 and N documents that account for them (no vectors: they
play no part), then measures each in a process of its own.  The aim: for a million, at most twice
the time of walk plus scan, and at most 300 MB.  Needs an Elasticsearch (`make es-up`, or ES_URL).
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).parent))
from report import arguments, report

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.store import Store
from es_imgsearch.records import Root, image_id
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index
from es_imgsearch.watch.excludes import Excludes
from es_imgsearch.watch.reconcile import differences
from es_imgsearch.watch.walk import walk

INDEX = "bench-reconcile"
PER_FOLDER = 1000
CHUNK = 5000


def make_files(folder: Path, count: int) -> None:
    for start in range(0, count, PER_FOLDER):
        below = folder / f"{start // PER_FOLDER:05d}"
        below.mkdir(exist_ok=True)
        for n in range(start, min(start + PER_FOLDER, count)):
            os.close(os.open(below / f"{n:08d}.jpg", os.O_CREAT | os.O_WRONLY, 0o644))


def make_documents(store: Store, root: Root) -> None:
    store.generations.create(new_meta(Seal("bench", "1", 8, "1"), "exact", "cosine"))
    lines: list[bytes] = []

    def send() -> None:
        store.connection.request(
            "POST",
            "/_bulk",
            b"".join(lines),
            params={"require_alias": "true", "filter_path": "errors"},
            headers={"accept": "application/json", "content-type": "application/x-ndjson"},
        )
        lines.clear()

    for seen in walk(root, Excludes().prunes):
        key = image_id(root.name, seen.stored_path)
        document = {
            "image_id": key,
            "root": root.name,
            "relative_path": seen.stored_path,
            "size_bytes": seen.state.size_bytes,
            "mtime_ns": seen.state.mtime_ns,
        }
        lines.append(orjson.dumps({"index": {"_index": store.index, "_id": key}}) + b"\n")
        lines.append(orjson.dumps(document) + b"\n")
        if len(lines) >= 2 * CHUNK:
            send()
    if lines:
        send()
    client = store.connection.client.options(request_timeout=600)
    client.indices.forcemerge(index=store.index, max_num_segments=1)
    store.refresh()


def bare_walk(store: Store, root: Root) -> int:
    found = 0
    for base, _, names in os.walk(root.path):
        for name in names:
            os.stat(f"{base}/{name}")
            found += 1
    return found


def bare_scan(store: Store, root: Root) -> int:
    return sum(1 for _ in store.listings.stored(root.name))


def whole(store: Store, root: Root) -> int:
    """Count the compared files; the folder has no differences."""
    store.refresh()
    compared = 0

    def disk():
        nonlocal compared
        for seen in walk(root, Excludes().prunes):
            compared += 1
            yield seen

    failures = store.listings.stored(root.name, failures=True)
    found = list(differences(disk(), store.listings.stored(root.name), failures))
    if found:
        raise SystemExit(f"{len(found)} differences where there are none: {found[0]}")
    return compared


STEPS = {"bare walk": bare_walk, "bare scan": bare_scan, "reconcile": whole}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--step", choices=STEPS, help="one measurement, in this process")
    given = parser.parse_args()
    store = Store(connect(load_settings({"index": INDEX})), INDEX)
    if given.step:
        root = Root("bench", given.folder)
        started = time.perf_counter()
        count = STEPS[given.step](store, root)
        seconds = time.perf_counter() - started
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([count, seconds, peak_mb]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        root = Root("bench", folder)
        try:
            make_files(folder, given.files)
            make_documents(store, root)
            rows = [measured(name, folder, given.files) for name in STEPS]
        finally:
            remove_index(store)
    parts = rows[0]["seconds"] + rows[1]["seconds"]
    for row in rows:
        row["of walk + scan"] = round(row["seconds"] / parts, 2)
    report(f"{given.files} files", rows, given.json)


def measured(name: str, folder: Path, files: int) -> dict[str, object]:
    """Take the best of three runs: the first reads the disk, others the page cache."""
    command = [sys.executable, __file__, "--step", name, "--folder", str(folder)]
    best: list[float] = []
    for _ in range(3):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        count, seconds, peak_mb = json.loads(done.stdout)
        if count != files:
            raise SystemExit(f"{name} saw {count} of {files}")
        if not best or seconds < best[0]:
            best = [seconds, peak_mb]
    return {
        "step": name,
        "seconds": round(best[0], 2),
        "files/s": round(files / best[0]),
        "peak MB": round(best[1]),
    }


if __name__ == "__main__":
    main()
