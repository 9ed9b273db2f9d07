"""`BulkWriter`: what is retried, what is halved, and what ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from es_imgsearch.elastic import bulk
from es_imgsearch.elastic import retry as backoff
from es_imgsearch.elastic.bulk import BulkWriter, bulk_slices
from es_imgsearch.elastic.retry import Outage, Stopped
from es_imgsearch.errors import (
    StoreBusy,
    StoreDenied,
    StoreError,
    StoreRejected,
    StoreUnreachable,
)

Results = Sequence[StoreError | None]


class Server:
    """Answers bulks of numbers with `answer`, and notes them."""

    def __init__(
        self, answer: Callable[[Sequence[int], int], Results], *, is_away: bool = False
    ) -> None:
        """`is_away`: it does not take anything small either."""
        self._answer = answer
        self.is_away = is_away
        self.bulks: list[list[int]] = []

    def is_writable(self, _item: int) -> bool:
        return not self.is_away

    def send(self, items: Sequence[int]) -> Results:
        self.bulks.append(list(items))
        return self._answer(items, len(self.bulks))


def writer_to(
    server: Server, *, stopping: threading.Event | None = None, patience_seconds: float = 60.0
) -> BulkWriter[int]:
    return BulkWriter(
        server.send,
        is_writable=server.is_writable,
        outage=Outage(),
        stopping=stopping or threading.Event(),
        patience_seconds=patience_seconds,
    )


def written(
    server: Server, items: Sequence[int], *, patience_seconds: float = 60.0
) -> dict[int, StoreError | None]:
    return dict(writer_to(server, patience_seconds=patience_seconds).write(items))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(backoff, "LONGEST_WAIT_SECONDS", 0.002)


def test_only_what_met_a_transient_error_is_sent_again():
    def answer(items: Sequence[int], number: int) -> Results:
        if number == 1:
            raise StoreUnreachable("away")
        return [StoreBusy("429") if number == 2 and n % 2 else None for n in items]

    server = Server(answer)
    assert written(server, [1, 2, 3, 4]) == dict.fromkeys([1, 2, 3, 4])
    assert server.bulks == [[1, 2, 3, 4], [1, 2, 3, 4], [1, 3]]


@pytest.mark.parametrize("error", [StoreRejected("413"), StoreRejected("400")])
def test_a_refused_request_is_halved_until_the_culprit_is_alone(error: StoreError):
    def answer(items: Sequence[int], number: int) -> Results:
        if 5 in items:
            raise error
        return [None] * len(items)

    server = Server(answer)
    results = written(server, range(8))
    assert results == {**dict.fromkeys(range(8)), 5: error}
    assert [5] in server.bulks
    assert server.bulks.count([5]) == 1


def test_an_item_is_yielded_before_others_are_waited_for():
    server = Server(lambda items, _number: [StoreBusy("429") if n else None for n in items])
    stopping = threading.Event()
    writer = writer_to(server, stopping=stopping)
    results = writer.write([0, 1])
    assert next(results) == (0, None)
    stopping.set()
    with pytest.raises(Stopped):
        next(results)


def test_a_refused_item_is_a_result_and_a_denied_one_ends_all():
    rejected, denied = StoreRejected("no"), StoreDenied("403")
    server = Server(lambda items, _number: [rejected for _ in items])
    assert written(server, [1, 2]) == {1: rejected, 2: rejected}
    server = Server(lambda items, _number: [None, denied, None])
    with pytest.raises(StoreDenied):
        written(server, [1, 2, 3])
    assert len(server.bulks) == 1


def test_an_outage_longer_than_the_patience_raises_its_error():
    def away(_items: Sequence[int], _number: int) -> Results:
        raise StoreUnreachable("away")

    server = Server(away, is_away=True)
    with pytest.raises(StoreUnreachable, match="away"):
        written(server, [1], patience_seconds=0.05)
    assert len(server.bulks) > 1


# -- a server without memory for a bulk answers 429 to it as a whole, for ever ---------------------
#
# tests/e2e/test_small_memory.py has a real one; here each request can be counted.

GIVEN_UP = 200


def too_large(is_too_large: Callable[[Sequence[int]], bool]) -> Server:
    def answer(items: Sequence[int], number: int) -> Results:
        assert number < GIVEN_UP, "the same bulks are sent for ever"
        if is_too_large(items):
            raise StoreBusy("429")
        return [None] * len(items)

    return Server(answer)


def test_bulks_that_are_refused_twice_are_halved_and_grow_again():
    server = too_large(lambda items: len(items) > 16 and len(server.bulks) < 20)
    writer = writer_to(server)
    assert dict(writer.write(range(64))) == dict.fromkeys(range(64))
    sizes = [len(bulk) for bulk in server.bulks]
    assert sizes[:5] == [64, 64, 32, 32, 16]
    server.bulks += [[]] * 20  # memory is free again
    for _ in range(3):
        assert len(dict(writer.write(range(64)))) == 64
    assert len(server.bulks[-1]) == 64


def test_bulks_that_time_out_are_halved():
    def answer(items: Sequence[int], number: int) -> Results:
        assert number < GIVEN_UP
        if len(items) > 3:
            raise StoreUnreachable("no answer in time")
        return [None] * len(items)

    assert written(Server(answer), range(8)) == dict.fromkeys(range(8))


@pytest.mark.parametrize("poison", [0, 5, 7])
def test_an_item_refused_for_ever_holds_up_no_other(poison: int):
    server = too_large(lambda items: poison in items)
    writer = writer_to(server)
    later = iter([range(10, 20), [], range(20, 30)])
    stored = []
    for item, error in writer.write(range(8), lambda: list(next(later, ()))):
        assert error is None
        stored.append(item)
        if len(stored) == 27:
            break
    assert sorted(stored) == sorted({*range(8), *range(10, 30)} - {poison})
    # What comes later is not sent with it, and not one by one either.
    assert len(server.bulks) < 60
    assert max(len(bulk) for bulk in server.bulks[-5:]) > 1


@pytest.mark.parametrize("poison", [0, 5, 7])
def test_an_item_refused_alone_for_ever_while_others_are_stored_fails(poison: int):
    server = too_large(lambda items: poison in items)
    results = written(server, range(8))
    error = results.pop(poison)
    assert results == dict.fromkeys(sorted({*range(8)} - {poison}))
    assert isinstance(error, StoreRejected)
    assert "429" in str(error)


@pytest.mark.parametrize("error", [StoreBusy("429"), StoreUnreachable("no answer in time")])
def test_an_item_that_nothing_else_is_written_with_is_refused_all_the_same(error: StoreError):
    """A `sync` of one large picture never ended, and no deletion of any root began."""

    def refused(_items: Sequence[int], number: int) -> Results:
        assert number < GIVEN_UP
        raise error

    server = Server(refused)
    found = written(server, [1], patience_seconds=0.0)[1]
    assert isinstance(found, StoreRejected)
    assert str(error) in str(found)
    assert len(server.bulks) > 4


def test_items_refused_alone_are_tried_in_rounds_with_one_pause_each():
    class Counting(threading.Event):
        waits = 0

        def wait(self, timeout: float | None = None) -> bool:
            self.waits += 1
            return super().wait(timeout)

    server, stopping = too_large(lambda items: any(5 < each < 15 for each in items)), Counting()
    results = dict(writer_to(server, stopping=stopping).write(range(30)))
    assert {item for item, error in results.items() if error is not None} == {*range(6, 15)}
    assert stopping.waits < 40


@pytest.mark.parametrize("items", [[1], range(4)])
def test_items_wait_for_a_server_that_takes_nothing_small_either(items: Sequence[int]):
    def answer(items: Sequence[int], number: int) -> Results:
        server.is_away = number < 60
        if server.is_away:
            raise StoreBusy("429")
        return [None] * len(items)

    server = Server(answer)
    assert written(server, items) == dict.fromkeys(items)


def test_an_item_refused_alone_waits_for_a_server_that_has_gone():
    def answer(items: Sequence[int], number: int) -> Results:
        server.is_away = 1 < number <= 60
        if number > 60 or items == [1]:
            return [None]
        if number == 1:
            return [None, StoreBusy("429")]
        raise StoreUnreachable("away")

    server = Server(answer)
    assert written(server, [1, 2]) == {1: None, 2: None}


def test_what_comes_while_an_item_is_set_apart_is_written_before_its_next_try(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(backoff, "FIRST_WAIT_SECONDS", 60.0)
    monkeypatch.setattr(backoff, "LONGEST_WAIT_SECONDS", 60.0)
    monkeypatch.setattr(bulk, "_LOOK_SECONDS", 0.001)
    later, stopping = iter([[], [2], [], [3, 4]]), threading.Event()
    server = too_large(lambda items: 1 in items)
    results = writer_to(server, stopping=stopping).write([1], lambda: list(next(later, ())))
    assert [next(results)[0] for _ in range(3)] == [2, 3, 4]
    assert server.bulks == [[1], [2], [3, 4]]


def test_items_refused_alone_in_an_outage_are_not_set_apart_when_it_is_over():
    def answer(items: Sequence[int], number: int) -> Results:
        server.is_away = number < 20
        if server.is_away:
            raise StoreBusy("429")
        return [None] * len(items)

    server = Server(answer)
    assert written(server, range(64)) == dict.fromkeys(range(64))
    assert len(server.bulks) < 40


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([], []),
        ([20_000_000], [1]),
        ([1, 20_000_000, 1], [1, 1, 1]),
        ([4_000_000] * 5, [2, 2, 1]),
        ([5_000_000] * 4, [2, 2]),
        ([10] * 100, [100]),
    ],
)
def test_what_is_sent_together_has_ten_megabytes_at_most(sizes: list[int], parts: list[int]):
    slices = list(bulk_slices(sizes))
    assert [len(sizes[each]) for each in slices] == parts
    assert [size for each in slices for size in sizes[each]] == sizes
