"""Several workers on one root: processes that are killed, stopped and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from es_imgsearch.elastic.state import daemon_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.records import Partition, image_id
from es_imgsearch.settings import Settings
from tests.support import CHECKOUT
from tests.support.house import House, paint, until

pytestmark = [pytest.mark.es, pytest.mark.process]

PICTURES = 300
LEASE_SECONDS = 3.0
FAKE = [sys.executable, "-m", "tests.support.fake_command"]


class Workers:
    """Processes of one root, and what the index holds of it."""

    def __init__(self, house: House, home: Path) -> None:
        self.house = house
        self.home = home
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **os.environ,
            "ES_URL": house.settings.es_url,
            "ES_IMGSEARCH_INDEX": house.store.index,
            "ES_IMGSEARCH_READ_WORKERS": "1",
            "ES_IMGSEARCH_BATCH_SIZE": "8",
            "ES_IMGSEARCH_SETTLE_SECONDS": "0.1",
            "ES_IMGSEARCH_LEASE_SECONDS": str(LEASE_SECONDS),
        }

    def start(
        self, partition: str, *, slow: float = 0.0, host: str = "", folder: Path | None = None
    ) -> subprocess.Popen[bytes]:
        environment = {**self.environment, "ES_IMGSEARCH_HOST": host or "here"}
        name = f"{len(self.processes)}.txt"
        options = ["--partition", partition] if partition else []
        with (self.home / name).open("wb") as said:
            process = subprocess.Popen(
                [*FAKE, *(["--slow", str(slow)] if slow else []), "watch",
                 str(folder or self.house.folder), *options],
                env=environment, stderr=said, cwd=CHECKOUT,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def said(self, process: subprocess.Popen[bytes]) -> str:
        return (self.home / f"{self.processes.index(process)}.txt").read_text()

    def run(self, *arguments: str, host: str = "here") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*FAKE, *arguments], env={**self.environment, "ES_IMGSEARCH_HOST": host},
            cwd=CHECKOUT, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()

    def end(self) -> None:
        """Stop all in order; each has to end by itself."""
        alive = [each for each in self.processes if each.poll() is None]
        for each in alive:
            each.send_signal(signal.SIGTERM)
        for each in alive:
            assert each.wait(timeout=40) == 0, self.said(each)
            assert "Traceback" not in self.said(each)

    def holder(self, partition: str) -> int | None:
        """The process that holds a partition, by the index."""
        read = self.house.store.state.read(daemon_id(f"r/{partition}"))
        return None if read is None else int(read.document["process_id"])

    def paths(self) -> set[str]:
        return {path for _, path in self.house.indexed()}

    def versions(self) -> dict[str, int]:
        """How often each document was written."""
        self.house.store.refresh()
        body = {"size": 10_000, "version": True, "_source": ["relative_path"]}
        answer = self.house.store.connection.request(
            "POST", f"/{self.house.store.index}/_search", body
        )
        return {hit["_source"]["relative_path"]: hit["_version"] for hit in answer["hits"]["hits"]}


@pytest.fixture
def house(real_store: Store, settings: Settings, tmp_path: Path) -> House:
    return House(real_store, settings, tmp_path)


@pytest.fixture
def workers(house: House, tmp_path: Path) -> Iterator[Workers]:
    made = Workers(house, tmp_path)
    yield made
    for each in made.processes:
        if each.poll() is None:
            made.kill(each)


def of_partition(partition: str, names: Callable[[int], str], start: int = 0) -> Iterator[str]:
    """Names of files of this partition."""
    part = Partition.parse(partition)
    for number in range(start, 100_000):
        if part.holds(image_id("r", names(number))):
            yield names(number)


@pytest.mark.slow
def test_one_is_killed_in_the_middle_and_another_takes_over(workers: Workers):
    house = workers.house
    house.pictures(PICTURES, "a")
    killed, second, third = (workers.start(f"{n}/3", slow=0.1) for n in (1, 2, 3))
    until(lambda: 20 < len(workers.paths()) < PICTURES)
    workers.kill(killed)
    until(lambda: workers.holder("1/3") in {second.pid, third.pid})
    house.settle()
    # What the killed one had sent may have come after its end: no document was written thrice, and
    # those of the living workers once.
    versions = workers.versions()
    others = {path for n in (2, 3) for path in versions if held(f"{n}/3", path)}
    assert {versions[path] for path in others} == {1}
    assert max(versions.values()) <= 2
    # What is told of it, and what doctor advises.
    part = workers.status()["roots"]["r"]["partitions"][0]
    assert part["watched_by"]["process_id"] in {second.pid, third.pid}
    assert (part["partition"], part["worker"]["is_alive"]) == ("1/3", False)
    line = next(each for each in workers.run("status").stdout.splitlines() if "1/3" in each)
    assert line.endswith("; its own worker is not there")
    told = workers.run("doctor").stdout
    assert "the worker of partition 1/3 is not there" in told
    assert "another worker stands in for it" in told
    command = f"watch r={house.folder} --partition 1/3 --index {house.store.index}"
    assert f"es-imgsearch {command}" in told
    again = workers.start("1/3")
    until(lambda: workers.holder("1/3") == again.pid)
    assert "partition 1/3" not in workers.run("doctor").stdout
    (house.folder / "a" / "000.png").unlink()
    gone = next(of_partition("1/3", "a/{:03}.png".format, 1))
    new = next(of_partition("3/3", "b/{:03}.png".format))
    (house.folder / "b").mkdir()
    (house.folder / gone).rename(house.folder / new)
    house.settle()
    workers.end()
    assert workers.run("verify", str(house.folder)).returncode == 0
    taken = [each for each in (second, third) if "takes it over" in workers.said(each)]
    assert len(taken) == 1
    assert "The worker of partition 1/3 of 'r' is there" in workers.said(taken[0])


def held(partition: str, path: str) -> bool:
    return Partition.parse(partition).holds(image_id("r", path))


@pytest.mark.slow
def test_one_that_was_stopped_writes_nothing_when_it_wakes(workers: Workers):
    house = workers.house
    house.pictures(PICTURES)
    stopped, other = workers.start("1/2", slow=0.2), workers.start("2/2")
    until(lambda: len([p for p in workers.paths() if held("1/2", p)]) > 10)
    stopped.send_signal(signal.SIGSTOP)
    until(lambda: workers.holder("1/2") == other.pid)
    house.settle()
    versions = workers.versions()
    # It wakes with files in flight, whose documents the other has written.
    stopped.send_signal(signal.SIGCONT)
    until(lambda: "took over" in workers.said(stopped))
    # It lives, so the other gives the partition back.
    until(lambda: workers.holder("1/2") == stopped.pid)
    house.picture(next(of_partition("1/2", "new{}.png".format)), 1000)
    house.settle()
    now = workers.versions()
    assert {path: now[path] for path in versions} == versions
    workers.end()
    assert workers.run("verify", str(house.folder)).returncode == 0


def test_another_number_of_workers_is_refused_while_some_work(workers: Workers):
    house = workers.house
    house.pictures(30)
    first = workers.start("1/2")
    until(lambda: "Watching" in workers.said(first))
    folder = str(house.folder)
    for given in (["watch", folder], ["watch", folder, "--partition", "3/3"],
                  ["sync", folder, "--partition", "2/4"]):  # fmt: skip
        refused = workers.run(*given)
        assert refused.returncode == 2, refused.stderr
        assert f"Process {first.pid} on here is working on 'r' as one of 2" in refused.stderr
    twice = workers.run("watch", folder, "--partition", "1/2")
    assert twice.returncode == 2
    assert f"Process {first.pid} on here is the worker of partition 'r/1/2'" in twice.stderr
    workers.end()
    for number in (1, 2, 3):
        assert workers.run("sync", folder, "--partition", f"{number}/3").returncode == 0
    assert house.differing() == []
    assert set(workers.versions().values()) == {1}


def test_what_is_missing_pauses_each_partition_and_is_permitted_for_all(workers: Workers):
    house = workers.house
    house.pictures(60)
    first, second = workers.start("1/2"), workers.start("2/2")
    house.settle()
    until(lambda: all("Compared" in workers.said(each) for each in (first, second)))
    for path in house.folder.iterdir():
        if int(path.stem) % 2:
            path.unlink()
    until(lambda: all("are paused" in workers.said(each) for each in (first, second)))
    assert len(workers.paths()) == 60
    pauses = workers.status()["roots"]["r"]["deletions_paused"]
    assert "are gone" in pauses["reason"]
    permitted = workers.run("sync", f"r={house.folder}", "--allow-deletes")
    assert permitted.returncode == 0, permitted.stderr
    house.settle()
    house.picture("new.png", 100)
    house.settle()
    workers.end()
    assert workers.status()["roots"]["r"]["deletions_paused"] is None
    assert first.returncode == second.returncode == 0


def test_two_hosts_have_their_own_roots_in_one_index(workers: Workers, tmp_path: Path):
    house = workers.house
    other = tmp_path / "s"
    other.mkdir()
    house.pictures(6)
    # One picture is in both folders.
    (other / "same.png").write_bytes((house.folder / "000.png").read_bytes())
    paint(other / "another.png", 100)
    house.folders.append(other)
    one, two = workers.start("", host="one"), workers.start("", host="two", folder=other)
    house.settle()
    roots = workers.status()["roots"]
    assert {name: (root["host"], root["pictures"]) for name, root in roots.items()} == {
        "r": ("one", 6), "s": ("two", 2),
    }  # fmt: skip
    assert [roots[name]["watched_by"]["process_id"] for name in "rs"] == [one.pid, two.pid]
    workers.kill(two)
    until(lambda: not workers.status()["roots"]["s"]["watched_by"]["is_alive"])
    found = workers.run("doctor", "--json", host="two").stdout
    assert "s: its daemon was seen last" in found
    assert "r: its daemon" not in found
    # The one that is left does not touch what is the other's.
    (other / "same.png").unlink()
    (house.folder / "000.png").unlink()
    until(lambda: ("r", "000.png") not in house.indexed())
    assert ("s", "same.png") in house.indexed()
    third = workers.start("", host="two", folder=other)
    until(lambda: ("s", "same.png") not in house.indexed())
    refused = workers.run("watch", f"r={other}", host="two")
    assert refused.returncode == 2
    assert "The name 'r' belongs to" in refused.stderr
    workers.end()
    assert third.returncode == 0
