"""Measure how compiled bytecode shortens the start of `sync`.

    python benchmarks/bytecode.py [--runs N] [--json FILE]

Times a whole `sync` of 5 photographs of scikit-image, in an index of `starter` and in one of a
ViT-B/32 of sentence-transformers (random weights; they load and run like the real ones).
"compiled" is what `make setup`, pip and the image of docker/ leave.  "not compiled" is an
installation without bytecode where Python may write none (PYTHONDONTWRITEBYTECODE, a read-only
folder of another user): each process compiles what it imports.  Both find bytecode, or none, in a
folder of this run, and take turns; figures are medians, CPU is that of all processes.  Needs an
Elasticsearch (`make es-up`, or ES_URL).
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from pipeline_speed import new_index
from random_clips import save_vit_b_32
from report import arguments, report
from start_time import NAMES, PHOTOGRAPHS, WITHOUT, run


def sync(encoder: str, photos: Path, bytecode: Path, *, may_write: bool) -> tuple[float, float]:
    """Measure wall and CPU seconds of a `sync` into an empty index."""
    with new_index(encoder):
        return run(
            WITHOUT, "sync", str(photos),
            PYTHONPYCACHEPREFIX=str(bytecode), PYTHONDONTWRITEBYTECODE="" if may_write else "1",
        )  # fmt: skip


def measured(name: str, encoder: str, home: Path, runs: int) -> dict[str, object]:
    photos, none = home / "photos", home / "none"
    pairs = []
    for number in range(runs + 1):
        compiled = sync(encoder, photos, home / "compiled", may_write=True)
        # The first of them compiles, exports and measures.
        if number:
            pairs.append((sync(encoder, photos, none, may_write=False), compiled))
    if none.exists() or not any((home / "compiled").rglob("*.pyc")):
        raise SystemExit("there is bytecode where there should be none, or the other way round")
    without, without_cpu, seconds, cpu = (
        statistics.median(pair[side][at] for pair in pairs) for side in (0, 1) for at in (0, 1)
    )
    return {
        "sync with": name,
        "not compiled s": round(without, 1),
        "CPU s": round(without_cpu, 1),
        "compiled s": round(seconds, 1),
        "CPU s ": round(cpu, 1),
        "ratio": round(without / seconds, 1),
        "ratio of CPU": round(without_cpu / cpu, 1),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each")
    given = parser.parse_args()
    os.environ.setdefault("ES_URL", "http://127.0.0.1:9200")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        os.environ["ES_IMGSEARCH_CACHE_DIR"] = str(home / "cache")
        os.environ["ES_IMGSEARCH_MODELS_DIR"] = str(home)
        (home / "photos").mkdir()
        for each in NAMES:
            (home / "photos" / each).write_bytes((PHOTOGRAPHS / each).read_bytes())
        encoders = {"starter": "starter", "ViT-B/32": str(save_vit_b_32(home / "vit-b-32"))}
        rows = [measured(*each, home, given.runs) for each in encoders.items()]
    report(f"sync of {len(NAMES)} photographs, {given.runs} runs", rows, given.json)


if __name__ == "__main__":
    main()
