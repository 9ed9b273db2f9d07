"""Leases: claims on state documents that end by themselves when nobody renews them.

    acquire ──▶ the document is created, or an expired one replaced, by compare-and-set
    a thread ──▶ writes `seen_at` anew four times within `lease_seconds`
    release ──▶ the document is deleted, if it is still ours

A killed process leaves its documents behind.  Whoever wants them takes them over once it saw the
same version for the whole of `lease_seconds`, by its own monotonic clock: a living holder would
have renewed it.  Sooner only if `seen_at` is older than four times that, which clocks that differ
by a minute do not make of a renewed one (`lease_seconds` is 20 by default).  A holder that was
stopped for so long, such as a laptop that slept, finds out at its next renewal, at most a fourth
of `lease_seconds` after it wakes; until then two may be at work, so that a step that must not be
made twice calls `confirm` first.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Self

from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.elastic.state import Document, Read, State, Version
from es_imgsearch.errors import AlreadyRunning, ImgSearchError

logger = logging.getLogger(__name__)

LEASE_SECONDS = 20.0
_RENEWALS = 4
_POLLS = 40
# How often `lease_seconds` a time stamp may be old before it counts without watching.
_SURELY_EXPIRED = 4
# How long an answer that does not come may hold up the end.
_RELEASE_SECONDS = 5.0

# Tokens of the leases of this process, all and those that are held: its own ones never block it.
_made_here: set[str] = set()
_held_here: set[str] = set()


def is_alive(lease: Document) -> bool:
    """Whether a lease was renewed lately, as far as time stamps show."""
    silent_for = datetime.now(tz=UTC) - datetime.fromisoformat(lease["seen_at"])
    longest: float = _SURELY_EXPIRED * lease["lease_seconds"]
    return silent_for.total_seconds() < longest


def holder(lease: Document) -> str:
    """Which process holds a lease, in words."""
    return f"Process {lease['process_id']} on {lease['host']}"


class Lease:
    """State documents that one process holds, all or none of them.

    `claims` gives the constant fields of each document by its id, `work` says what their holder is
    doing ("watching 'photos'").  `body` gives what else is written at every renewal, and `renewed`
    is called from the renewing thread after each.
    """

    def __init__(
        self,
        state: State,
        claims: Mapping[str, Document],
        host: str,
        work: str,
        *,
        lease_seconds: float = LEASE_SECONDS,
        body: Callable[[], Mapping[str, Any]] = dict,
        renewed: Callable[[], None] = lambda: None,
    ) -> None:
        self._state = state
        self._claims = claims
        self._work = work
        self._lease_seconds = lease_seconds
        self._body = body
        self._renewed = renewed
        self._token = uuid.uuid4().hex
        self._me = {
            "host": host,
            "process_id": os.getpid(),
            "token": self._token,
            "since": now_iso(),
            "lease_seconds": lease_seconds,
        }
        self._held: dict[str, Version] = {}
        self._lost_to: Document | None = None
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._renew_loop, name="lease", daemon=True)
        _made_here.add(self._token)

    def __enter__(self) -> Self:
        self.acquire(threading.Event())
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self.join(_RELEASE_SECONDS)

    def acquire(self, stopping: threading.Event) -> None:
        """Claim all documents; waits where another process perhaps was killed.

        May be called again after a transient error.  Raises AlreadyRunning where another process
        holds one of them, Stopped once `stopping` is set.
        """
        _held_here.add(self._token)
        if not self._thread.ident:
            # Before the first claim, which would expire while the others are waited for.
            self._thread.start()
        try:
            self._claim(stopping)
        except BaseException as error:
            if not (isinstance(error, ImgSearchError) and error.transient):
                self.release()
            raise

    def renew_soon(self) -> None:
        """Renew now and not only when it is due, from the thread."""
        self._news.set()

    def check(self) -> None:
        """Raise AlreadyRunning once another process has taken over."""
        if (other := self._lost_to) is not None:
            raise AlreadyRunning(
                f"{holder(other)} took over {self._work} at {other['since']}, after this process"
                f" had not renewed its claim for {self._lease_seconds:g} s: this one ends."
            )

    def confirm(self) -> None:
        """Renew now, and raise AlreadyRunning where another process has taken over."""
        self._renew()
        self.check()

    def release(self) -> None:
        """Begin to give the documents up; a process that waits for them then gets them."""
        _held_here.discard(self._token)
        self._ending.set()
        self._news.set()

    def join(self, seconds: float) -> None:
        """Wait until they are given up, or cannot be in time; then they expire."""
        if self._thread.ident:
            self._thread.join(seconds)

    def _document(self, name: str) -> Document:
        return {**self._claims[name], **self._me, "seen_at": now_iso(), "body": self._body()}

    def _claim(self, stopping: threading.Event) -> None:
        seen: dict[str, tuple[Read, float]] = {}
        while missing := sorted(self._claims.keys() - self._held.keys()):
            reads = {name: self._state.read(name) for name in missing}
            for name, read in reads.items():
                if read is not None and read.document["token"] != self._token:
                    self._watch(read, seen.get(name))
                    seen.setdefault(name, (read, time.monotonic()))
            # In one order everywhere, so that of two processes one gets all.
            for name in missing:
                if (version := self._take(name, reads[name], seen.get(name))) is None:
                    stopping.wait(self._lease_seconds / _POLLS)
                    break
                with self._lock:
                    self._held[name] = version
            if stopping.is_set():
                raise Stopped

    def _watch(self, other: Read, first: tuple[Read, float] | None) -> None:
        """Raise AlreadyRunning where a document was written since it was first seen."""
        lease = other.document
        if first is None:
            if not self._may_take(lease, 0.0):
                logger.warning(
                    "%s was %s, seen last at %s. If it was killed, this goes on in %.0f s.",
                    holder(lease), self._work, lease["seen_at"], lease["lease_seconds"],
                )  # fmt: skip
        elif first[0].version != other.version:
            raise AlreadyRunning(
                f"{holder(lease)} is {self._work}, since {lease['since']}: stop that one, or wait"
                f" for its end. If it is killed, this can be run {lease['lease_seconds']:.0f} s"
                " later."
            )

    def _take(
        self, name: str, read: Read | None, first: tuple[Read, float] | None
    ) -> Version | None:
        """Claim a document that is free; None where it is not, or another process was faster."""
        if read is None:
            return self._state.create(name, self._document(name))
        if read.document["token"] == self._token:
            # Written by us; the answer was lost.
            return read.version
        watched_seconds = 0.0 if first is None else time.monotonic() - first[1]
        if not self._may_take(read.document, watched_seconds):
            return None
        return self._state.replace(name, self._document(name), read.version)

    def _may_take(self, lease: Document, watched_seconds: float) -> bool:
        return (
            watched_seconds >= lease["lease_seconds"]
            or not is_alive(lease)
            or lease["token"] in _made_here - _held_here
        )

    def _renew_loop(self) -> None:
        while not self._ending.is_set():
            self._attempt(self._renew)
            self._attempt(self._renewed)
            self._news.wait(self._lease_seconds / _RENEWALS)
            self._news.clear()
        self._attempt(self._renewed)
        self._attempt(self._give_up)

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except ImgSearchError as error:
            logger.debug("The claim on %s was not written: %s", self._work, error)

    def _renew(self) -> None:
        with self._lock:
            for name, version in self._held.items():
                if self._lost_to is None:
                    self._held[name] = self._renew_one(name, version)

    def _renew_one(self, name: str, version: Version) -> Version:
        mine = self._document(name)
        if (renewed := self._state.replace(name, mine, version)) is not None:
            return renewed
        found = self._state.read(name)
        if found is None:
            # Erased by somebody; created unless another process claims it at this moment.
            return self._state.create(name, mine) or version
        if found.document["token"] != self._token:
            self._lost_to = found.document
        return found.version

    def _give_up(self) -> None:
        with self._lock:
            while self._held and self._lost_to is None:
                self._state.delete(*self._held.popitem())


def now_iso() -> str:
    """The present time, UTC, to the millisecond."""
    return datetime.now(tz=UTC).isoformat(timespec="milliseconds")
