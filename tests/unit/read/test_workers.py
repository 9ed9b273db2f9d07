"""Real reading processes: what hangs, crashes or eats memory costs one file only."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from PIL import Image

from es_imgsearch.describe.registry import is_on_request, load_describers, mapped_describers
from es_imgsearch.errors import ReadError, ReadersFailed, SettingsError
from es_imgsearch.manage.verify import missing
from es_imgsearch.read import worker_process
from es_imgsearch.read.file import Skipped
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.read.workers import Outcome, ReadPlan, ReadWorkers
from es_imgsearch.records import Picture, Root
from tests.support import picture_samples as samples
from tests.support.processes import gone

pytestmark = pytest.mark.process

CHECKOUT = Path(__file__).resolve().parents[3]
TIMEOUT_SECONDS = 30


def register(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the test describers the way a package does."""
    info = folder / "worker_hooks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: worker-hooks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[es_imgsearch.describers]\n"
        "hook = tests.support.worker_hooks:Hook\nbroken = tests.support.worker_hooks:Broken\n"
    )
    # Workers are spawned with the `sys.path` of the process that makes them.
    monkeypatch.syspath_prepend(folder)


def plan(describers: tuple[str, ...] = ("hook",), **changed: float) -> ReadPlan:
    values = {"max_pixels": 400_000_000, "memory_mb": 1024, "timeout_seconds": 20.0, **changed}
    return ReadPlan(
        preparation=Preparation(width=32, height=32, mode="squash"),
        describers=describers,
        **values,  # type: ignore[arg-type]
    )


class Reading:
    """ReadWorkers whose `read` waits for the outcome."""

    def __init__(self, given: ReadPlan, processes: int = 1) -> None:
        self.workers = ReadWorkers(given, processes)

    def start(self, path: Path) -> queue.SimpleQueue[Outcome]:
        outcome: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self.workers.read(str(path), outcome.put)
        return outcome

    def __call__(self, path: Path) -> Outcome:
        return self.start(path).get(timeout=TIMEOUT_SECONDS)


@pytest.fixture
def readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[ReadPlan], Reading]]:
    register(tmp_path, monkeypatch)
    made: list[Reading] = []

    def make(given: ReadPlan, processes: int = 1) -> Reading:
        made.append(Reading(given, processes))
        return made[-1]

    yield make
    for each in made:
        each.workers.close()


def picture(folder: Path, stem: str) -> Path:
    path = folder / f"{stem}.png"
    path.write_bytes(samples.sample("png"))
    return path


def assert_reads(read: Reading, folder: Path) -> Picture:
    outcome = read(picture(folder, "good"))
    assert isinstance(outcome, Picture), outcome
    return outcome


def test_a_worker_reads_pictures_and_loads_no_torch(readers, tmp_path: Path):
    read = readers(plan())
    found = assert_reads(read, tmp_path)
    assert found.pixels.shape == (32, 32, 3)
    assert found.fields["attributes"]["loaded"] == ""
    assert int(found.fields["attributes"]["pid"]) != os.getpid()
    assert read(tmp_path / "none.jpg") is Skipped.GONE
    (tmp_path / "text.txt").write_text("text")
    assert read(tmp_path / "text.txt") is Skipped.NOT_A_PICTURE


def test_our_own_describers_load_no_torch_either(tmp_path: Path):
    """All that are installed, as the daemon has them."""
    workers = Reading(plan(None))  # type: ignore[arg-type]
    try:
        assert "describe_errors" not in assert_reads(workers, tmp_path).fields
    finally:
        workers.workers.close()


def test_fields_that_a_describer_did_not_map_cost_its_fields_only(readers, tmp_path: Path):
    samples.four_corners().save(tmp_path / "unmapped.png")
    picture = readers(plan())(tmp_path / "unmapped.png")
    assert isinstance(picture, Picture)
    (error,) = picture.fields["describe_errors"]
    assert "nobody_mapped_this" in error
    assert "nobody_mapped_this" not in picture.fields


def test_a_failure_comes_back_with_its_class(readers, tmp_path: Path):
    (tmp_path / "cut.jpg").write_bytes(samples.noisy("jpeg")[:2000])
    outcome = readers(plan())(tmp_path / "cut.jpg")
    assert isinstance(outcome, ReadError)
    assert (outcome.error_class, str(outcome)) == ("truncated", outcome.message)


