"""Run methods of the client as generators, with blocking or awaited requests.

A request flow is a generator, like `auth_flow` of httpx.  It yields a `Request` or some `Work`, is
sent the answer or the result, and returns its own result.  It does no I/O itself, so one method
serves both clients: `run_flow` blocks, `run_flow_async` awaits.

    def count(index: str) -> RequestFlow[int]:
        answer = yield Request("GET", f"/{index}/_count")
        return int(answer["count"])

    pictures = run_flow(count("images"), store.send)
    pictures = await run_flow_async(count("images"), send_async)

Only searching is written as flows; all other code is plain synchronous code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from es_imgsearch.elastic.requests import Request
from es_imgsearch.errors import ImgSearchError, UsageError

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Work:
    """A long computation, such as decoding pictures or running a model."""

    run: Callable[[], Any]


RequestFlow: TypeAlias = Generator[Request | Work, Any, R]


def run_flow(flow: RequestFlow[R], send: Callable[[Request], Any]) -> R:
    """Run a flow; return its result.  Errors of requests are raised inside it first."""
    try:
        step = next(flow)
        while True:
            try:
                answer = send(step) if isinstance(step, Request) else step.run()
            except ImgSearchError as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as end:
        result: R = end.value
        return result


def each_of(
    search: Callable[..., RequestFlow[R]], queries: Any, **given: Any
) -> RequestFlow[list[R]]:
    """Run a flow for each query in turn.  Raises UsageError for one query."""
    if not isinstance(queries, list | tuple):
        raise UsageError(
            f"search_many takes a list of queries, not a {type(queries).__name__}: for one query"
            " there is search."
        )
    found = []
    for each in queries:
        # A comprehension cannot contain `yield from`.
        found.append((yield from search(each, **given)))  # noqa: PERF401
    return found


async def run_flow_async(flow: RequestFlow[R], send: Callable[[Request], Awaitable[Any]]) -> R:
    """Run a flow from asyncio; work runs in a thread, so that other tasks continue."""
    try:
        step = next(flow)
        while True:
            try:
                if isinstance(step, Request):
                    answer = await send(step)
                else:
                    answer = await asyncio.to_thread(step.run)
            except ImgSearchError as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as end:
        result: R = end.value
        return result
