"""State documents and leases on the real server: no update is lost, one process holds a claim."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from es_imgsearch.elastic.leases import Lease
from es_imgsearch.elastic.leases.holders import held_here, made_here
from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.elastic.state import Document, State
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import AlreadyRunning, IndexMissing

LEASE_SECONDS = 1.0
SOON_SECONDS = 20.0


@pytest.fixture
def state(real_store: Store) -> State:
    real_store.generations.make_state()
    return real_store.state


def document(number: int) -> Document:
    return {"kind": "test", "body": {"number": number}}


# -- documents ---------------------------------------------------------------------------------


def test_a_document_is_made_once_and_read_at_once(state: State):
    assert state.read("a/b ü%") is None
    version = state.create("a/b ü%", document(1))
    assert version is not None
    assert state.create("a/b ü%", document(2)) is None
    read = state.read("a/b ü%")
    assert read is not None
    assert (read.document, read.version) == (document(1), version)
    assert state.read_many(["a/b ü%", "b"]) == {"a/b ü%": document(1)}
    assert state.read_many([]) == {}


def test_only_the_version_that_was_read_is_replaced_or_deleted(state: State):
    first = state.create("a", document(1))
    assert first is not None
    second = state.replace("a", document(2), first)
    assert second is not None
    assert state.replace("a", document(3), first) is None
    assert not state.delete("a", first)
    assert state.delete("a", second)
    assert not state.delete("a")
    assert state.replace("a", document(4), second) is None
    assert state.read("a") is None


def test_an_index_that_is_missing_is_named(real_store: Store):
    state = real_store.state
    calls: list[Callable[[], object]] = [
        lambda: state.create("a", document(1)),
        lambda: state.read("a"),
        lambda: state.read_many(["a"]),
        lambda: state.update("a", lambda _: document(1)),
    ]
    for call in calls:
        with pytest.raises(IndexMissing, match=f"no '{real_store.index}-state'.*init --index"):
            call()


def test_writers_at_the_same_time_lose_no_update(state: State):
    threads, times = 8, 6
    start = threading.Barrier(threads)

    def append(writer: int) -> None:
        start.wait()
        for each in range(times):
            entry = f"{writer}.{each}"

            def appended(before: Document | None, entry: str = entry) -> Document:
                entries = [] if before is None else before["body"]["entries"]
                if entry in entries:
                    return before or {}
                return {"kind": "test", "body": {"entries": [*entries, entry]}}

            state.update("shared", appended)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(append, range(threads)))
    read = state.read("shared")
    assert read is not None
    expected = sorted(f"{writer}.{each}" for writer in range(threads) for each in range(times))
    assert sorted(read.document["body"]["entries"]) == expected


def test_a_change_may_leave_a_document_alone(state: State):
    assert state.update("a", lambda _: None) is None
    assert state.read("a") is None
    version = state.create("a", document(1))
    assert state.update("a", lambda before: before) == document(1)
    read = state.read("a")
    assert read is not None
    assert read.version == version


# -- leases ------------------------------------------------------------------------------------


class Leases:
    """Leases of one test, as if each were of another process."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.made: list[Lease] = []

    def lease(self, *names: str, host: str = "one") -> Lease:
        claims = {name: {"kind": "test"} for name in names or ("a",)}
        made = Lease(self._state, claims, host, "testing", lease_seconds=LEASE_SECONDS)
        made_here.discard(made._claim.token)
        self.made.append(made)
        return made

    def kill(self, lease: Lease) -> None:
        """End its thread as kill -9 would: nothing is released."""
        with lease._claim._lock:
            lease._claim._held.clear()
        lease.release()
        lease.join(SOON_SECONDS)


@pytest.fixture
def leases(state: State) -> Iterator[Leases]:
    made = Leases(state)
    yield made
    for each in made.made:
        each.release()
        each.join(SOON_SECONDS)


def acquired(lease: Lease) -> bool:
    try:
        lease.acquire(threading.Event())
    except AlreadyRunning:
        return False
    return True


def test_a_lease_that_is_held_is_refused_until_it_is_released(leases: Leases, state: State):
    first, second = leases.lease(host="first"), leases.lease(host="second")
    first.acquire(threading.Event())
    with pytest.raises(AlreadyRunning, match=r"Process \d+ on first is testing.* stop that one"):
        second.acquire(threading.Event())
    # One that was refused has released nothing of another's.
    first.confirm()
    first.release()
    first.join(SOON_SECONDS)
    assert state.read("a") is None
    assert acquired(leases.lease())


