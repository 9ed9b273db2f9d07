"""Retry with exponential backoff; log an outage once."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from es_imgsearch.errors import ImgSearchError

logger = logging.getLogger(__name__)

T = TypeVar("T")

# "Equal jitter" after Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 15.0


class Stopped(Exception):
    """The process is shutting down; unfinished work is found again by `reconcile`."""


def waits() -> Iterator[float]:
    """Yield the seconds to wait before each further try, without end."""
    ceiling = FIRST_WAIT_SECONDS
    while True:
        yield random.uniform(ceiling / 2, ceiling)  # noqa: S311 - jitter, not a secret
        ceiling = min(ceiling * 2, LONGEST_WAIT_SECONDS)


class Outage:
    """Logs the begin and the end of an outage once each.

    Shared by all threads that send requests.  It ends when every thread that met it has succeeded:
    while writes are blocked, searches still work.
    """

    def __init__(self, may_go_on: Callable[[ImgSearchError], None] = lambda _error: None) -> None:
        """`may_go_on` gets the error of every failed try; it raises to end the retries."""
        self._may_go_on = may_go_on
        self._lock = threading.Lock()
        self._since: float | None = None
        self._waiting: set[str] = set()

    @property
    def seconds(self) -> float:
        """Duration of the present outage; 0 without one."""
        with self._lock:
            return 0.0 if self._since is None else time.monotonic() - self._since

    def begin(self, error: ImgSearchError, thread: str = "") -> None:
        """Note that a thread met this error and retries, until it calls `end`."""
        self._may_go_on(error)
        with self._lock:
            self._waiting.add(thread)
            if self._since is not None:
                return
            self._since = time.monotonic()
        logger.warning("%s Waiting for it; nothing is dropped.", error)

    def end(self, thread: str = "") -> None:
        """Note that a thread succeeded, with or without an error before."""
        with self._lock:
            self._waiting.discard(thread)
            if self._since is None or self._waiting:
                return
            seconds = time.monotonic() - self._since
            self._since = None
        logger.warning("Elasticsearch works again after %.1f s.", seconds)


def persist(call: Callable[[], T], stop: threading.Event, outage: Outage) -> T:
    """Call until it succeeds, with retries of transient errors; return the result.

    Raises Stopped when `stop` is set during a wait, and every other error of the call.
    """
    thread = threading.current_thread().name
    for wait_seconds in waits():
        try:
            result = call()
        except ImgSearchError as error:
            if not error.transient:
                # Elasticsearch answered.
                outage.end(thread)
                raise
            outage.begin(error, thread)
            if stop.wait(wait_seconds):
                raise Stopped from error
        else:
            outage.end(thread)
            return result
    raise AssertionError("waits() has no end")
