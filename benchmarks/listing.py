"""Merge the listing of a source of millions of keys with the index's; memory must stay bounded.

    python benchmarks/listing.py [--keys N] [--json FILE]

The source is simulated (tests/support/simulated_source.py) and registered by an entry point, as
any package's is; ranges of its keys are listed at once.  The index's side is simulated as well: it
lacks each 1,000th key, has another state of each 1,001st, and one key more after each 1,002nd, so
that what the merge finds is known.  The aim: 10 million keys in at most 300 MB.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from report import arguments, report

from es_imgsearch.elastic.listings import IndexedFile
from es_imgsearch.records import FileState
from es_imgsearch.watch.excludes import Excludes
from es_imgsearch.watch.given_roots import parse_roots
from es_imgsearch.watch.reconcile import DifferenceKind, differences
from es_imgsearch.watch.sources.listing import list_root
from tests.support.simulated_source import key_of, registered, state_of

MISSING, CHANGED, MORE = 1000, 1001, 1002


def documents(keys: int) -> Iterator[IndexedFile]:
    for number in range(keys):
        if number % MISSING:
            state = state_of(number) if number % CHANGED else FileState(1, 1)
            yield IndexedFile(key_of(number), state)
        if not number % MORE:
            yield IndexedFile(f"{key_of(number)}.lost.jpg", FileState(1, 1))


def compared(keys: int) -> Counter[DifferenceKind]:
    (root,) = parse_roots([f"simulated://{keys}"])
    listed = list_root(root, Excludes().left_out)
    return Counter(each.kind for each in differences(listed, documents(keys), ()))


def expected(keys: int) -> Counter[DifferenceKind]:
    def multiples(step: int) -> int:
        return -(-keys // step)

    return Counter(
        {
            DifferenceKind.NEW: multiples(MISSING),
            DifferenceKind.CHANGED: multiples(CHANGED) - multiples(MISSING * CHANGED),
            DifferenceKind.LOST: multiples(MORE),
        }
    )


def _peak_kb() -> int:
    """Most memory of this program; `ru_maxrss` would count the process that started it."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--keys", type=int, default=10_000_000, metavar="N")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, registered(Path(folder)):
        began_at = time.perf_counter()
        found = compared(given.keys)
        seconds = time.perf_counter() - began_at
    is_right = found == expected(given.keys)
    peak_mb = _peak_kb() / 1024
    row = {
        "keys": given.keys,
        "seconds": seconds,
        "keys a second": round(given.keys / seconds),
        "peak MB": round(peak_mb),
        "right": is_right,
    }
    report("Merge of a listing with the index", [row], given.json)
    return 0 if is_right and peak_mb <= 300 else 1


if __name__ == "__main__":
    sys.exit(main())
