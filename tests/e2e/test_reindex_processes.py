"""`reindex` and its processes: one at a time, killed at any moment, several that embed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from es_imgsearch.elastic.leases import now_iso
from es_imgsearch.elastic.naming import generation_number
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import AlreadyRunning
from es_imgsearch.manage.reindex import cancel, drop_before, go_back, reindex
from es_imgsearch.manage.status import index_status
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.records import image_id
from tests.support import CHECKOUT
from tests.support.encoder_hooks import Colours, HookEncoder
from tests.support.house import House, pixels, until
from tests.support.processes import gone
from tests.support.reindexing import (
    Killed,
    client,
    ids_in,
    ids_on_disk,
    ids_served,
    run,
    synced,
    to,
)

pytestmark = pytest.mark.process

# -- one at a time -------------------------------------------------------------------------------


LOCK = "lock:reindex"


def lock_of(process_id: int, seen_at: str = "", **given: Any) -> dict[str, Any]:
    """The lock of a process of another machine that renewed it a moment ago."""
    return {
        "kind": "lock", "host": "another", "process_id": process_id, "token": f"of {process_id}",
        "since": now_iso(), "seen_at": seen_at or now_iso(), "lease_seconds": 2.0,
        "body": {"generation": None}, **given,
    }  # fmt: skip


@contextmanager
def locked_by_another(house: House, generation: str) -> Iterator[None]:
    """Another machine's process renews its lock meanwhile, and is killed then."""
    state, ending = house.store.state, threading.Event()

    def renew() -> None:
        while not ending.wait(0.2):
            state.update(LOCK, lambda _: lock_of(4711, body={"generation": generation}))

    state.update(LOCK, lambda _: lock_of(4711, body={"generation": generation}))
    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def unfinished(house: House, encoders: dict) -> Store:
    """A generation that was begun and given up."""

    def kill(_pixels: object) -> None:
        raise Killed

    encoders["twin"].before_batch = kill
    with pytest.raises(Killed):
        to(house, "twin")
    encoders["twin"].before_batch = lambda _pixels: None
    generation = house.store.at(str(house.store.generations.roles().next))
    # One that ends in order, error or not, gives its lock back.
    assert house.store.state.read(LOCK) is None
    return generation


def test_what_another_machine_builds_is_left_alone_until_its_lock_has_expired(
    house: House, encoders: dict
):
    house.pictures(6)
    synced(house)
    generation = str(unfinished(house, encoders).generation)
    with locked_by_another(house, generation):
        for refused in (lambda: to(house, "twin"), lambda: cancel(house.store)):
            with pytest.raises(AlreadyRunning, match=r"Process 4711 on another .* can be run 2 s"):
                refused()
        assert index_status(house.store)["next"]["builder"]["is_alive"]
    silent = (datetime.now(tz=UTC) - timedelta(minutes=1)).isoformat()
    house.store.state.update(LOCK, lambda _: lock_of(4711, silent, body={"generation": generation}))
    assert not index_status(house.store)["next"]["builder"]["is_alive"]
    assert to(house, "twin").switched
    assert house.store.state.read(LOCK) is None

    # The same of the generation that is gone back to.
    with locked_by_another(house, str(house.store.generations.roles().before)):
        assert index_status(house.store)["before"]["builder"]["process_id"] == 4711
        for refused in (
            lambda: go_back(house.store, house.settings),
            lambda: drop_before(house.store),
        ):
            with pytest.raises(AlreadyRunning, match="on another"):
                refused()
    # Killed: it is waited for, then gone on.
    assert go_back(house.store, house.settings).switched


def test_one_whose_lock_was_taken_over_ends(house: House, encoders: dict):
    house.pictures(12)
    synced(house)
    state = house.store.state

    def take_over(text: str) -> None:
        if "pictures are in" in text:
            state.update(LOCK, lambda _: lock_of(4711))

    given = house.settings.model_copy(update={"encoder": "twin"})
    with pytest.raises(AlreadyRunning, match="Process 4711 on another took over"):
        reindex(house.store, given, note=take_over)
    told = index_status(house.store)
    assert (told["encoder"]["name"], told["writes_held_back"]) == ("fake", False)
    read = state.read(LOCK)
    assert read is not None
    assert read.document["process_id"] == 4711


