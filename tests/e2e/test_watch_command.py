"""`es-imgsearch watch` and `sync` as a user runs them: processes, signals, exit codes."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.protocol import Encoder
from tests.support.house import described, paint, until

pytestmark = pytest.mark.process

COMMAND = str(Path(sys.executable).with_name("es-imgsearch"))
SHUTDOWN_SECONDS = 15.0
LEASE_SECONDS = 4.0

# A process loads the model before it embeds anything; its readers start meanwhile.
START_SECONDS = 180.0

# What a loaded machine may need on top, for the end of a process and the like.
SLACK_SECONDS = 20.0


class Service:
    """An index sealed to `starter`, and processes that keep a folder in it."""

    def __init__(self, es_url: str, store: Store, folder: Path) -> None:
        self.es_url = es_url
        self.store = store
        self.folder = folder
        self.environment = {
            **os.environ,
            "ES_URL": es_url,
            "ES_IMGSEARCH_INDEX": store.index,
            "ES_IMGSEARCH_READ_WORKERS": "2",
            "ES_IMGSEARCH_LEASE_SECONDS": str(LEASE_SECONDS),
            "ES_IMGSEARCH_SHUTDOWN_SECONDS": str(SHUTDOWN_SECONDS),
        }
        self.errors = folder.parent / "stderr.txt"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments], env=self.environment, capture_output=True, text=True, timeout=120
        )

    @contextmanager
    def watch(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        with self.errors.open("wb") as errors:
            process = subprocess.Popen(
                [COMMAND, "watch", str(self.folder), *options], env=self.environment, stderr=errors
            )
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait(timeout=30)

    def is_ready(self) -> bool:
        return "Watching " in self.said()

    def said(self) -> str:
        return self.errors.read_text()

    def indexed(self) -> list[str]:
        self.store.refresh()
        return [each.stored_path for each in self.store.listings.stored("photos")]

    def has(self, process: subprocess.Popen[bytes], number: int) -> bool:
        """Whether so many pictures are there; the process must not have ended by itself."""
        assert process.poll() is None, self.said()
        return len(self.indexed()) >= number

    def daemon(self) -> dict[str, Any]:
        """What `status` says of the daemon."""
        status = json.loads(self.run("status", "--json").stdout)
        found: dict[str, Any] = status["roots"]["photos"]["watched_by"]
        return found

    def pictures(self, numbers: Sequence[int]) -> list[str]:
        for n in numbers:
            paint(self.folder / f"{n:04}.png", n)
        return [f"{n:04}.png" for n in numbers]


@pytest.fixture
def service(es_url: str, real_store: Store, starter: Encoder, tmp_path: Path) -> Service:
    folder = tmp_path / "photos"
    folder.mkdir()
    real_store.generations.create(new_meta(seal_of(starter), "balanced", "cosine"), described())
    return Service(es_url, real_store, folder)


def children_of(process: subprocess.Popen[bytes]) -> list[int]:
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(each) for task in tasks for each in task.read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_it_follows_the_folder_and_stops_in_order(service: Service):
    service.pictures([0, 1])
    with service.watch() as process:
        until(service.is_ready, START_SECONDS)
        (service.folder / "notes.txt").write_text("words")
        names = service.pictures([2, 3])
        until(lambda: service.indexed() == ["0000.png", "0001.png", *names])
        (service.folder / "0003.png").rename(service.folder / "last.png")
        until(lambda: service.indexed() == ["0000.png", "0001.png", "0002.png", "last.png"])
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=SHUTDOWN_SECONDS + SLACK_SECONDS) == 0
    said = service.said()
    assert said.count(f"Watching photos={service.folder}.") == 1
    assert "Stopped: 4 embedded, 0 reused, 1 moved, 1 no picture." in said
    assert "Traceback" not in said
    status = json.loads(service.run("status", "--json").stdout)
    assert status["pictures"] == 4


def test_it_says_what_it_does(service: Service):
    """A line when it starts, one a batch, with -v (here behind the command) one a file."""
    service.pictures([0, 1])
    (service.folder / "broken.jpg").write_bytes(b"words")
    late = service.folder.with_name("late")
    with service.watch(str(late), "-v") as process:
        until(service.is_ready, START_SECONDS)
        until(lambda: "cannot be" not in service.said() and "Stored 2 pictures" in service.said())
        (service.folder / "0001.png").rename(service.folder / "moved.png")
        until(lambda: "Moved 1 picture" in service.said())
        (service.folder / "moved.png").unlink()
        until(lambda: "Removed 1 picture from the index." in service.said())
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=SHUTDOWN_SECONDS + SLACK_SECONDS) == 0
    said = service.said()
    index, folder = service.store.index, service.folder
    lines = [line.split(" ", 2)[2] for line in said.splitlines()]
    assert (
        f"INFO Starting to watch photos={folder}, late={late} for index {index!r} on"
        f" {service.es_url}; encoder starter, 384 dims."
    ) in lines
    assert f"WARNING {late} does not exist, and the index {index!r} has never held" in said
    for line in (
        f"DEBUG Stored: {folder}/0000.png",
        f"DEBUG Moved: {folder}/0001.png to {folder}/moved.png",
        f"DEBUG Removed from the index: {folder}/moved.png",
    ):
        assert line in lines
    assert "Stopped: 2 embedded, 0 reused, 1 failed, 1 moved, 1 removed." in said
    (failed,) = [line for line in lines if line.startswith("WARNING Cannot be indexed: ")]
    assert f"{folder}/broken.jpg: " in failed
    (command,) = re.findall(r"`es-imgsearch (.*?)`", failed)
    assert "photos/broken.jpg" in service.run(*command.split()).stdout


def test_a_second_watch_is_refused_and_one_after_a_kill_waits_for_the_lease(service: Service):
    service.pictures([0])
    with service.watch() as first:
        until(service.is_ready, START_SECONDS)
        for _ in range(2):
            second = service.run("watch", str(service.folder))
            assert second.returncode == 2
            (refused,) = [line for line in second.stderr.splitlines() if "stop that one" in line]
            assert f"Process {first.pid} on" in refused
            assert "is watching 'photos'" in refused
        # `sync` works next to a daemon.
        service.pictures([1])
        assert service.run("sync", str(service.folder)).returncode == 0
        assert first.poll() is None
        assert service.daemon()["is_alive"]
        first.kill()
        first.wait()
        killed = service.daemon()
        assert (killed["process_id"], killed["is_alive"]) == (first.pid, False)
    with service.watch() as process:
        until(service.is_ready, START_SECONDS)
        until(lambda: service.indexed() == ["0000.png", "0001.png"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=SHUTDOWN_SECONDS + SLACK_SECONDS) == 0
    assert f"Process {first.pid} on" in service.said()
    assert f"this goes on in {LEASE_SECONDS:.0f} s" in service.said()
    # One that stopped in order is not waited for.
    with service.watch():
        until(service.is_ready, START_SECONDS)
    assert "goes on in" not in service.said()


def test_a_signal_in_the_middle_ends_it_in_time_and_a_second_one_at_once(service: Service):
    service.pictures(range(400))
    with service.watch() as process:
        until(lambda: service.has(process, 10), START_SECONDS)
        children = children_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=SHUTDOWN_SECONDS + SLACK_SECONDS) == 0
    assert "Traceback" not in service.said()
    assert "Stopped:" in service.said()
    until(lambda: not any(map(is_alive, children)))
    assert 10 <= len(service.indexed()) < 400
    service.pictures(range(400, 800))
    with service.watch() as process:
        before = len(service.indexed())
        until(lambda: service.has(process, before + 1), START_SECONDS)
        children = children_of(process)
        process.send_signal(signal.SIGTERM)
        # Two that come before the first was handled are one, so it is sent until it is heard.
        until(lambda: process.send_signal(signal.SIGTERM) or process.poll() is not None)
        assert process.wait() == 128 + signal.SIGTERM
    assert "Traceback" not in service.said()
    until(lambda: not any(map(is_alive, children)))
    assert service.store.listings.count("photos", failures=True) == 0


def test_killed_at_random_moments_and_started_again(service: Service):
    """Complete, nothing doubled, and no reading process left behind."""
    moment = random.Random(int(os.environ.get("IMGSEARCH_TEST_SEED", "0")))
    names: list[str] = []
    for _ in range(int(os.environ.get("IMGSEARCH_TEST_KILLS", "5"))):
        names += service.pictures(range(len(names), len(names) + 40))
        before = len(service.indexed())
        with service.watch() as process:
            wanted = before + moment.randrange(1, 30)
            until(lambda wanted=wanted: service.has(process, wanted), START_SECONDS)
            children = children_of(process)
            assert children
            time.sleep(moment.random() * 0.2)
            process.kill()
            process.wait(timeout=SLACK_SECONDS)
        until(lambda children=children: not any(map(is_alive, children)))
        assert "Traceback" not in service.said()
    before = service.indexed()
    assert set(before) <= set(names)
    (service.folder / before[0]).rename(service.folder / "zzzz.png")
    done = service.run("sync", str(service.folder))
    assert done.returncode == 0, done.stderr
    assert service.indexed() == [*(name for name in names if name != before[0]), "zzzz.png"]
    assert service.store.listings.count("photos") == len(names)
    embedded, moved = map(int, re.findall(r"(\d+) (?:embedded|moved)", done.stderr))
    assert (embedded, moved) == (len(names) - len(before), 1)


def test_exit_codes_of_sync(service: Service):
    for path in service.pictures(range(30)):
        assert (service.folder / path).exists()
    assert service.run("sync", str(service.folder)).returncode == 0
    (service.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    failed = service.run("sync", str(service.folder))
    assert failed.returncode == 1
    assert "1 failed" in failed.stderr
    for n in range(15):
        (service.folder / f"{n:04}.png").unlink()
    (service.folder / "broken.png").unlink()
    paused = service.run("sync", str(service.folder))
    assert paused.returncode == 1
    assert paused.stderr.count("--allow-deletes") == 1
    assert len(service.indexed()) == 30
    status = service.run("status")
    assert "deletions paused since" in status.stdout
    allowed = service.run("sync", str(service.folder), "--allow-deletes")
    assert allowed.returncode == 0, allowed.stderr
    assert len(service.indexed()) == 15
    assert "paused" not in service.run("status").stdout
    assert "Traceback" not in failed.stderr + paused.stderr + allowed.stderr


def heed_interrupts() -> None:
    """What a shell starts in the background ignores SIGINT, and so does all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("command", ["sync", "retry"])
