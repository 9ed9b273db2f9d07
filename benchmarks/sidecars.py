"""Compare sidecar files of one folder, together and one by one.

    python benchmarks/sidecars.py [--files N]... [--by-itself N] [--json FILE]

Makes N pictures (empty files: they are not opened) with a JSON sidecar file each, and N documents
that say what these say.  "together" is what a comparison of the folder does: it meets every file,
and asks which documents are outdated.  "each by itself" asks the same of the same code after every
single file, so that the folder is listed as often as it has files; that grows with the square, and
is left out above --by-itself.  Needs an Elasticsearch (`make es-up`, or ES_URL).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).parent))
from report import arguments, report

from es_imgsearch.describe.sidecar import SIDECAR_ID, Sidecar, sidecar_fields
from es_imgsearch.elastic.client import new_client
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.store import Store
from es_imgsearch.pipeline.sidecar_changes import SidecarChanges
from es_imgsearch.records import FileState, Root, image_id
from es_imgsearch.testing import remove_index

CHUNK = 1000
# How many files say something else than the documents, and have to be found.
CHANGED = 7


def make_files(folder: Path, count: int) -> list[str]:
    """List the names of the sidecar files."""
    for n in range(count):
        (folder / f"{n:06}.jpg").touch()
        (folder / f"{n:06}.json").write_bytes(orjson.dumps({"title": f"Picture {n}"}))
    return [f"{n:06}.json" for n in range(count)]


@contextmanager
def filled(root: Root, count: int) -> Iterator[Store]:
    url = os.environ.get("ES_URL", "http://127.0.0.1:9200")
    store = Store(new_client(url), f"bench-{uuid.uuid4().hex[:12]}")
    try:
        store.generations.create(
            new_meta(Seal("bench", "1", 8, "1"), "exact", "cosine"), [Sidecar.mapping]
        )
        for start in range(0, count, CHUNK):
            names = [f"{n:06}.jpg" for n in range(start, min(start + CHUNK, count))]
            store.documents.write([write(root, name) for name in names])
        store.refresh()
        yield store
    finally:
        remove_index(store)


def write(root: Root, name: str) -> Write:
    key = image_id(root.name, name)
    said = sidecar_fields(root.absolute(name))[SIDECAR_ID]
    document = {"image_id": key, "root": root.name, "relative_path": name, SIDECAR_ID: said}
    return Write(key, document=document)


def together(store: Store, root: Root, names: list[str]) -> int:
    """How many documents are found to be outdated."""
    sidecars = SidecarChanges(store, [Sidecar.name])
    comparison = sidecars.begin_comparison(root, "")
    for name in names:
        state = os.stat(root.absolute(name))
        comparison.meet(name, FileState(state.st_size, state.st_mtime_ns))
    sidecars.end_comparison(comparison, 1)
    return len(list(sidecars.outdated(1)))


def each_by_itself(store: Store, root: Root, names: list[str]) -> int:
    sidecars = SidecarChanges(store, [Sidecar.name])
    found = 0
    for name in names:
        sidecars.record(root, name, 1)
        found += len(list(sidecars.outdated(1)))
    return found


def measured(count: int, most_by_itself: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        root = Root("bench", Path(folder))
        names = make_files(root.path, count)
        with filled(root, count) as store:
            for name in names[::-1][:CHANGED]:
                (root.path / name).write_bytes(b'{"title": "another"}')
            seconds = {}
            for way in (together, each_by_itself):
                if way is each_by_itself and count > most_by_itself:
                    continue
                started = time.perf_counter()
                found = way(store, root, names)
                seconds[way] = time.perf_counter() - started
                if found != CHANGED:
                    raise SystemExit(f"{way.__name__}: {found} outdated instead of {CHANGED}")
    alone = seconds.get(each_by_itself)
    return {
        "files": count,
        "together s": round(seconds[together], 3),
        "ms a file": round(1000 * seconds[together] / count, 3),
        "each by itself s": "" if alone is None else round(alone, 2),
        "ratio": "" if alone is None else round(alone / seconds[together], 1),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--files", type=int, action="append", help="[default: 500, 1000, 5000]")
    parser.add_argument("--by-itself", type=int, default=1000, metavar="N")
    given = parser.parse_args()
    counts = given.files or [500, 1000, 5000]
    rows = [measured(count, given.by_itself) for count in counts]
    report("sidecar files in one folder", rows, given.json)


if __name__ == "__main__":
    main()
