"""Searches while shards move between nodes."""

from __future__ import annotations

from typing import Any

import pytest

from es_imgsearch.elastic.requests import Request
from es_imgsearch.errors import ShardsMoving, StoreBusy
from es_imgsearch.search import request_flow
from es_imgsearch.search.request_flow import run_flow, sent

REQUEST = Request("POST", "/images/_search")


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(request_flow.time, "sleep", seconds.append)
    return seconds


def failing(*errors: Exception):
    left = list(errors)

    def send(_request: Request) -> Any:
        if left:
            raise left.pop(0)
        return {"hits": 3}

    return send


@pytest.mark.parametrize("number", range(5))
def test_it_is_sent_again_until_they_have_moved(waited: list[float], number: int):
    send = failing(*[ShardsMoving("They move.")] * number)
    assert run_flow(sent(REQUEST, lambda each: each["hits"]), send) == 3
    assert waited == [0.1, 0.4, 1.0, 2.0][:number]


def test_at_last_it_is_an_error(waited: list[float]):
    with pytest.raises(ShardsMoving):
        run_flow(sent(REQUEST, dict), failing(*[ShardsMoving("They move.")] * 5))
    assert sum(waited) == 3.5


def test_what_a_part_of_the_answer_says_counts(waited: list[float]):
    answers = [{"responses": ["moving"]}, {"responses": ["whole"]}]

    def parse(answer: Any) -> str:
        if answer["responses"] == ["moving"]:
            raise ShardsMoving("They move.")
        return str(answer["responses"][0])

    assert run_flow(sent(REQUEST, parse), lambda _: answers.pop(0)) == "whole"
    assert waited == [0.1]


def test_other_errors_are_raised_at_once(waited: list[float]):
    with pytest.raises(StoreBusy):
        run_flow(sent(REQUEST, dict), failing(StoreBusy("A block.")))
    assert not waited
