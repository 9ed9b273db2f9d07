"""Show the main job on real photographs: `make demo`.

Starts Elasticsearch, makes an index, starts the daemon on a folder, drops scikit-image's
photographs into it, and searches them through the Python client.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
COMMAND = Path(sys.executable).with_name("es-imgsearch")
INDEX = "demo"
QUERIES = ["a cat", "coffee", "a rocket", "motorcycle", "coins"]
PICTURE_QUERY = "motorcycle_left.png"
PATIENCE_SECONDS = 180.0
SUFFIXES = {".png", ".jpg", ".gif"}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folder", type=Path, default=CHECKOUT / ".demo" / "photos")
    options.add_argument("--output", type=Path, default=CHECKOUT / "demo-results.png")
    given = options.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)

    with step("Elasticsearch"):
        subprocess.run([CHECKOUT / "dev" / "es-up"], check=True)
    os.environ.setdefault("ES_URL", f"http://127.0.0.1:{os.environ.get('ES_PORT', '9200')}")
    with step("index"):
        run("init", "--encoder", "starter", "--index", INDEX)
    with daemon(given.folder) as process:
        with step("photographs dropped into the folder and found in the index"):
            drop(given.folder)
            count = wait_for(given.folder, process)
            print(f"  {count} photographs can be searched")
        with step("searches"):
            search_and_show(given.folder, given.output)
    print(
        f"\nThe contact sheet is {given.output}\n\n"
        "The model is `starter`, which needs no model hub but has the words of 1,000 classes\n"
        'only: "an astronaut" is none of them and is not found first. CLIP knows it.\n\n'
        "What to try next (Elasticsearch keeps running; make es-down stops it):\n"
        f"  .venv/bin/es-imgsearch watch photos={given.folder} --index {INDEX}   # and drop more\n"
        f'  .venv/bin/es-imgsearch search "a horse" --index {INDEX} --sheet horse.png\n'
        f"  .venv/bin/es-imgsearch search --image {given.folder}/coffee.png --index {INDEX}\n"
        f"  .venv/bin/es-imgsearch status --index {INDEX}"
    )
    return 0


@contextmanager
def step(name: str) -> Iterator[None]:
    print(f"\n== {name}", flush=True)
    started = time.monotonic()
    yield
    print(f"  took {time.monotonic() - started:.1f} s", flush=True)


def run(*arguments: str) -> None:
    subprocess.run([COMMAND, *arguments], check=True)


@contextmanager
def daemon(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([COMMAND, "watch", f"photos={folder}", "--index", INDEX])
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def drop(folder: Path) -> None:
    import skimage

    source = Path(skimage.__file__).parent / "data"
    for picture in sorted(source.iterdir()):
        target = folder / picture.name
        if picture.suffix in SUFFIXES and not target.exists():
            shutil.copyfile(picture, target)


def wait_for(folder: Path, process: subprocess.Popen[bytes]) -> int:
    """Wait until every file of the folder is a picture or a failure of the index."""
    from es_imgsearch.elastic.client import connect
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.manage.status import index_status
    from es_imgsearch.settings import load_settings

    store = Store(connect(load_settings({"index": INDEX})), INDEX)
    wanted = sum(path.suffix in SUFFIXES for path in folder.iterdir())
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = index_status(store)
        if found["pictures"] + found["failures"] >= wanted:
            return int(found["pictures"])
        if process.poll() is not None:
            raise SystemExit(f"demo: the daemon ended with exit code {process.returncode}")
        time.sleep(0.2)
    raise SystemExit(f"demo: after {PATIENCE_SECONDS:.0f} s the index still lacks pictures")


def search_and_show(folder: Path, output: Path) -> None:
    from es_imgsearch import ImageSearch
    from es_imgsearch.search.sheet import draw_sheet

    search = ImageSearch(index=INDEX)
    rows = []
    for query in QUERIES:
        started = time.monotonic()
        rows.append(search.search_text(query, k=5))
        show(repr(query), rows[-1], started)
    started = time.monotonic()
    rows.append(search.search_image(folder / PICTURE_QUERY, k=5))
    show(PICTURE_QUERY, rows[-1], started)
    draw_sheet(rows).save(output)


def show(query: str, hits: object, started: float) -> None:
    from es_imgsearch import Hits

    assert isinstance(hits, Hits)
    print(f"\n  {query}  ({(time.monotonic() - started) * 1000:.0f} ms)")
    for rank, hit in enumerate(hits, start=1):
        print(f"    {rank}. {hit.score:6.3f}  {hit.image_name}")


if __name__ == "__main__":
    sys.exit(main())
