"""When the documents of missing files may be deleted."""

from __future__ import annotations

from collections.abc import Iterator

from es_imgsearch.write.pending_deletions import (
    PendingDeletions,
    Progress,
    Tickets,
    WholeRoot,
)

WHOLE = WholeRoot(pictures=10, began_at=0.0)


class Bench:
    """Pending deletions with a patience of 1 s, and the progress that they look at."""

    def __init__(self) -> None:
        self.now = 100.0
        self.progress = Progress()
        self.comparisons, self.files = self.progress.comparisons, self.progress.files
        self.pending = PendingDeletions(1.0, self.progress, lambda: self.now)

    def take(self, seconds: float = 0.0) -> tuple[list[str], WholeRoot | None] | None:
        self.now += seconds
        return self.pending.take_due(self.comparisons.ended_until)


def test_what_disappears_together_is_checked_together():
    bench = Bench()
    for name in "abc":
        bench.pending.add(name)
        assert bench.take(0.9) is None
    bench.pending.add("a")
    assert bench.take(1.0) == (["a", "b", "c"], None)
    assert not bench.pending
    assert bench.take(5) is None


def test_a_stream_without_end_is_taken_after_a_while():
    bench = Bench()
    taken = []
    for n in range(40):
        bench.pending.add(str(n))
        if (found := bench.take(0.5)) is not None:
            taken.append(len(found[0]))
    assert len(taken) == 1
    assert 15 <= taken[0] <= 25


def test_comparisons_asked_for_before_have_to_end_first():
    bench = Bench()
    first, second = bench.comparisons.begin(), bench.comparisons.begin()
    bench.pending.add("a")
    bench.comparisons.begin()
    bench.comparisons.end(first)
    assert bench.take(5) is None
    assert bench.take(50) is None
    bench.comparisons.end(second)
    assert bench.take() is None  # patience begins only now: what was found is settling
    assert bench.take(0.9) is None
    assert bench.take(0.2) == (["a"], None)


def test_what_was_submitted_until_then_has_to_be_acknowledged():
    bench = Bench()
    bench.pending.add("a")
    assert bench.take() is None
    tickets = [bench.files.begin() for _ in range(7)]
    bench.files.end(*tickets[:3])
    assert bench.take(1) is None
    for _ in range(5):
        bench.files.begin()
    bench.files.end(*tickets[3:6])
    assert bench.take(1) is None
    bench.files.end(tickets[6])
    assert bench.take() == (["a"], None)


def test_a_complete_comparison_is_reported_even_if_nothing_is_gone():
    bench = Bench()
    bench.pending.add_compared([], WHOLE)
    assert bench.pending
    assert bench.take() is None
    assert bench.take(1) == ([], WHOLE)


def test_a_complete_batch_holds_all_missing_files_though_one_was_taken_meanwhile():
    """A complete batch without them would end a pause of deletions by mistake."""
    bench = Bench()
    taken: list[tuple[list[str], WholeRoot | None] | None] = []

    def missing() -> Iterator[str]:
        for name in "ab":
            taken.append(bench.take(2))
            yield name

    for _ in range(4):
        bench.pending.add_compared(list(missing()), WHOLE)
    taken += [bench.take(), bench.take(2)]
    batches = [batch for batch in taken if batch is not None]
    assert batches
    assert all(batch == (["a", "b"], WHOLE) for batch in batches)


def test_what_went_during_a_complete_comparison_is_checked_with_it():
    """However long that takes: parts would be judged one after the other."""
    bench = Bench()
    comparison = bench.comparisons.begin()
    bench.pending.add("a")
    assert bench.take(20) is None
    bench.pending.add("b")
    assert bench.take(20) is None
    bench.comparisons.end(comparison)
    bench.pending.add_compared(["b", "c"], WHOLE)
    assert bench.take() is None
    assert bench.take(1) == (["a", "b", "c"], WHOLE)
    assert not bench.pending


def test_everything_at_once():
    bench = Bench()
    bench.pending.add("a")
    bench.files.begin()
    bench.take()
    bench.take(1)
    bench.pending.add_compared(["b"], WHOLE)
    assert bench.pending.take_all() == (["a", "b"], WHOLE)
    assert not bench.pending


def test_tickets_end_in_any_order_and_count_only_what_has_ended_before_them():
    tickets = Tickets()
    assert (tickets.begun, tickets.ended_until) == (0, 0)
    first, second, third = tickets.begin(), tickets.begin(), tickets.begin()
    tickets.end(second)
    assert (tickets.begun, tickets.ended_until) == (3, first)
    tickets.end(first)
    assert tickets.ended_until == third
    tickets.end(third)
    assert (tickets.begun, tickets.ended_until) == (3, 3)