def test_a_signal_ends_sync_and_retry_in_order(service: Service, command: str, number: int):
    for n in range(400):
        if command == "sync":
            paint(service.folder / f"{n:04}.png", n)
        else:
            (service.folder / f"{n:04}.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    if command == "retry":
        assert service.run("sync", str(service.folder)).returncode == 1
        for n in range(400):
            paint(service.folder / f"{n:04}.png", n)
    arguments = ["sync", str(service.folder)] if command == "sync" else ["failures", "retry"]
    with service.errors.open("wb") as errors:
        process = subprocess.Popen(
            [COMMAND, *arguments],
            env=service.environment,
            stderr=errors,
            preexec_fn=heed_interrupts,
        )
        try:
            # Some pictures are there, so workers and threads are at work.
            until(lambda: process.poll() is not None or service.indexed(), START_SECONDS)
            children = children_of(process)
            assert children
            process.send_signal(number)
            assert process.wait(timeout=SHUTDOWN_SECONDS + SLACK_SECONDS) == 1
        finally:
            process.kill()
            process.wait()
    said = service.said()
    assert said.split() == ["Aborted!"]
    assert len(service.indexed()) < 400
    until(lambda: not any(map(is_alive, children)))


def test_with_several_workers_every_picture_arrives_and_a_killed_daemon_leaves_no_process(
    service: Service,
):
    names = service.pictures(range(40))
    with service.watch("--workers", "2") as process:
        until(lambda: service.has(process, len(names)), START_SECONDS)
        children = children_of(process)
        # Two that embed, two that read, and what multiprocessing keeps beside them.
        assert len(children) >= 4
        process.kill()
        process.wait()
    until(lambda: not any(map(is_alive, children)))
    assert service.indexed() == names
    service.pictures(range(40, 44))
    done = service.run("sync", str(service.folder), "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("4 embedded")
    assert len(service.indexed()) == 44


def test_a_daemon_at_rest_uses_no_cpu(service: Service):
    service.pictures([0])
    with service.watch() as process:
        until(service.is_ready, START_SECONDS)
        until(lambda: service.has(process, 1), START_SECONDS)
        pids = [process.pid, *children_of(process)]
        before, started = cpu_seconds(pids), time.monotonic()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=4.0)
        share = (cpu_seconds(pids) - before) / (time.monotonic() - started)
        process.terminate()
        assert process.wait(timeout=SHUTDOWN_SECONDS + SLACK_SECONDS) == 0
    # Looking after its processes ten times a second is all that it does: 0.25 % of a core.
    assert share < 0.02


def cpu_seconds(pids: Sequence[int]) -> float:
    """Of all their threads so far."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")
