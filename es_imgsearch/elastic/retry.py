"""Trying again: exponential waits with jitter, told once and not a thousand times."""

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
    """The process is shutting down; the work was not done and will be found again."""


def waits() -> Iterator[float]:
    """Seconds to wait before each further try, without end."""
    ceiling = FIRST_WAIT_SECONDS
    while True:
        yield random.uniform(ceiling / 2, ceiling)  # noqa: S311 - jitter, not a secret
        ceiling = min(ceiling * 2, LONGEST_WAIT_SECONDS)


class Outage:
    """Tells the log of an outage once, when it begins, and once when it is over.

    Shared by every thread that talks to Elasticsearch.  It is over when everybody who met it
    has succeeded: where nothing may be written, searching works all the time.
    """

    def __init__(self, may_go_on: Callable[[ImgSearchError], None] = lambda _error: None) -> None:
        """`may_go_on` hears of every try that met an error, and raises where no more will help."""
        self._may_go_on = may_go_on
        self._lock = threading.Lock()
        self._since: float | None = None
        self._waiting: set[str] = set()

    @property
    def seconds(self) -> float:
        """How long the present outage has lasted; 0 when there is none."""
        with self._lock:
            return 0.0 if self._since is None else time.monotonic() - self._since

    def begins(self, error: ImgSearchError, who: str = "") -> None:
        """`who` met this error, and tries again until it can say that it `ends`."""
        self._may_go_on(error)
        with self._lock:
            self._waiting.add(who)
            if self._since is not None:
                return
            self._since = time.monotonic()
        logger.warning("%s Waiting for it; nothing is dropped.", error)

    def ends(self, who: str = "") -> None:
        """`who` succeeded, whether it met an error before or not."""
        with self._lock:
            self._waiting.discard(who)
            if self._since is None or self._waiting:
                return
            seconds = time.monotonic() - self._since
            self._since = None
        logger.warning("Elasticsearch works again after %.1f s.", seconds)


def persist(call: Callable[[], T], stop: threading.Event, outage: Outage) -> T:
    """The result of `call`, tried again while its error is transient.

    Raises Stopped when `stop` is set during a wait; any other error as it comes.
    """
    who = threading.current_thread().name
    for wait_seconds in waits():
        try:
            result = call()
        except ImgSearchError as error:
            if not error.transient:
                # Elasticsearch did answer.
                outage.ends(who)
                raise
            outage.begins(error, who)
            if stop.wait(wait_seconds):
                raise Stopped from error
        else:
            outage.ends(who)
            return result
    raise AssertionError("waits() has no end")
