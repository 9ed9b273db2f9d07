"""A request flow gives the same result to threads and to asyncio."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from es_imgsearch.elastic.requests import Request
from es_imgsearch.errors import ImageMissing, StoreBusy
from es_imgsearch.search.request_flow import RequestFlow, Work, run_flow, run_flow_async


def counted(index: str) -> RequestFlow[tuple[int, str]]:
    try:
        answer = yield Request("GET", f"/{index}/_count")
    except ImageMissing:
        return 0, ""
    thread = yield Work(lambda: threading.current_thread().name)
    return int(answer["count"]), thread


def send(request: Request) -> Any:
    if request.path == "/missing/_count":
        raise ImageMissing("none")
    if request.path == "/busy/_count":
        raise StoreBusy("429")
    return {"count": 7}


async def send_async(request: Request) -> Any:
    return send(request)


def test_both_runners_send_answers_and_return_the_result():
    here = threading.current_thread().name
    assert run_flow(counted("images"), send) == (7, here)
    count, thread = asyncio.run(run_flow_async(counted("images"), send_async))
    assert count == 7
    assert thread != here, "work must not block the event loop"


def test_an_error_is_raised_inside_the_flow_first():
    assert run_flow(counted("missing"), send) == (0, "")
    assert asyncio.run(run_flow_async(counted("missing"), send_async)) == (0, "")
    with pytest.raises(StoreBusy):
        run_flow(counted("busy"), send)
    with pytest.raises(StoreBusy):
        asyncio.run(run_flow_async(counted("busy"), send_async))