def test_of_two_processes_that_begin_together_one_wins(house: House):
    """The other is refused with exit code 2, whether it comes sooner or later than that."""
    house.pictures(4)
    synced(house)
    for encoder in ("twin", "fake", "twin"):
        before = house.store.generations.roles()
        if before.before is not None:
            drop_before(house.store)
        arguments = [house.settings.index, str(house.settings.es_url), "together", encoder]
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.reindex_hooks", *arguments], cwd=CHECKOUT,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for _ in range(2)
        ]  # fmt: skip
        try:
            for each in processes:
                assert each.stdout is not None
                assert each.stdout.readline().strip() == "together"
            for each in processes:
                assert each.stdin is not None
                each.stdin.close()
            codes = [each.wait(timeout=120) for each in processes]
            errors = [each.stderr.read() for each in processes if each.stderr is not None]
        finally:
            for each in processes:
                each.kill()
                each.wait()
                each.stdout.close()  # type: ignore[union-attr]
                each.stderr.close()  # type: ignore[union-attr]
        assert sorted(codes) == [0, 2], errors
        assert "AlreadyRunning" in errors[codes.index(2)]
        after = house.store.generations.roles()
        assert (after.next, after.before) == (None, before.serving)
        number = partial(generation_number, house.store.index)
        assert number(after.serving) == number(before.serving) + 1
        assert house.store.info().meta.seal.name == encoder
        assert ids_served(house) == ids_on_disk(house)


@pytest.mark.parametrize("moment", ["embedding", "held-back", "switched"])
def test_a_process_that_is_killed_loses_and_doubles_nothing(
    house: House, encoders: dict, moment: str
):
    house.pictures(25)
    synced(house)
    with stopped_at(moment, house) as process:
        if moment == "switched":
            assert house.store.info().meta.seal.name == "twin"
        else:
            for refused in (lambda: to(house, "twin"), lambda: cancel(house.store)):
                with pytest.raises(AlreadyRunning, match=f"Process {process.pid} on"):
                    refused()
            said = run(house, "status").stdout
            assert re.search(rf"-000002-\w+ is being built by process {process.pid} on", said)
        process.kill()
        process.wait()
    told = index_status(house.store)
    assert told["writes_held_back"] == (moment == "held-back")
    if moment != "switched":
        # Four times the 2 s of its lease.
        unfinished = r"-000002-\w+ is begun and not finished"
        until(lambda: re.search(unfinished, run(house, "status").stdout))
        stored = len(ids_in(house.store.at(told["next"]["generation"])))
        assert stored == (10 if moment == "embedding" else 25)
        (house.folder / "000.png").unlink()
        done = to(house, "twin")
        assert (done.switched, done.missing) == (True, ())
        embedded = encoders["twin"].pictures_embedded
        # Nothing that was stored is embedded again.
        assert embedded == 25 - stored
    house.encoder = encoders["twin"]
    house.picture("late.png", 99)
    (house.folder / "001.png").rename(house.folder / "moved.png")
    synced(house)
    assert ids_served(house) == ids_on_disk(house)
    assert (house.store.listings.count(), list(house.store.listings.failures())) == (
        len(ids_on_disk(house)),
        [],
    )
    for name in ("late.png", "moved.png", "007.png"):
        hit = client(house).search_image(house.folder / name, k=1)[0]
        assert (hit.relative_path, hit.score) == (name, pytest.approx(1.0, abs=1e-5))
    # And the old one takes all of that.
    assert go_back(house.store, house.settings).switched
    house.encoder = encoders["fake"]
    house.picture("later.png", 100)
    synced(house)
    assert house.differing() == []


@contextmanager
def stopped_at(moment: str, house: House) -> Iterator[subprocess.Popen[str]]:
    """A process that has come to this moment of `reindex --encoder twin`, and waits there."""
    arguments = [house.settings.index, str(house.settings.es_url), moment]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.reindex_hooks", *arguments],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == moment
        yield process
    finally:
        process.kill()
        process.communicate()


# -- how it is made ------------------------------------------------------------------------------


def test_decoded_pictures_stay_within_the_memory_given(house: House, encoders: dict):
    house.pictures(8)
    synced(house)
    # 768 kB each, so that there is a place for one.
    encoders["twin"].preparation = Preparation(width=512, height=512, mode="squash")
    house.settings = house.settings.model_copy(update={"queue_memory_mb": 1, "batch_size": 4})
    assert to(house, "twin").pictures == 8
    assert encoders["twin"].batches == [1] * 8


def test_several_processes_embed(house: House, encoders: dict, tmp_path: Path):
    house.pictures(24)
    synced(house)
    noted = tmp_path / "noted"
    noted.mkdir()
    encoders["colours"] = HookEncoder(noted)
    house.settings = house.settings.model_copy(update={"workers": 2, "batch_size": 2})
    done = to(house, "colours")
    assert (done.switched, done.embedded, done.missing) == (True, 24, ())
    processes = encoders["colours"].processes()
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert all(gone(each) for each in processes)
    expected = encoders["colours"]
    vector = Colours().embed_images(pixels(7)[None])[0]
    assert np.allclose(house.store.documents.vector(image_id("r", "007.png")), vector, atol=1e-6)
    assert seal_of(expected).fits(house.store.info().meta.seal)
