"""Index a whole folder and verify it: files/s, memory, result of `verify`.

    python benchmarks/folder.py [--files N] [--size WxH] [--folders N] [--encoder NAME]
        [--json FILE]

Makes N different JPEGs (scikit-image's photographs, cropped at random and with noise), then runs
`init`, `sync`, `verify` and a second `sync`, with the encoder `starter` unless another is named, as
a user would.  A small network (`timm:lcnet_035@FILE`) shows what reading and writing cost.  The set
the field measures on has 17,125 pictures of 500x375, 2 GB; the default is a tenth of it.  Memory
is the largest resident set of any of the processes.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from report import arguments, report

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index

INDEX = "bench-folder"
COMMAND = Path(sys.executable).with_name("es-imgsearch")
SOURCES = ["chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png"]


def make_pictures(folder: Path, count: int, size: tuple[int, int], folders: int) -> int:
    """Write the pictures; return the bytes written."""
    random = np.random.default_rng(0)
    data = Path(skimage.__file__).parent / "data"
    sources = [Image.open(data / name).convert("RGB") for name in SOURCES]
    noise = random.integers(-24, 25, size=(64, 64, 3))
    pattern = np.tile(noise, (-(-size[1] // 64), -(-size[0] // 64), 1))[: size[1], : size[0]]
    written = 0
    for n in range(count):
        source = sources[n % len(sources)]
        left, top = (int(random.integers(0, side // 3)) for side in source.size)
        box = (left, top, left + source.width * 2 // 3, top + source.height * 2 // 3)
        pixels = np.asarray(source.resize(size, box=box), dtype=np.int16)
        shifted = np.roll(pattern, int(random.integers(64)), axis=0)
        below = folder / f"{n % folders:03d}"
        below.mkdir(exist_ok=True)
        path = below / f"{n:06d}.jpg"
        Image.fromarray((pixels + shifted).clip(0, 255).astype(np.uint8)).save(path, quality=92)
        written += path.stat().st_size
    return written


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--files", type=int, default=1712)
    parser.add_argument("--size", default="500x375")
    parser.add_argument("--folders", type=int, default=20)
    parser.add_argument("--encoder", default="starter")
    given = parser.parse_args()
    width, height = (int(side) for side in given.size.split("x"))
    os.environ["ES_IMGSEARCH_INDEX"] = INDEX
    store = Store(connect(load_settings()), INDEX)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pictures"
        folder.mkdir()
        size = make_pictures(folder, given.files, (width, height), given.folders)
        try:
            for step, arguments_ in (
                ("init", ["init", "--encoder", given.encoder]),
                ("sync", ["sync", folder]),
                ("verify", ["verify", folder]),
                ("sync again", ["sync", folder]),
            ):
                started = time.perf_counter()
                done = subprocess.run([COMMAND, *arguments_], capture_output=True, text=True)
                seconds = time.perf_counter() - started
                peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
                rows.append(
                    {
                        "step": step,
                        "exit": done.returncode,
                        "seconds": round(seconds, 1),
                        "files/s": round(given.files / seconds, 1),
                        "peak MB so far": round(peak),
                        "said": done.stderr.strip().splitlines()[-1],
                    }
                )
        finally:
            remove_index(store)
    title = (
        f"{given.files} pictures of {given.size}, {size / 1e6:.0f} MB, {given.folders} folders,"
        f" encoder {given.encoder}"
    )
    report(title, rows, given.json)


if __name__ == "__main__":
    main()
