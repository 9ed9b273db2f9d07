"""`BulkWriter`: what is retried, what is halved, and what ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from es_imgsearch.elastic import retry as backoff
from es_imgsearch.elastic.bulk import BulkWriter
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

    def __init__(self, answer: Callable[[Sequence[int], int], Results]) -> None:
        self._answer = answer
        self.bulks: list[list[int]] = []

    def send(self, items: Sequence[int]) -> Results:
        self.bulks.append(list(items))
        return self._answer(items, len(self.bulks))


def written(
    server: Server, items: Sequence[int], *, patience_seconds: float = 60.0
) -> dict[int, StoreError | None]:
    writer = BulkWriter(
        server.send,
        outage=Outage(),
        stopping=threading.Event(),
        patience_seconds=patience_seconds,
    )
    return dict(writer.write(items))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_WAIT_SECONDS", 0.001)


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
    writer = BulkWriter(server.send, outage=Outage(), stopping=stopping)
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

    server = Server(away)
    with pytest.raises(StoreUnreachable, match="away"):
        written(server, [1], patience_seconds=0.05)
    assert len(server.bulks) > 1
