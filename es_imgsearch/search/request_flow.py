"""Request flows: methods of the client as generators, which threads and asyncio both can run.

A flow is a generator, as `auth_flow` of httpx is.  It yields a `Request` or some `Work`, is sent
the answer or the result, and returns its own result.  It does no I/O itself, so one method serves
both clients: `run_flow` runs it and blocks, `run_flow_async` awaits.

    def count(index: str) -> RequestFlow[int]:
        answer = yield Request("GET", f"/{index}/_count")
        return int(answer["count"])

    pictures = run_flow(count("images"), store.send)
    pictures = await run_flow_async(count("images"), async_connection.send)

Only searching is written so; what runs in one process at a time is plain synchronous code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from es_imgsearch.elastic.requests import Request
from es_imgsearch.errors import ImgSearchError

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Work:
    """A computation that takes long, and no network: decoding pictures, running a model."""

    run: Callable[[], Any]


RequestFlow: TypeAlias = Generator[Request | Work, Any, R]


def run_flow(flow: RequestFlow[R], send: Callable[[Request], Any]) -> R:
    """Run a flow and return its result; its errors are raised inside the flow first."""
    try:
        need = next(flow)
        while True:
            try:
                got = send(need) if isinstance(need, Request) else need.run()
            except ImgSearchError as error:
                need = flow.throw(error)
            else:
                need = flow.send(got)
    except StopIteration as end:
        result: R = end.value
        return result


async def run_flow_async(flow: RequestFlow[R], send: Callable[[Request], Awaitable[Any]]) -> R:
    """Run a flow from asyncio; work goes to a thread, so that other tasks go on."""
    try:
        need = next(flow)
        while True:
            try:
                if isinstance(need, Request):
                    got = await send(need)
                else:
                    got = await asyncio.to_thread(need.run)
            except ImgSearchError as error:
                need = flow.throw(error)
            else:
                need = flow.send(got)
    except StopIteration as end:
        result: R = end.value
        return result
