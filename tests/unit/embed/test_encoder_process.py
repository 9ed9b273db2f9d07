"""Encoders in processes of their own: what kills one costs nothing but time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.embed.context import IndexContext
from es_imgsearch.embed.encoder_process import (
    EncoderEnded,
    EncoderProcess,
    EncoderSource,
    encoders_for,
)
from es_imgsearch.embed.in_process import InProcessEncoder
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.embed.reduced_encoder import ReducedEncoder
from es_imgsearch.embed.reduction import fit
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.embed.runtime.select import run_for_pictures
from es_imgsearch.errors import EncoderMismatch, EncodersFailed, ModelUnavailable, SettingsError
from es_imgsearch.pipeline.engines.local import Pipeline
from es_imgsearch.records import Change, Root, image_id
from es_imgsearch.settings import available_cores, load_settings
from es_imgsearch.testing import FakeEncoder, MemoryStore
from tests.support.encoder_hooks import (
    HANGS,
    KILLS,
    RAISES,
    Colours,
    Dying,
    HookEncoder,
    Shapeless,
    Unloadable,
)
from tests.support.processes import gone

pytestmark = pytest.mark.process

CHECKOUT = Path(__file__).resolve().parents[3]
PATIENCE_SECONDS = 60.0


def plain(*colours: tuple[int, int, int]) -> np.ndarray:
    """Pictures of one colour each."""
    pictures = np.zeros((len(colours), 32, 32, 3), np.uint8)
    for picture, colour in zip(pictures, colours, strict=True):
        picture[:] = colour
    return pictures


@pytest.fixture
def started() -> Iterator[Callable[[Encoder], EncoderProcess]]:
    made: list[EncoderProcess] = []

    def start(encoder: Encoder) -> EncoderProcess:
        made.append(EncoderProcess(encoder, 1))
        return made[-1]

    yield start
    for each in made:
        each.end()


def test_its_vectors_are_those_of_the_encoder_here(started, tmp_path: Path):
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    encoder = HookEncoder(tmp_path)
    process = started(encoder)
    there = process.outputs(pictures)
    assert process.process_id in encoder.processes()
    assert os.getpid() not in encoder.processes()
    here = InProcessEncoder(encoder).outputs(pictures)
    assert np.array_equal(there.vectors, here.vectors)
    assert list(there.fields) == list(here.fields) == [{}] * 5


def test_a_process_that_is_killed_is_replaced_and_its_batch_done_again(started, tmp_path: Path):
    process = started(HookEncoder(tmp_path, once=True))
    process.warm_up()
    first = process.process_id
    found = process.outputs(plain((9, 9, 9), KILLS))
    assert found.vectors.shape == (2, 4)
    assert process.process_id != first
    # Killed by somebody else, while it has nothing to do.
    os.kill(process.process_id, signal.SIGKILL)
    assert gone(process.process_id)
    assert np.array_equal(process.outputs(plain((9, 9, 9), KILLS)).vectors, found.vectors)


def test_a_batch_that_ends_every_process_is_an_error(started, tmp_path: Path):
    process = started(HookEncoder(tmp_path))
    with pytest.raises(EncoderEnded):
        process.outputs(plain(KILLS))
    assert process.outputs(plain((9, 9, 9))).vectors.shape == (1, 4)


def test_what_the_encoder_raises_comes_back_and_costs_no_process(started, tmp_path: Path):
    process = started(HookEncoder(tmp_path))
    process.warm_up()
    before = process.process_id
    with pytest.raises(RuntimeError, match="yellow"):
        process.outputs(plain(RAISES))
    assert process.outputs(plain((9, 9, 9))).vectors.shape == (1, 4)
    assert process.process_id == before


def test_a_model_that_cannot_be_loaded_raises_its_own_error(started):
    with pytest.raises(ModelUnavailable, match="put them there"):
        started(Unloadable()).warm_up()


def test_processes_that_die_of_the_model_are_no_pictures_fault(started):
    with pytest.raises(EncodersFailed, match="memory enough"):
        started(Dying()).outputs(plain((9, 9, 9)))


def test_an_encoder_that_gives_no_vectors_at_its_start_is_no_pictures_fault(started):
    with pytest.raises(EncodersFailed, match="'colours' gave an array of shape"):
        started(Shapeless()).outputs(plain((9, 9, 9)))


def test_an_encoder_that_cannot_be_pickled_is_refused_at_once():
    encoder = FakeEncoder()
    encoder.before_batch = lambda _pixels: None
    with pytest.raises(SettingsError, match=r"'fake' cannot be sent .* workers = 1"):
        EncoderProcess(encoder, 1)


def test_one_that_hangs_can_be_abandoned(started, tmp_path: Path):
    encoder = HookEncoder(tmp_path)
    process = started(encoder)
    process.warm_up()
    raised: list[BaseException] = []

    def work() -> None:
        try:
            process.outputs(plain(HANGS))
        except Stopped as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    notes = tmp_path / f"{process.process_id}"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(notes.read_text().splitlines()) < 2:
        assert time.monotonic() < deadline
    process.abandon()
    thread.join(PATIENCE_SECONDS)
    assert raised
    assert gone(process.process_id)


# -- in a pipeline -------------------------------------------------------------------------


class Bench:
    """A pipeline with two encoder processes on one folder."""

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self.root = Root("r", folder)
        self.store = MemoryStore()
        self.store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"))
        self.pipeline = Pipeline(
            IndexContext(self.store, self.store.info(), encoder, (), None),  # type: ignore[arg-type]
            load_settings(
                {"workers": 2, "read_workers": 1, "batch_size": 4, "batch_wait_ms": 20.0},
                environment={},
            ),
            emit=lambda _change, _reason: None,
        )

    def submit(self, colours: dict[str, tuple[int, int, int]]) -> None:
        for name, colour in colours.items():
            Image.new("RGB", (40, 40), colour).save(self.root.path / name)
            self.pipeline.submit(Change(self.root, name, time.time()))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[[Encoder], Bench]]:
    made: list[Bench] = []

    def make(encoder: Encoder) -> Bench:
        folder = tmp_path / "r"
        folder.mkdir()
        made.append(Bench(folder, encoder))
        return made[-1]

    yield make
    for each in made:
        each.pipeline.close()


def test_a_picture_that_kills_is_a_failure_and_harms_no_other(bench, tmp_path: Path):
    encoder = HookEncoder(tmp_path)
    run = bench(encoder)
    colours = {f"{n:02}.png": (0, 3 * n, 200) for n in range(24)}
    run.submit({**colours, "kills.png": KILLS})
    assert run.pipeline.wait_idle(PATIENCE_SECONDS)
    assert run.store.failure(image_id("r", "kills.png"))["error_class"] == "embed_failed"
    run.store.refresh()
    for name, colour in colours.items():
        content_id = run.store.documents.get(image_id("r", name))["content_id"]
        stored = run.store.documents.embedded_by_content([content_id])[content_id]
        assert np.allclose(stored.vector, Colours().embed_images(plain(colour))[0])
    assert run.pipeline.counts.embedded == 24
    assert os.getpid() not in encoder.processes()
    assert run.pipeline.close(within_seconds=PATIENCE_SECONDS)
    assert all(gone(pid) for pid in encoder.processes())


def test_a_killed_process_costs_no_picture(bench, tmp_path: Path):
    encoder = HookEncoder(tmp_path, once=True)
    run = bench(encoder)
    run.submit({**{f"{n:02}.png": (0, 7 * n, 200) for n in range(12)}, "kills.png": KILLS})
    assert run.pipeline.wait_idle(PATIENCE_SECONDS)
    assert (run.pipeline.counts.embedded, run.pipeline.counts.failed) == (13, 0)


def test_closing_does_not_wait_for_a_process_that_hangs(bench, tmp_path: Path):
    encoder = HookEncoder(tmp_path)
    run = bench(encoder)
    run.submit({"hangs.png": HANGS})
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any(len(path.read_text().split()) > 1 for path in tmp_path.glob("[0-9]*")):
        assert time.monotonic() < deadline
    started = time.monotonic()
    assert not run.pipeline.close()
    assert time.monotonic() - started < 20
    assert all(gone(pid) for pid in encoder.processes())


PARENT = """
import sys, threading
from pathlib import Path
sys.path[:0] = [{checkout!r}]
from tests.unit.embed.test_encoder_process import EncoderProcess, HookEncoder, plain
from tests.support.encoder_hooks import HANGS

