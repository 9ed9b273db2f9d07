"""Claims of simulated processes that are stopped, killed and cut off: no two may act at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from es_imgsearch.elastic.leases.claim import VALID_SHARE, Claim
from es_imgsearch.elastic.leases.holders import made_here
from es_imgsearch.elastic.state import Document, Version, VersionedDocument
from es_imgsearch.errors import AlreadyRunning, ImgSearchError, StoreBusy, StoreUnreachable

SECONDS = 20.0
PLACES = range(2)


class FakeState:
    """State documents, and what happens while a request is on its way."""

    def __init__(self) -> None:
        self.documents: dict[str, VersionedDocument] = {}
        # Requests that arrive at once before `before` and `after` are called, for the next one.
        self.spared = 0
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self._numbers = itertools.count()

    def read(self, name: str) -> VersionedDocument | None:
        return self._sent(lambda: self.documents.get(name))

    def create(self, name: str, document: Document) -> Version | None:
        return self._sent(lambda: None if name in self.documents else self._put(name, document))

    def replace(self, name: str, document: Document, version: Version) -> Version | None:
        def put() -> Version | None:
            stored = self.documents.get(name)
            is_same = stored is not None and stored.version == version
            return self._put(name, document) if is_same else None

        return self._sent(put)

    def delete(self, name: str, version: Version | None = None) -> bool:
        def delete() -> bool:
            stored = self.documents.get(name)
            if stored is None or (version and stored.version != version):
                return False
            del self.documents[name]
            return True

        return self._sent(delete)

    def _put(self, name: str, document: Document) -> Version:
        version = {"if_seq_no": str(next(self._numbers)), "if_primary_term": "1"}
        self.documents[name] = VersionedDocument(document, version)
        return version

    def _sent(self, request: Callable[[], Any]) -> Any:
        if self.spared:
            self.spared -= 1
            return request()
        before, after = self.before, self.after
        self.before = self.after = lambda: None  # not of what happens meanwhile
        before()
        result = request()
        after()
        return result


class Places(RuleBasedStateMachine):
    """Two processes that want the same partition.

    One that is stopped (SIGSTOP), or cut off, is one that takes no step for a while: any may.
    """

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.state = FakeState()
        self.released: Claim | None = None
        self.claims = [self.claim() for _ in PLACES]

    def claim(self) -> Claim:
        made = Claim(
            self.state,  # type: ignore[arg-type]
            {"a": {"kind": "test"}},
            "here",
            "testing",
            lease_seconds=SECONDS,
            trusts_clocks=False,
            clock=lambda: self.now,
        )
        # As of another process.
        made_here.discard(made.token)
        return made

    def acts(self, claim: Claim | None) -> bool:
        try:
            if claim is None:
                return False
            claim.check_valid()
        except ImgSearchError:
            return False
        return True

    @invariant()
    def at_most_one_may_act(self) -> None:
        """Also of those that take no step: they may wake at this moment."""
        if hasattr(self, "claims"):
            assert sum(map(self.acts, [*self.claims, self.released])) <= 1

    @rule(seconds=st.sampled_from([1.0, 5.0, 14.9, 19.9, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(place=st.sampled_from(PLACES), data=st.data())
    def take(self, place: int, data: st.DataObject) -> None:
        self.request(place, lambda: self.claims[place].step(is_patient=True), data)

    @rule(place=st.sampled_from(PLACES))
    def take_as_soon_as_possible(self, place: int) -> None:
        """Take over at the very moment at which this one may."""
        claim = self.claims[place]
        if (first := claim._first_reads.get("a")) is not None:
            self.now = max(self.now, first[1] + SECONDS)
            claim.step(is_patient=True)

    @rule(place=st.sampled_from(PLACES))
    def watch(self, place: int) -> None:
        self.claims[place].step(is_patient=True, takes=False)

    @rule(place=st.sampled_from(PLACES), data=st.data())
    def renew(self, place: int, data: st.DataObject) -> None:
        self.request(place, self.claims[place].renew, data)

    @rule(place=st.sampled_from(PLACES), data=st.data())
    def release(self, place: int, data: st.DataObject) -> None:
        self.request(place, self.claims[place].give_up, data)
        self.released, self.claims[place] = self.claims[place], self.claim()

    @rule(place=st.sampled_from(PLACES))
    def kill(self, place: int) -> None:
        self.claims[place] = self.claim()

    @precondition(lambda self: "a" in self.state.documents)
    @rule(seen_at=st.sampled_from(["1970-01-01T00:00:00+00:00", "2100-01-01T00:00:00+00:00"]))
    def a_wall_clock_steps(self, seen_at: str) -> None:
        """What the holder wrote last bears another time, as its clock is wrong."""
        read = self.state.documents["a"]
        changed = {**read.document, "seen_at": seen_at}
        self.state.documents["a"] = VersionedDocument(changed, read.version)

    def request(self, place: int, call: Callable[[], Any], data: st.DataObject) -> None:
        """Call, while others go on before the request arrives and before its answer does."""
        self.state.spared = data.draw(st.integers(0, 1))
        self.state.before = self.meanwhile(place, data)
        self.state.after = self.meanwhile(place, data)
        try:
            call()
        except StoreUnreachable:
            pass
        finally:
            self.state.spared = 0
            self.state.before = self.state.after = lambda: None

    def meanwhile(self, place: int, data: st.DataObject) -> Callable[[], None]:
        kind = data.draw(st.sampled_from(["nothing"] * 4 + ["slow", "slow", "lost"]))
        if kind == "nothing":
            return lambda: None
        seconds = data.draw(st.sampled_from([1.0, 5.0, 12.0, 21.0]))
        others = data.draw(st.lists(st.sampled_from(PLACES), max_size=2))

        def happen() -> None:
            for other in (each for each in others if each != place):
                self.claims[other].step(is_patient=True)
                self.now += seconds
                self.at_most_one_may_act()
            self.now += seconds
            if kind == "lost":
                raise StoreUnreachable("lost")

        return happen


def test_no_order_of_events_lets_two_processes_act():
    limits = settings(max_examples=100, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(Places, settings=limits)


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def state() -> FakeState:
    return FakeState()


def made(state: FakeState, clock: list[float]) -> Claim:
    claim = Claim(
        state,  # type: ignore[arg-type]
        {"a": {"kind": "test"}},
        "here",
        "testing",
        lease_seconds=SECONDS,
        trusts_clocks=False,
        clock=lambda: clock[0],
    )
    made_here.discard(claim.token)
    return claim


def test_a_holder_acts_for_three_fourths_of_the_time_since_it_renewed(
    state: FakeState, clock: list[float]
):
    claim = made(state, clock)
    assert claim.step()
    claim.check_valid()
    clock[0] = math.nextafter(VALID_SHARE * SECONDS, 0)
    claim.check_valid()
    clock[0] = VALID_SHARE * SECONDS
    with pytest.raises(StoreBusy, match=r"not renewed for 15 s, so it writes nothing"):
        claim.check_valid()
    # Nobody took over: it goes on.
    claim.renew()
    claim.check_valid()


def test_another_takes_over_after_the_whole_time_whatever_the_time_stamp_says(
    state: FakeState, clock: list[float]
):
    holder, other = made(state, clock), made(state, clock)
    assert holder.step()
    state._put("a", {**state.documents["a"].document, "seen_at": "1970-01-01T00:00:00+00:00"})
    assert not other.step(is_patient=True)
    clock[0] = SECONDS - 0.1
    assert not other.step(is_patient=True)
    clock[0] = SECONDS
    assert other.step(is_patient=True)
    other.check_valid()
    holder.renew()
    with pytest.raises(AlreadyRunning, match="took over testing"):
        holder.check_valid()


def test_an_answer_that_was_lost_counts_from_a_renewal_that_is_answered(
    state: FakeState, clock: list[float]
):
    claim = made(state, clock)

    def lose() -> None:
        raise StoreUnreachable("lost")

    state.before, state.after = (lambda: None), lose
    with pytest.raises(StoreUnreachable):
        claim._state.create("a", claim._document("a"))
    assert claim.step()
    with pytest.raises(StoreBusy):
        claim.check_valid()
    claim.renew()
    claim.check_valid()


def test_one_that_released_acts_no_more(state: FakeState, clock: list[float]):
    claim = made(state, clock)
    assert claim.step()
    claim.give_up()
    with pytest.raises(StoreBusy):
        claim.check_valid()
    assert state.documents == {}


def test_a_renewal_counts_from_when_it_was_sent(state: FakeState, clock: list[float]):
    claim = made(state, clock)
    assert claim.step()

    def be_slow() -> None:
        clock[0] = 12.0

    state.after = be_slow
    claim.renew()
    claim.check_valid()
    clock[0] = VALID_SHARE * SECONDS
    with pytest.raises(StoreBusy):
        claim.check_valid()


def test_one_that_is_renewed_is_watched_anew(state: FakeState, clock: list[float]):
    holder, other = made(state, clock), made(state, clock)
    assert holder.step()
    assert not other.step(is_patient=True)
    clock[0] = 10.0
    holder.renew()
    assert not other.step(is_patient=True)
    clock[0] = 29.0
    assert not other.step(is_patient=True)
    clock[0] = 30.0
    assert other.step(is_patient=True)