def test_a_file_that_takes_for_ever_times_out_and_the_next_is_read(readers, tmp_path: Path):
    read = readers(plan(timeout_seconds=1.0))
    assert_reads(read, tmp_path)
    outcome = read(picture(tmp_path, "hang"))
    assert isinstance(outcome, ReadError)
    assert outcome.error_class == "timeout"
    assert "1 s" in outcome.message
    assert_reads(read, tmp_path)


@pytest.mark.parametrize(
    ("stem", "error_class"),
    [("killed", "out_of_memory"), ("segfault", "crashed"), ("exits", "crashed")],
)
def test_a_worker_that_dies_costs_its_file_only(readers, stem: str, error_class: str, tmp_path):
    read = readers(plan())
    outcome = read(picture(tmp_path, stem))
    assert isinstance(outcome, ReadError)
    assert outcome.error_class == error_class
    assert_reads(read, tmp_path)


def test_a_picture_that_needs_too_much_memory_is_a_failure(readers, tmp_path: Path):
    # 144 megapixels: 26 kB on the disk, 720 MB as grey and RGB.
    bomb = tmp_path / "bomb.png"
    Image.new("1", (12_000, 12_000)).save(bomb)
    read = readers(plan(memory_mb=600))
    outcome = read(bomb)
    assert isinstance(outcome, ReadError)
    assert outcome.error_class == "out_of_memory"
    assert_reads(read, tmp_path)


def test_files_in_work_outlive_the_thread_that_asked_for_them(readers, tmp_path: Path):
    """The kernel ends a worker when the thread that made it ends, not only the process."""
    read = readers(plan())
    path = picture(tmp_path, "gate")
    os.mkfifo(f"{path}.gate")
    asked: list[queue.SimpleQueue[Outcome]] = []

    def ask() -> None:
        assert_reads(read, tmp_path)
        asked.append(read.start(path))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    with open(f"{path}.gate", "r+b", buffering=0) as gate:
        gate.write(b"x")
        outcome = asked[0].get(timeout=TIMEOUT_SECONDS)
    assert isinstance(outcome, Picture), outcome


def test_closing_ends_every_worker_and_may_be_repeated(readers, tmp_path: Path):
    others = set(threading.enumerate())
    read = readers(plan(), 2)
    pids = {int(assert_reads(read, tmp_path).fields["attributes"]["pid"]) for _ in range(4)}
    read.start(picture(tmp_path, "hang"))
    read.workers.close()
    assert all(gone(pid) for pid in pids)
    left = set(threading.enumerate()) - others
    assert not [thread for thread in left if thread.name == "read-workers"]
    read.workers.close()


