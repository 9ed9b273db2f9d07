"""Entries that several processes change at once: roots, tuning, curves, codes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any

import pytest

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.meta_entries import CodesEntry, Curve, Tuning
from es_imgsearch.elastic.naming import failures_generation
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import RootError
from es_imgsearch.records import Root
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder, remove_index
from es_imgsearch.watch.roots import claim_root, register_roots, release_root

pytestmark = [pytest.mark.es, pytest.mark.process]

PROCESSES = 8
ROUNDS = 6
CURVE = Curve(1.0, 2.0, 3.0)

_barrier: Any = None


def _begin(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _each_round(settings: Settings, act: Callable[[Store, int, int], None], number: int) -> list:
    """Call `act` once a round, at the same moment as the other processes; return its errors."""
    store = Store(connect(settings), settings.index)
    errors = []
    for turn in range(ROUNDS):
        _barrier.wait(60)
        try:
            act(store, turn, number)
        except RootError as error:
            errors.append((turn, str(error)))
    return errors


@contextmanager
def processes() -> Iterator[Callable[..., list]]:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES)
    with ProcessPoolExecutor(
        PROCESSES, mp_context=context, initializer=_begin, initargs=(barrier,)
    ) as pool:

        def at_once(settings: Settings, *acts: Callable[[Store, int, int], None]) -> list:
            running = [
                pool.submit(_each_round, settings, acts[number % len(acts)], number)
                for number in range(PROCESSES)
            ]
            try:
                return [each.result(120) for each in running]
            except BrokenBarrierError:
                barrier.reset()
                raise

        yield at_once


@pytest.fixture(scope="module")
def at_once() -> Iterator[Callable[..., list]]:
    with processes() as run:
        yield run


@pytest.fixture
def store(real_store: Store) -> Store:
    real_store.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine"))
    return real_store


def folder(turn: int, number: int) -> Path:
    return Path(f"/pictures/{turn}/{number}")


def register(store: Store, turn: int, number: int) -> None:
    register_roots(store, [Root(f"r{turn}-{number}", folder(turn, number))], f"host-{number}")


def register_below_each_other(store: Store, turn: int, number: int) -> None:
    deep = Path(f"/deep/{turn}", *map(str, range(number)))
    register_roots(store, [Root(f"d{turn}-{number}", deep)], "one-host")


def register_same_name(store: Store, turn: int, number: int) -> None:
    register_roots(store, [Root(f"same-{turn}", folder(turn, number))], f"host-{number}")


def import_rows(store: Store, turn: int, number: int) -> None:
    claim_root(store, f"i{turn}-{number}", None, f"/rows/{turn}-{number}.parquet")


def tune(store: Store, turn: int, _number: int) -> None:
    store.generations.update_meta(lambda meta: replace(meta, tuning=Tuning(100 + turn)))


def calibrate(store: Store, turn: int, _number: int) -> None:
    curve = replace(CURVE, intercept=float(turn))
    store.generations.update_meta(lambda meta: replace(meta, relevance={"text": curve}))


def train_codes(store: Store, turn: int, _number: int) -> None:
    entry = CodesEntry(f"hash-{turn}", "lsh", 64, "2026-01-01T00:00:00+00:00")
    store.generations.update_meta(lambda meta: replace(meta, codes=entry))


def test_roots_that_are_registered_at_once_are_all_there(at_once, store, settings):
    errors = at_once(settings, register)
    assert errors == [[]] * PROCESSES
    roots = store.info().meta.roots
    wanted = {
        f"r{turn}-{number}": {"path": str(folder(turn, number)), "host": f"host-{number}"}
        for turn in range(ROUNDS)
        for number in range(PROCESSES)
    }
    assert roots == wanted
    # So no third host can take one of these names.
    for name in wanted:
        with pytest.raises(RootError, match="belongs to"):
            register_roots(store, [Root(name, Path("/elsewhere"))], "third")


def test_of_folders_inside_each_other_one_is_registered(at_once, store, settings):
    errors = at_once(settings, register_below_each_other)
    assert len(store.info().meta.roots) == ROUNDS
    for turn in range(ROUNDS):
        refused = [why for each in errors for when, why in each if when == turn]
        assert len(refused) == PROCESSES - 1
        assert all("overlaps" in why for why in refused)


def test_of_hosts_that_take_one_name_one_gets_it(at_once, store, settings):
    errors = at_once(settings, register_same_name)
    assert sorted(store.info().meta.roots) == [f"same-{turn}" for turn in range(ROUNDS)]
    assert sum(map(len, errors)) == ROUNDS * (PROCESSES - 1)


def test_learned_entries_and_roots_written_at_once_are_all_there(at_once, store, settings):
    acts = (register, import_rows, tune, calibrate, train_codes)
    assert at_once(settings, *acts) == [[]] * PROCESSES
    meta: Meta = store.info().meta
    last = ROUNDS - 1
    assert meta.tuning == Tuning(100 + last)
    assert meta.relevance == {"text": replace(CURVE, intercept=float(last))}
    assert meta.codes is not None
    assert meta.codes.hash == f"hash-{last}"
    claims = [n for n in range(PROCESSES) if acts[n % len(acts)] in {register, import_rows}]
    assert len(meta.roots) == ROUNDS * len(claims)


def create(store: Store, turn: int, number: int) -> None:
    """Create one index a round, sealed to an encoder of this process."""
    one = Store(store.connection.client, f"{store.index}-{turn}")
    seal = seal_of(FakeEncoder(revision=str(number)))
    one.generations.create(new_meta(seal, "exact", "cosine"))


def test_of_processes_that_create_an_index_one_wins_and_leaves_nothing_else(
    at_once, real_store, settings
):
    assert at_once(settings, create) == [[]] * PROCESSES
    for turn in range(ROUNDS):
        one = Store(real_store.connection.client, f"{settings.index}-{turn}")
        try:
            info = one.info()
            pattern = f"{one.index}-0*,{one.index}-failures-0*"
            assert one.connection.request("GET", f"/{pattern}").keys() == {
                info.name,
                failures_generation(one.index, info.name),
            }
            pinned = one.pinned()
            assert (pinned.listings.count(), pinned.listings.count(failures=True)) == (0, 0)
            failures = one.connection.request("GET", f"/{one.connection.failures}")
            assert list(failures) == [failures_generation(one.index, info.name)]
        finally:
            remove_index(one)


def test_a_name_that_is_released_is_another_hosts_only_if_it_is_still_released(store, settings):
    ours = Root("photos", Path("/pictures/photos"))
    register_roots(store, [ours], "one")
    with pytest.raises(RootError, match="belongs to"):
        release_root(store, ours, "other")
    release_root(store, ours, "one")
    register_roots(store, [ours], "other")
    with pytest.raises(RootError, match="belongs to"):
        release_root(store, ours, "one")
    assert store.info().meta.roots["photos"]["host"] == "other"
