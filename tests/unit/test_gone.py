"""When what is gone may be deleted."""

from __future__ import annotations

from es_imgsearch.write.pending_deletions import Gone


class Bench:
    """A `Gone` with a patience of 1 s and everything it asks for, by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked = self.compared = self.ticket = self.settled = 0
        self.gone = Gone(1.0, lambda: self.asked, lambda: self.now)

    def take(self, seconds: float = 0.0) -> tuple[list[str], bool] | None:
        self.now += seconds
        return self.gone.take(self.compared, self.ticket, self.settled)


def test_what_disappears_together_is_judged_together():
    bench = Bench()
    for name in "abc":
        bench.gone.note(name)
        assert bench.take(0.9) is None
    bench.gone.note("a")
    assert bench.take(1.0) == (["a", "b", "c"], False)
    assert not bench.gone
    assert bench.take(5) is None


def test_a_stream_without_end_is_judged_after_a_while():
    bench = Bench()
    taken = []
    for n in range(40):
        bench.gone.note(str(n))
        if (found := bench.take(0.5)) is not None:
            taken.append(len(found[0]))
    assert len(taken) == 1
    assert 15 <= taken[0] <= 25


def test_comparisons_asked_for_before_have_to_end_first():
    bench = Bench()
    bench.asked = 2
    bench.gone.note("a")
    bench.asked, bench.compared = 3, 1
    assert bench.take(5) is None
    assert bench.take(50) is None
    bench.compared = 2
    assert bench.take() is None  # patience begins only now: what was found is settling
    assert bench.take(0.9) is None
    assert bench.take(0.2) == (["a"], False)


def test_what_was_submitted_until_then_has_to_be_acknowledged():
    bench = Bench()
    bench.gone.note("a")
    assert bench.take() is None
    bench.ticket, bench.settled = 7, 3
    assert bench.take(1) is None
    bench.ticket, bench.settled = 12, 6
    assert bench.take(1) is None
    bench.settled = 7
    assert bench.take() == (["a"], False)


def test_a_complete_comparison_is_told_even_if_nothing_is_gone():
    bench = Bench()
    bench.gone.note_complete()
    assert bench.gone
    assert bench.take() is None
    assert bench.take(1) == ([], True)


def test_everything_at_once():
    bench = Bench()
    bench.gone.note("a")
    bench.settled = -1
    bench.take()
    bench.take(1)
    bench.gone.note("b")
    bench.gone.note_complete()
    assert bench.gone.take_all() == (["a", "b"], True)
    assert not bench.gone