def test_a_clock_that_is_set_forward_blames_no_file(
    readers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two files are read when a laptop wakes up two minutes later."""
    read = readers(plan(timeout_seconds=20.0), processes=2)
    asked, gates = [], []
    for name in "ab":
        (tmp_path / name).mkdir()
        path = picture(tmp_path / name, "gate")
        os.mkfifo(f"{path}.gate")
        asked.append(read.start(path))
        gates.append(f"{path}.gate")
    # Opening it for writing waits for the worker that reads.
    opened = [open(gate, "wb", buffering=0) for gate in gates]  # noqa: SIM115 - closed below
    before = time.time
    monkeypatch.setattr(time, "time", lambda: before() + 120)
    try:
        with pytest.raises(queue.Empty):
            asked[0].get(timeout=1.0)
        for gate in opened:
            gate.write(b"x")
        outcomes = [each.get(timeout=TIMEOUT_SECONDS) for each in asked]
    finally:
        for gate in opened:
            gate.close()
    assert [type(each) for each in outcomes] == [Picture, Picture]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_worker_killed_while_it_sends_its_result_stalls_and_blames_no_file(
    readers, processes: int, tmp_path: Path
):
    read = readers(plan(), processes)
    asked = [read.start(picture(tmp_path, name)) for name in ("half-once", *"abcd")]
    outcomes = [each.get(timeout=TIMEOUT_SECONDS) for each in asked]
    assert [type(each) for each in outcomes] == [Picture] * 5


@pytest.mark.parametrize("stem", ["hang-once", "killed-once"])
def test_a_file_has_one_more_try_alone_before_it_is_blamed(readers, stem: str, tmp_path: Path):
    read = readers(plan(timeout_seconds=2.0))
    assert isinstance(read(picture(tmp_path, stem)), Picture)
    assert_reads(read, tmp_path)


def test_what_needed_too_much_memory_is_tried_again_while_no_other_file_is_read(
    readers, tmp_path: Path
):
    """The system kills a reader when all of them together need too much."""
    read = readers(plan(), processes=2)
    gated = picture(tmp_path, "gate")
    os.mkfifo(f"{gated}.gate")
    reading = read.start(gated)
    with open(f"{gated}.gate", "wb", buffering=0) as gate:
        killed = read.start(picture(tmp_path, "killed-once"))
        with pytest.raises(queue.Empty):
            killed.get(timeout=1.0)
        assert (tmp_path / "killed-once.png.tried").exists()
        gate.write(b"x")
    assert isinstance(reading.get(timeout=TIMEOUT_SECONDS), Picture)
    assert isinstance(killed.get(timeout=TIMEOUT_SECONDS), Picture)


def test_a_worker_that_the_system_asks_to_end_blames_no_file(readers, tmp_path: Path):
    read = readers(plan())
    assert read(picture(tmp_path, "ended")) is Skipped.CHANGING
    assert_reads(read, tmp_path)


def test_a_describer_that_cannot_be_loaded_is_told_before_any_file_is_read(readers):
    with pytest.raises(SettingsError, match=r"'broken' .* no such model"):
        readers(plan(("broken",)))


def test_a_pool_that_breaks_is_replaced_and_costs_no_file(readers, tmp_path: Path):
    """A worker that ends while nothing is read takes the pool with it."""
    read = readers(plan())
    before = int(assert_reads(read, tmp_path).fields["attributes"]["pid"])
    os.kill(before, signal.SIGKILL)
    asked = [read.start(picture(tmp_path, f"{n}")) for n in range(20)]
    outcomes = [each.get(timeout=TIMEOUT_SECONDS) for each in asked]
    assert [each for each in outcomes if not isinstance(each, Picture)] == []
    assert all(each.empty() for each in asked), "each has one outcome"
    assert int(assert_reads(read, tmp_path).fields["attributes"]["pid"]) != before


def test_workers_that_cannot_begin_are_no_pictures_fault(readers, tmp_path: Path):
    read = readers(plan())
    pid = int(assert_reads(read, tmp_path).fields["attributes"]["pid"])
    shutil.rmtree(tmp_path / "worker_hooks-1.0.dist-info")  # somebody uninstalls it
    os.kill(pid, signal.SIGKILL)
    for name in ("one", "two"):
        outcome = read(picture(tmp_path, name))
        assert isinstance(outcome, ReadersFailed)
    assert not outcome.transient
    with pytest.raises(ReadersFailed):
        list(read.workers.read_each([str(picture(tmp_path, "three"))]))
    # `verify` does not report every file as missing from the index.
    with pytest.raises(ReadersFailed):
        list(missing(Root("shop", tmp_path), ["three.png"], lambda: read.workers))


def test_each_file_is_read_once_and_comes_with_its_path(readers, tmp_path: Path):
    read = readers(plan(), processes=2)
    good = [str(picture(tmp_path, f"good-{n}")) for n in range(5)]
    bad = tmp_path / "bad.png"
    bad.write_bytes(samples.sample("png")[:40])
    outcomes = list(read.workers.read_each([*good, str(bad)]))
    assert sorted(path for path, _ in outcomes) == sorted([*good, str(bad)])
    by_path = dict(outcomes)
    assert all(isinstance(by_path[path], Picture) for path in good)
    assert isinstance(by_path[str(bad)], ReadError)
    assert list(read.workers.read_each([])) == []


def test_whatever_reading_raises_can_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An exception that cannot be unpickled would break the pool for all the other files."""

    class Odd(Exception):
        def __init__(self, first: int, second: int) -> None:
            super().__init__("odd")

    def raise_it(*_given: object, **_named: object) -> None:
        raise Odd(1, 2)

    monkeypatch.setattr(worker_process, "_plan", plan())
    monkeypatch.setattr(worker_process, "read_file", raise_it)
    with pytest.raises(ReadError, match="Odd: odd") as caught:
        worker_process._read(str(tmp_path))
    assert caught.value.error_class == "corrupt"


def test_workers_that_were_never_used_can_be_closed(readers):
    readers(plan()).workers.close()


PARENT = """
import sys, threading
from pathlib import Path
sys.path[:0] = [{folder!r}, {checkout!r}]
from tests.unit.read import test_workers

if __name__ == "__main__":
    read = test_workers.Reading(test_workers.plan())
    print(read(Path({picture!r})).fields["attributes"]["pid"], flush=True)
    if {busy}:
        read.start(Path({hang!r}))
    threading.Event().wait()
"""


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_workers_die_with_a_parent_that_is_killed(
    busy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    register(tmp_path, monkeypatch)
    script = tmp_path / "parent.py"
    script.write_text(
        PARENT.format(
            folder=str(tmp_path),
            checkout=str(CHECKOUT),
            picture=str(picture(tmp_path, "good")),
            hang=str(picture(tmp_path, "hang")),
            busy=busy,
        )
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
        parent.send_signal(signal.SIGKILL)
    assert gone(pid)


def test_a_describer_whose_fields_are_not_mapped_is_left_out(caplog: pytest.LogCaptureFixture):
    ours = load_describers()
    mapped = {name: mapping for each in ours for name, mapping in each.mapping.items()}
    chosen = [each.name for each in ours if not is_on_request(each)]
    assert mapped_describers(mapped, "photos") == chosen
    assert not caplog.records
    (exif,) = load_describers(["exif"])
    # No other describer gives it.
    lacking = "camera"
    assert lacking in exif.mapping
    del mapped[lacking]
    assert "exif" not in mapped_describers(mapped, "photos")
    (record,) = caplog.records
    told = record.getMessage()
    for word in ("'exif'", lacking, "es-imgsearch init --index photos"):
        assert word in told


@pytest.mark.parametrize("mapping", [None, ["field"], {"field": "keyword"}, {5: {"type": "float"}}])
def test_a_describer_without_a_mapping_is_named(monkeypatch: pytest.MonkeyPatch, mapping: object):
    class Mapless:
        name = "exif"

    Mapless.mapping = mapping  # type: ignore[attr-defined]
    monkeypatch.setattr(EntryPoint, "load", lambda _: Mapless)
    with pytest.raises(SettingsError, match=r"describer 'exif' .* is broken: its `mapping`"):
        load_describers(["exif"])


@pytest.mark.parametrize("name", ["unwritable", "leaves"])
def test_whatever_a_describer_does_costs_one_file_only(readers, tmp_path: Path, name: str):
    read = readers(plan())
    outcome = read(picture(tmp_path, name))
    assert isinstance(outcome, ReadError)
    assert not isinstance(outcome, ReadersFailed)
    outcome.message.encode()
    assert_reads(read, tmp_path)


def _says_much(folder: Path) -> list[Path]:
    """Files of which libtiff, LibRaw and Pillow speak on standard error."""
    contents = {
        "resolution.tif": changed(tiff := samples.saved(
            samples.four_corners(), "TIFF", compression="tiff_lzw", dpi=(72, 72)
        ), struct.pack("<HHI", 282, 5, 1), struct.pack("<HHI", 282, 9, 1)),
        "cut.tif": tiff[:200] + bytes(len(tiff) - 400) + tiff[-200:],
        "cut.dng": samples.dng(samples.four_corners((128, 96)))[:9000],
        "samples.tif": changed(
            tiff, (channels := struct.pack("<HHI", 277, 3, 1)) + b"\3", channels + b"\xbb"
        ),
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def changed(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) == 1
    return content.replace(old, new)


def test_what_decoders_print_reaches_no_terminal_and_what_describers_print_does(
    readers, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    read = readers(plan(("hook",)))
    for path in _says_much(tmp_path):
        assert isinstance(read(path), Picture | ReadError)
    assert capfd.readouterr().err == ""
    shutil.copy(picture(tmp_path, "good"), tmp_path / "speak.png")
    assert isinstance(read(tmp_path / "speak.png"), Picture)
    assert capfd.readouterr().err == "a describer speaks\n"
