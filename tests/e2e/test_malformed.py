"""Five hundred damaged files in a watched folder: each is told apart once, at its own cost."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from es_imgsearch.elastic.store import Store
from es_imgsearch.read import file as read
from es_imgsearch.records import FileState, image_id
from es_imgsearch.settings import Settings
from tests.support import picture_samples as samples
from tests.support.house import House, Running, compare_again, until

FILES = 500
SECONDS = 90.0
READ_MEMORY_MB = 1536
# Measured: a worker 121 MB, most of it libraries; the daemon 3 MB more than before.
WORKER_MB = 400
GROWTH_MB = 100

DOCUMENTED = {
    line.split()[0]
    for line in (read.__doc__ or "").splitlines()
    if line.startswith("    ") and line.strip()
}


@pytest.fixture
def house(real_store: Store, settings: Settings, tmp_path: Path) -> House:
    changed = settings.model_copy(
        update={"read_workers": 2, "read_memory_mb": READ_MEMORY_MB, "read_timeout_seconds": 10.0}
    )
    return House(real_store, changed, tmp_path)


@pytest.fixture
def damaged(tmp_path: Path) -> list[Path]:
    """The files, beside the watched folder.  The seed is fixed: what fails once fails again."""
    dice = random.Random(20240601)
    good = samples.good_files()
    others = list(good.values())
    folder = tmp_path / "outside"
    folder.mkdir()
    paths = []
    for number in range(FILES):
        name = list(good)[number % len(good)]
        content = samples.mutated(good[name], others, dice)
        if dice.random() < 0.1:  # now and then twice, or under a name that promises nothing
            content = samples.mutated(content or b"\0", others, dice)
            name = f"{Path(name).stem}.txt"
        paths.append(folder / f"{number:03}-{name}")
        paths[-1].write_bytes(content)
    return paths


class Reads:
    """How often a daemon gave each file to its workers."""

    def __init__(self, running: Running) -> None:
        self.of: Counter[str] = Counter()
        workers = running.indexer.pipeline._reading._workers
        self._read = workers.read
        workers.read = self._counted  # type: ignore[method-assign]

    def _counted(self, path: str, done: Callable[[Any], None]) -> None:
        self.of[os.path.basename(path)] += 1
        self._read(path, done)


def megabytes(pid: int | str, field: str) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    lines = [line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:")]
    return int(lines[0]) / 1024 if lines else 0.0


def readers() -> Iterator[str]:
    """Ids of the reading processes of this process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"multiprocessing" in (folder / "cmdline").read_bytes():
                yield folder.name
        except (FileNotFoundError, ProcessLookupError):
            continue


def handled(running: Running) -> int:
    counts = running.indexer.counts
    return counts.stored + counts.failed + counts.not_pictures


def reconcile(running: Running) -> None:
    compare_again(running)
    until(lambda: running.indexer.pipeline.in_flight == 0)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_five_hundred_malformed_pictures(house: House, damaged: list[Path]):
    names = {path.name for path in damaged}
    with house.watched() as daemon:
        reads = Reads(daemon)
        before = megabytes("self", "VmRSS")
        peak: dict[str, float] = {}

        def all_handled() -> bool:
            peak.update({pid: megabytes(pid, "VmHWM") for pid in readers()})
            return handled(daemon) >= FILES

        for path in damaged:
            path.rename(house.folder / path.name)
        until(all_handled, SECONDS)
        until(lambda: daemon.indexer.pipeline.in_flight == 0)

        # Each file is in one place, and was tried once.
        assert reads.of == Counter(names)
        assert handled(daemon) == FILES
        indexed = {path for _, path in house.indexed()}
        failed = {path for _, path in house.failed()}
        skipped = {
            name
            for name in names
            if daemon.indexer.pipeline.is_non_picture(
                image_id("r", name), FileState.of((house.folder / name).stat())
            )
        }
        assert indexed | failed | skipped == names
        assert len(indexed) + len(failed) + len(skipped) == FILES
        assert all(name.endswith(".txt") for name in skipped)
        classes = Counter(each["error_class"] for each in _failures(house))
        assert {each["attempts"] for each in _failures(house)} == {1}
        assert classes.keys() <= DOCUMENTED
        # The damage is of many kinds, and most of it was seen.
        assert classes["corrupt"] > 80
        assert classes["truncated"] > 40
        assert len(indexed) > 80

        growth = megabytes("self", "VmRSS") - before
        assert peak
        assert max(peak.values()) < WORKER_MB
        assert growth < GROWTH_MB

        reconcile(daemon)
        reconcile(daemon)
        assert reads.of == Counter(names)
    # A new daemon knows the pictures and the failures from the index; only what is no picture
    # it has to look at.
    with house.watched() as daemon:
        reconcile(daemon)
        assert handled(daemon) == daemon.indexer.counts.not_pictures == len(skipped)
    assert {each["attempts"] for each in _failures(house)} == {1}


def _failures(house: House) -> list[dict[str, Any]]:
    house.store.refresh()
    answer = house.store.connection.request(
        "POST", f"/{house.store.connection.failures}/_search", {"size": 1000}
    )
    return [hit["_source"] for hit in answer["hits"]["hits"]]
