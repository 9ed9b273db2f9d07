from __future__ import annotations

from es_imgsearch.pipeline.write_stage import PromptRefresh


def test_refreshed_is_what_carries_all_that_is_in_flight() -> None:
    in_flight, now = 1, 100.0
    prompt = PromptRefresh(lambda: in_flight, lambda: now)
    assert prompt.is_due(1)
    now += 1.0
    in_flight = 30
    assert not prompt.is_due(29)
    assert prompt.is_due(30)


def test_at_most_four_a_second() -> None:
    times = iter(n / 100 for n in range(1000))
    prompt = PromptRefresh(lambda: 1, lambda: next(times))
    assert sum(prompt.is_due(1) for _ in range(1000)) == 40
