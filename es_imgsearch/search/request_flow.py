"""Run methods of the client as generators, with blocking or awaited requests.

A request flow is a generator, like `auth_flow` of httpx.  It yields a `Request` or some `Work`, is
sent the answer or the result, and returns its own result.  It does no I/O itself, so one method
serves both clients: `run_flow` blocks, `run_flow_async` awaits.

    def count(index: str) -> RequestFlow[int]:
        answer = yield Request("GET", f"/{index}/_count")
        return int(answer["count"])

    pictures = run_flow(count("images"), store.send)
    pictures = await run_flow_async(count("images"), send_async)

`together` runs several side by side: what they search for at a time is one `_msearch`, and what
they embed one call of the model.

Only searching is written as flows; all other code is plain synchronous code.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeAlias, TypeVar

from es_imgsearch.elastic.requests import Request, joined_searches, searches_of
from es_imgsearch.errors import ImgSearchError, ShardsMoving, UsageError

R = TypeVar("R")

# Together longer than it takes until the other nodes know that one has stopped.
_MOVING_SECONDS: Final = (0.1, 0.4, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Work:
    """A long computation, such as decoding pictures; of one `key` it has one result."""

    run: Callable[[], Any]
    key: Hashable = None


@dataclass(frozen=True, slots=True)
class Encoding:
    """Texts and pictures to embed: `QueryEncoder.embed` and its arguments."""

    embed: Callable[..., Any]
    info: Any
    texts: Sequence[str]
    pictures: Sequence[Any]

    def run(self) -> Any:
        """Embed them."""
        return self.embed(self.info, self.texts, self.pictures)


Step: TypeAlias = Request | Work | Encoding
RequestFlow: TypeAlias = Generator[Step, Any, R]


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


def sent(request: Request, parse: Callable[[Any], R]) -> RequestFlow[R]:
    """Send a request and parse its answer; again, a little later, while shards move."""
    for seconds in _MOVING_SECONDS:
        try:
            return parse((yield request))
        except ShardsMoving:
            yield Work(partial(time.sleep, seconds))
    return parse((yield request))


def each_of(
    search: Callable[..., RequestFlow[R]], queries: Any, **given: Any
) -> RequestFlow[list[R]]:
    """Run a flow for each query in turn.  Raises UsageError for one query."""
    check_many(queries)
    found = []
    for each in queries:
        # A comprehension cannot contain `yield from`.
        found.append((yield from search(each, **given)))  # noqa: PERF401
    return found


def check_many(queries: Any) -> None:
    """Raise UsageError for one query in place of several."""
    if not isinstance(queries, list | tuple):
        raise UsageError(
            f"search_many takes a list of queries, not a {type(queries).__name__}: for one query"
            " there is search."
        )


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


def together(flows: Sequence[RequestFlow[R]]) -> RequestFlow[list[R]]:
    """Run flows side by side; return their results.

    Each round takes a step of every flow.  Raises the error of the first flow that has one.
    """
    runs = [_Run(flow) for flow in flows]
    while waiting := [each for each in runs if each.step is not None]:
        answers = yield from _round([each.step for each in waiting if each.step is not None])
        for each, answer in zip(waiting, answers, strict=True):
            each.go_on(answer)
    for each in runs:
        if each.error is not None:
            raise each.error
    return [each.result for each in runs]


class _Run(Generic[R]):
    """A flow that has come to a step; None at its end, with a result or an error."""

    result: R

    def __init__(self, flow: RequestFlow[R]) -> None:
        self.error: ImgSearchError | None = None
        self._flow = flow
        self._move(lambda: next(flow))

    def go_on(self, answer: Any) -> None:
        """Go on to the next step with an answer, which may be an error."""
        is_error = isinstance(answer, ImgSearchError)
        self._move(lambda: (self._flow.throw if is_error else self._flow.send)(answer))

    def _move(self, move: Callable[[], Step]) -> None:
        self.step: Step | None = None
        try:
            self.step = move()
        except StopIteration as end:
            self.result = end.value
        except ImgSearchError as error:
            self.error = error


def _round(steps: Sequence[Step]) -> RequestFlow[list[Any]]:
    """Take one step of each flow; return answers, of which some may be errors."""
    answers: dict[int, Any] = {}
    groups: dict[Hashable, list[int]] = {}
    for n, step in enumerate(steps):
        groups.setdefault(_kind(step, n), []).append(n)
    for numbers in groups.values():
        first = steps[numbers[0]]
        alike = [steps[n] for n in numbers]
        if len(numbers) == 1:
            found = [(yield from _taken(first))]
        elif isinstance(first, Encoding):
            found = yield from _encoded(alike)
        elif isinstance(first, Request) and searches_of(first) is not None:
            found = yield from _searched(alike)
        else:
            found = [(yield from _taken(first))] * len(numbers)
        answers.update(zip(numbers, found, strict=True))
    return [answers[n] for n in range(len(steps))]


def _kind(step: Step, number: int) -> Hashable:
    """Return what steps have in common that are taken together."""
    if isinstance(step, Encoding):
        return "encoding", step.info.name, step.info.meta.seal
    if isinstance(step, Work):
        return "work", number if step.key is None else ("key", step.key)
    if (searches := searches_of(step)) is not None:
        return "searches", searches.alias
    # What is only read is the same for all.
    is_read = step.method == "GET" or "/_mget?" in step.path
    return "request", step.path, step.body, 0 if is_read else number + 1


def _taken(step: Step) -> RequestFlow[Any]:
    """Take one step; return its answer, or its error."""
    try:
        return (yield step)
    except ImgSearchError as error:
        return error


def _searched(requests: Sequence[Any]) -> RequestFlow[list[Any]]:
    """Send the different ones of these searches as one request."""
    different = list({each.body: each for each in requests}.values())
    if len(different) == 1:
        return [(yield from _taken(different[0]))] * len(requests)
    request, split = joined_searches(different)
    answer = yield from _taken(request)
    if isinstance(answer, ImgSearchError) and answer.transient:
        return [answer] * len(requests)
    parts = [None] * len(different) if isinstance(answer, ImgSearchError) else split(answer)
    by_body: dict[Any, Any] = {}
    for each, part in zip(different, parts, strict=True):
        # One that failed is sent alone, and fails as it does alone.
        by_body[each.body] = (yield from _taken(each)) if part is None else part
    return [by_body[each.body] for each in requests]


def _encoded(encodings: Sequence[Any]) -> RequestFlow[list[Any]]:
    """Embed in one call; each alone if that fails, so that only its cause does."""
    first = encodings[0]
    texts = list(dict.fromkeys(text for each in encodings for text in each.texts))
    pictures = [picture for each in encodings for picture in each.pictures]
    all_of_them = yield from _taken(Encoding(first.embed, first.info, texts, pictures))
    if isinstance(all_of_them, ImgSearchError):
        found = []
        for each in encodings:
            found.append((yield from _taken(each)))  # noqa: PERF401
        return found
    places = {text: n for n, text in enumerate(texts)}
    found, start = [], 0
    for each in encodings:
        rows, end = [places[text] for text in each.texts], start + len(each.pictures)
        found.append(
            all_of_them._replace(
                texts=all_of_them.texts[rows],
                pictures=all_of_them.pictures[start:end],
                truncated=[all_of_them.truncated[n] for n in rows],
            )
        )
        start = end
    return found
