"""Compare the command line with rclip's, command for command.

    python benchmarks/beside_rclip.py [--pictures N] [--runs N] [--ours PYTHON] [--rclip PYTHON]
        [--json FILE]

Photographs of 1600 x 1200, made of scikit-image's; an index of its own, removed afterwards, on the
Elasticsearch at ES_URL.  Models are those of the published architectures with random weights
(random_clips.py): `clip` is what `find` takes where its models are in the models folder, rclip's
is ViT-B-32-256, which reads 65 patches a picture and not 50.  `starter` has its real weights.
Caches are empty at the first search; no model is downloaded.

The programs take turns, in another order each round.  "first result s" ends with the first line
that names a picture, medians of --runs but for the first search; "CPU s" is that of the command's
processes, without Elasticsearch's.  --ours is a Python in whose environment this program is
installed as users do (`uv pip install .`), without the extras that this checkout has, such as
`ocr`; --rclip one that has rclip (`uv pip install rclip`), without which only this program's rows
are printed.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
from beside_rclip_tasks import printed_rows
from photographs import write_photographs
from random_clips import save_clip_pair, save_rclip
from report import arguments, report

from es_imgsearch.elastic.client import new_client
from es_imgsearch.elastic.store import Store
from es_imgsearch.testing import remove_index

ADDED = 10
# Other words each time: nobody asks for the same again and again.
WORDS = ("a cat", "a cup of coffee", "a rocket", "a motorbike", "a woman", "a dog", "a red car")


class Program(NamedTuple):
    name: str
    environment: dict[str, str]
    # What is typed before the words: looking at the folder first, and not.
    looking: tuple[str, ...]
    not_looking: tuple[str, ...]
    folder: tuple[str, ...] = ()
    # rclip takes a path without it for words.
    before_file: str = ""

    def commands(self, words: str) -> dict[str, list[str]]:
        """Return the command line of each repeated job."""
        return {
            "again, nothing new": [*self.looking, words, *self.folder],
            f"again, {ADDED} new": [*self.looking, words, *self.folder],
            "search only": [*self.not_looking, words],
            "search by a picture": [*self.not_looking, f"{self.before_file}cat.jpg"],
        }


class Timed(NamedTuple):
    first_seconds: float
    cpu_seconds: float
    load: float


def timed(command: Sequence[str], program: Program, folder: Path) -> Timed:
    """Run a command; measure the time to the first line that names a picture."""
    before, load = resource.getrusage(resource.RUSAGE_CHILDREN), os.getloadavg()[0]
    started, first = time.perf_counter(), None
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            # Lines are seen when they are written, as on a terminal.
            env={**os.environ, **program.environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if first is None and ".jpg" in line:
                first = time.perf_counter() - started
        if process.wait() or first is None:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {said.read().decode()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timed(first, cpu, load)


def rclip_program(python: str | None, home: Path) -> Program | None:
    """Return rclip with a model folder of its own, or None and say why."""
    if python is None:
        print("rclip is left out: give --rclip PYTHON, of an environment that has it.")
        return None
    command = Path(python).absolute().with_name("rclip")
    if not command.exists():
        print(f"rclip is left out: it is not installed in the environment of {python}.")
        return None
    data = save_rclip(home / "rclip")
    rclip = str(command)
    return Program("rclip", {"RCLIP_DATADIR": str(data)}, (rclip,), (rclip, "-n"), (), "./")


@contextmanager
def our_program(encoder: str, command: str, home: Path, url: str) -> Iterator[Program]:
    models = home / f"models-{encoder}"
    models.mkdir()
    if encoder == "clip":
        save_clip_pair(models)
    store = Store(new_client(url), f"bench-{uuid.uuid4().hex[:12]}")
    environment = {
        "ES_URL": url,
        "ES_IMGSEARCH_INDEX": store.index,
        "ES_IMGSEARCH_CACHE_DIR": str(home / f"cache-{encoder}"),
        "ES_IMGSEARCH_MODELS_DIR": str(models),
    }
    try:
        yield Program(encoder, environment, (command, "find"), (command, "search"), folder=(".",))
    finally:
        remove_index(store)


def rows_of(
    programs: Sequence[Program], folder: Path, spare: Sequence[Path], runs: int
) -> list[dict[str, Any]]:
    measured: dict[tuple[str, str], list[Timed]] = {}

    def measure(job: str, command: list[str], program: Program) -> None:
        found = timed(command, program, folder)
        measured.setdefault((job, program.name), []).append(found)
        print(
            f"{program.name}, {job}: {found.first_seconds:.1f} s, load {found.load:.1f}", flush=True
        )

    for program in programs:
        measure("first search", [*program.looking, "a cat", *program.folder], program)
    for number in range(runs):
        at = number % len(programs)
        turn = [*programs[at:], *programs[:at]]
        for job in programs[0].commands(""):
            if "new" in job and "nothing" not in job:
                for file in spare[number * ADDED :][:ADDED]:
                    shutil.move(file, folder)
            for program in turn:
                measure(job, program.commands(WORDS[number % len(WORDS)])[job], program)
    return [
        _row(job, name, values, measured.get((job, "rclip")))
        for (job, name), values in measured.items()
    ]


def _row(
    job: str, name: str, values: Sequence[Timed], against: Sequence[Timed] | None
) -> dict[str, Any]:
    row: dict[str, Any] = {"job": job, "program": name, "runs": len(values)}
    for column, at in (("first result s", 0), ("CPU s", 1)):
        median = statistics.median(each[at] for each in values)
        row[column] = round(median, 2)
        if against is not None:
            row[f"{column[:-2]} / rclip"] = round(
                median / statistics.median(each[at] for each in against), 2
            )
    row["slowest s"] = round(max(each.first_seconds for each in values), 2)
    row["load"] = round(statistics.median(each.load for each in values), 1)
    return row


def compare(given: argparse.Namespace, home: Path, url: str) -> None:
    folder, spare = home / "Pictures", home / "spare"
    folder.mkdir()
    spare.mkdir()
    count = given.pictures + given.runs * ADDED
    write_photographs(spare, count, (1600, 1200))
    files = sorted(spare.iterdir())
    for file in files[: given.pictures]:
        shutil.move(file, folder)
    (folder / "00000.jpg").rename(folder / "cat.jpg")
    # Not resolved: the python of an environment is a link to the one that made it.
    ours = str(Path(given.ours).absolute().with_name("es-imgsearch"))
    with ExitStack() as stack:
        starter = stack.enter_context(our_program("starter", ours, home, url))
        clip = stack.enter_context(our_program("clip", ours, home, url))
        rclip = rclip_program(given.rclip, home)
        programs = [each for each in (starter, rclip, clip) if each is not None]
        load = os.getloadavg()[0]
        rows = rows_of(programs, folder, files[given.pictures :], given.runs)
        title = (
            f"{given.pictures} pictures; {os.cpu_count()} cores; load {load:.1f} at the start,"
            f" {os.getloadavg()[0]:.1f} at the end"
        )
        report(title, rows, given.json)
        printed = printed_rows(
            folder,
            {"es-imgsearch": starter.environment}
            | ({} if rclip is None else {"rclip": rclip.environment}),
            [Path(ours).parent, *([] if rclip is None else [Path(rclip.looking[0]).parent])],
        )
    file = given.json and given.json.with_name(f"{given.json.stem}_printed.json")
    report("command for command: characters typed, first lines printed", printed, file)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3, help="of all but the first search")
    parser.add_argument("--ours", metavar="PYTHON", default=sys.executable)
    parser.add_argument("--rclip", metavar="PYTHON", help="of an environment that has rclip")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        compare(given, Path(name), os.environ.get("ES_URL", "http://127.0.0.1:9200"))


if __name__ == "__main__":
    main()