def test_the_lease_of_a_killed_process_is_taken_over_when_it_has_expired(
    leases: Leases, caplog: pytest.LogCaptureFixture
):
    killed, next_one = leases.lease(host="killed"), leases.lease()
    killed.acquire(threading.Event())
    leases.kill(killed)
    next_one.acquire(threading.Event())
    assert "Process" in caplog.text
    assert "on killed was testing" in caplog.text
    assert "this goes on in 1 s" in caplog.text


def test_an_old_time_stamp_needs_no_waiting(
    leases: Leases, state: State, caplog: pytest.LogCaptureFixture
):
    killed, next_one = leases.lease(host="killed"), leases.lease()
    killed.acquire(threading.Event())
    leases.kill(killed)
    state.update("a", lambda before: {**(before or {}), "seen_at": "2020-01-01T00:00:00+00:00"})
    next_one.acquire(threading.Event())
    assert "this goes on" not in caplog.text


def test_a_process_does_not_wait_for_itself(
    leases: Leases, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """One that could not release what it held, and begins again: after a switch in an outage."""
    left, again = leases.lease(), leases.lease()
    made_here.update({left._claim.token, again._claim.token})
    left.acquire(threading.Event())
    leases.kill(left)
    assert left._claim.token not in held_here
    again.acquire(threading.Event())
    assert "this goes on" not in caplog.text


def test_one_of_many_wins_an_expired_lease(leases: Leases):
    killed = leases.lease()
    killed.acquire(threading.Event())
    leases.kill(killed)
    many = [leases.lease(host=str(number)) for number in range(6)]
    with ThreadPoolExecutor(len(many)) as pool:
        assert sum(pool.map(acquired, many)) == 1


def test_one_of_many_wins_a_free_lease(leases: Leases):
    for _ in range(5):
        many = [leases.lease(host=str(number)) for number in range(4)]
        with ThreadPoolExecutor(len(many)) as pool:
            won = [each for each, has in zip(many, pool.map(acquired, many), strict=True) if has]
        assert len(won) == 1
        won[0].release()
        won[0].join(SOON_SECONDS)


def test_of_several_documents_all_or_none_are_held(leases: Leases, state: State):
    first, second = leases.lease("b", host="first"), leases.lease("a", "b", "c")
    first.acquire(threading.Event())
    assert not acquired(second)
    second.join(SOON_SECONDS)
    assert state.read_many(["a", "c"]) == {}
    # Those of a killed process expire together, not one after the other.
    leases.kill(first)
    assert acquired(leases.lease("a", "b", "c"))


def test_a_holder_whose_lease_was_taken_over_finds_out(leases: Leases, state: State):
    asleep, other = leases.lease(host="asleep"), leases.lease(host="other")
    asleep.acquire(threading.Event())
    asleep._claim._renew_one = lambda _name, version: version  # type: ignore[method-assign]
    other.acquire(threading.Event())
    asleep.check()
    del asleep._claim._renew_one  # it wakes
    with pytest.raises(AlreadyRunning, match=r"on other took over testing.*this one ends"):
        asleep.confirm()
    asleep.release()
    asleep.join(SOON_SECONDS)
    # What is another's is not released.
    other.confirm()


def test_a_lease_that_was_erased_is_written_again(leases: Leases, state: State):
    lease = leases.lease()
    lease.acquire(threading.Event())
    state.delete("a")
    lease.confirm()
    assert state.read("a") is not None
    assert not acquired(leases.lease())


def test_waiting_ends_when_the_process_is_to_stop(leases: Leases):
    killed, waiting = leases.lease(), leases.lease()
    killed.acquire(threading.Event())
    leases.kill(killed)
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(Stopped):
        waiting.acquire(stopping)


def test_a_renewal_calls_and_writes_what_is_new(state: State, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    news, called = [1], threading.Event()
    lease = Lease(
        state, {"a": {"kind": "test"}}, "here", "testing", lease_seconds=60.0,
        body=lambda: {"news": list(news)}, renewed=called.set,
    )  # fmt: skip
    with lease:
        called.wait(SOON_SECONDS)
        called.clear()
        news.append(2)
        lease.renew_soon()
        assert called.wait(SOON_SECONDS)
        read = state.read("a")
        assert read is not None
        assert read.document["body"]["news"] == [1, 2]
    assert state.read("a") is None