if __name__ == "__main__":
    process = EncoderProcess(HookEncoder(Path({folder!r})), 1)
    process.warm_up()
    print(process.process_id, flush=True)
    if {busy}:
        process.outputs(plain(HANGS))
    threading.Event().wait()
"""


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_it_dies_with_a_parent_that_is_killed(busy: bool, tmp_path: Path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(folder=str(tmp_path), checkout=str(CHECKOUT), busy=busy))
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
        parent.send_signal(signal.SIGKILL)
    assert gone(pid)


@pytest.mark.parametrize("is_reduced", [False, True])
def test_an_encoder_that_is_loaded_already_is_made_anew_in_its_process(
    tmp_path: Path, is_reduced: bool
):
    """What runs a network cannot be sent; the process finds what was chosen for it."""
    starter = load_encoder("starter")
    settings = load_settings({"workers": 2, "cache_dir": str(tmp_path), "backend": "torch"})
    assert run_for_pictures(starter, settings).plan.threads == max(1, available_cores() // 2)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    here = starter.embed_images(pictures)
    encoder = starter
    if is_reduced:
        sample = np.random.default_rng(1).normal(size=(500, starter.dims)).astype(np.float32)
        encoder = ReducedEncoder(starter, fit(sample, 32))
        here = encoder.embed_images(pictures)
    first, second = encoders_for(InProcessEncoder(encoder), settings)
    try:
        there = first.outputs(pictures).vectors
    finally:
        for each in (first, second):
            each.end()
    cosines = (here * there).sum(1) / np.linalg.norm(here, axis=1) / np.linalg.norm(there, axis=1)
    assert cosines.min() > 0.999
    assert len(list((tmp_path / "choices").iterdir())) == 1


def test_a_model_exchanged_meanwhile_is_not_mixed_in(starter: Encoder):
    recipe = EncoderSource.of(starter, load_settings({"workers": 2}))
    with pytest.raises(EncoderMismatch, match="exchanged while"):
        replace(recipe, revision="another").encoder()


def test_one_thread_at_a_time_uses_an_encoder():
    """A describer asks for texts while pictures are embedded."""
    encoder = FakeEncoder()
    inside, overlaps = threading.Lock(), []

    def alone(_pixels: object = None) -> None:
        if not inside.acquire(blocking=False):
            overlaps.append(1)
            return
        time.sleep(0.002)
        inside.release()

    encoder.before_batch = alone
    texts = encoder.embed_texts
    encoder.embed_texts = lambda each: (alone(), texts(each))[1]  # type: ignore[method-assign]
    shared = InProcessEncoder(encoder)
    picture = np.zeros((1, 32, 32, 3), np.uint8)
    asked = [lambda: shared.outputs(picture), lambda: shared.embed_texts(["red"])]
    threads = [
        threading.Thread(target=lambda ask=ask: [ask() for _ in range(20)]) for ask in asked * 2
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not overlaps
    assert (shared.dims, encoder.batches) == (encoder.dims, [1] * 40)


def test_an_abandoned_encoder_stops_every_thread():
    encoder = FakeEncoder()
    inside, may_go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def wait(_pixels: object) -> None:
        inside.set()
        assert may_go_on.wait(PATIENCE_SECONDS)

    encoder.before_batch = wait
    shared = InProcessEncoder(encoder)
    picture = np.zeros((1, 32, 32, 3), np.uint8)
    asking = threading.Thread(target=lambda: (shared.outputs(picture), ended.set()))
    asking.start()
    assert inside.wait(PATIENCE_SECONDS)
    threading.Timer(0.1, may_go_on.set).start()
    shared.abandon()
    assert encoder.batches == [1]
    with pytest.raises(Stopped):
        shared.embed_texts(["red"])
    assert ended.wait(PATIENCE_SECONDS)


def test_an_encoder_of_several_threads_returns_its_fields():
    class Captioner(FakeEncoder):
        fields = ("caption",)

        def embed_with_fields(self, pictures: np.ndarray) -> tuple[np.ndarray, list[dict]]:
            return self.embed_images(pictures), [{"caption": "red"}] * len(pictures)

    picture = np.zeros((2, 32, 32, 3), np.uint8)
    told = InProcessEncoder(Captioner()).outputs(picture)
    assert told.fields == [{"caption": "red"}] * 2
    assert InProcessEncoder(FakeEncoder()).outputs(picture).fields == [{}, {}]
