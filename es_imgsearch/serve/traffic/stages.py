"""Seconds that a request spends in each stage, summed over its threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Literal

Stage = Literal["decode", "encode", "elasticsearch"]

# Threads that the request's work is done in inherit it.
_seconds: Final[ContextVar[dict[str, float] | None]] = ContextVar("stage_seconds", default=None)


@contextmanager
def timed(stage: Stage) -> Iterator[None]:
    """Add the time of a block to a stage of the request; nothing outside of one."""
    seconds = _seconds.get()
    if seconds is None:
        yield
        return
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started


@contextmanager
def stage_seconds() -> Iterator[dict[str, float]]:
    """Collect the seconds by stage of the work inside."""
    seconds: dict[str, float] = {}
    token = _seconds.set(seconds)
    try:
        yield seconds
    finally:
        _seconds.reset(token)
