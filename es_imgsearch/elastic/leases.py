"""Leases: claims on state documents that expire when they are not renewed.

    acquire ──▶ the document is created, or an expired one replaced, by compare-and-set
    a thread ──▶ writes `seen_at` anew four times within `lease_seconds`
    release ──▶ the document is deleted, if it is still ours

A killed process leaves its documents behind.  Another process takes them over once it has seen the
same version for `lease_seconds` by its own monotonic clock: a living holder would have renewed it.
It need not wait if `seen_at` is older than four times that, which no clock difference below a
minute causes (`lease_seconds` is 20 by default).  A holder that was suspended for so long, such as
a sleeping laptop, notices at its next renewal, at most a fourth of `lease_seconds` after it wakes;
until then two may be at work, so a step that must not happen twice calls `confirm` first.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.elastic.state import Document, State, Version, VersionedDocument
from es_imgsearch.errors import AlreadyRunning, ImgSearchError, StoreDenied

logger = logging.getLogger(__name__)

LEASE_SECONDS = 20.0
_RENEWALS = 4
_POLLS = 40
# A time stamp older than this many `lease_seconds` has expired without further watching.
SURELY_EXPIRED = 4
# How long a missing answer may delay the end of the process.
_RELEASE_SECONDS = 5.0

# Tokens of all leases of this process, and of the held ones: released ones never block it.
_made_here: set[str] = set()
_held_here: set[str] = set()


def is_alive(lease: Document) -> bool:
    """Check by its time stamp that a lease was renewed lately."""
    return seconds_left(lease) > 0


def seconds_left(lease: Document) -> float:
    """Return the time until a lease that is not renewed any more counts as expired."""
    longest: float = SURELY_EXPIRED * lease["lease_seconds"]
    return longest - seconds_since(lease)


def seconds_since(lease: Document) -> float:
    """Return the age of the last renewal, by this machine's clock."""
    return (datetime.now(tz=UTC) - datetime.fromisoformat(lease["seen_at"])).total_seconds()


def is_running(lease: Document) -> bool:
    """Check that a lease was renewed lately, by a process that has not ended.

    Whether it has ended shows on the same machine only.  Its lease is waited for nevertheless: what
    it sent last may not have been carried out yet.
    """
    return is_alive(lease) and not _has_ended(lease)


def is_at_work(lease: Document) -> bool:
    """Check that a lease is renewed, by the age of its last renewal.

    Of a process of this machine, also in another container, twice `lease_seconds` count, since both
    read the same clock; of others as `is_running`.
    """
    there, here = lease["body"].get("process"), _process(os.getpid())
    is_on_same_clock = there and here and _boot(there) == _boot(here)
    longest = (2 if is_on_same_clock else SURELY_EXPIRED) * lease["lease_seconds"]
    return seconds_since(lease) < longest and not _has_ended(lease)


def _boot(process: Document) -> str:
    return str(process["machine"]).partition(" ")[0]


def _has_ended(lease: Document) -> bool:
    """Return True if the holder was a process of this machine that is no longer there."""
    there, here = lease["body"].get("process"), _process(os.getpid())
    if not there or not here or there["machine"] != here["machine"]:
        return False
    try:
        os.kill(lease["process_id"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # another user's
    found = _process(lease["process_id"])
    return found is not None and found["started"] != there["started"]


def _process(process_id: int) -> Document | None:
    """Identify a process on this machine; None where /proc does not show it.

    `machine` is the boot and the namespace of process ids; each container has its own namespace.
    `started` is in clock ticks since the boot: a later process with the same id has another value.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = f"{boot} {os.readlink('/proc/self/ns/pid')}"
        state, *fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return {"machine": machine, "started": None if state in "ZX" else int(fields[18])}


def is_of_this_process(lease: Document) -> bool:
    """Check that this process made a lease."""
    return lease["token"] in _made_here


def holder(lease: Document) -> str:
    """Describe the process that holds a lease."""
    return f"Process {lease['process_id']} on {lease['host']}"


class Lease:
    """Claim of one process on several state documents, all or none of them.

    `claims` has the constant fields of each document by its id, `work` describes the activity of
    the holder ("watching 'photos'").  `body` returns further fields for every renewal; `renewed` is
    called after each, from the renewing thread.
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
        self._is_denied = False
        self._thread = threading.Thread(target=self._renew_loop, name="lease", daemon=True)
        _made_here.add(self._token)

    def __enter__(self) -> Self:
        self.acquire(threading.Event())
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self.join(_RELEASE_SECONDS)

    def acquire(self, stopping: threading.Event) -> None:
        """Claim all documents; wait until the leases of a killed process have expired.

        May be called again after a transient error.  Raises AlreadyRunning if another process
        holds one of them, Stopped once `stopping` is set.
        """
        _held_here.add(self._token)
        if not self._thread.ident:
            # Before the first claim, which would expire during the wait for the others.
            self._thread.start()
        try:
            self._claim(stopping)
        except BaseException as error:
            if not (isinstance(error, ImgSearchError) and error.transient):
                self.release()
            raise

    def renew_soon(self) -> None:
        """Have the thread renew now instead of when it is due."""
        self._news.set()

    def check(self) -> None:
        """Raise AlreadyRunning once another process has taken over."""
        if (other := self._lost_to) is not None:
            raise AlreadyRunning(
                f"{holder(other)} took over {self._work} at {other['since']}, after this process"
                f" had not renewed its claim for {self._lease_seconds:g} s: this one ends."
            )

    def confirm(self) -> None:
        """Renew now; raise AlreadyRunning if another process has taken over."""
        self._renew()
        self.check()

    def release(self) -> None:
        """Begin to delete the documents, so that a waiting process gets them."""
        _held_here.discard(self._token)
        self._ending.set()
        self._news.set()

    def leave(self) -> None:
        """End without deleting the documents, as a killed process does."""
        with self._lock:
            self._held.clear()
        self.release()

    def join(self, seconds: float) -> None:
        """Wait until the documents are deleted, at most so long; otherwise they expire."""
        if self._thread.ident:
            self._thread.join(seconds)

    def _document(self, name: str) -> Document:
        body = {**self._body(), "process": _process(os.getpid())}
        return {**self._claims[name], **self._me, "seen_at": now_iso(), "body": body}

    def _claim(self, stopping: threading.Event) -> None:
        first_reads: dict[str, tuple[VersionedDocument, float]] = {}
        while missing := sorted(self._claims.keys() - self._held.keys()):
            reads = {name: self._state.read(name) for name in missing}
            for name, read in reads.items():
                if read is not None and read.document["token"] != self._token:
                    self._watch(read, first_reads.get(name))
                    first_reads.setdefault(name, (read, time.monotonic()))
            # Every process takes them in the same order: one of two processes gets them all.
            for name in missing:
                if (version := self._take(name, reads[name], first_reads.get(name))) is None:
                    stopping.wait(self._lease_seconds / _POLLS)
                    break
                with self._lock:
                    self._held[name] = version
            if stopping.is_set():
                raise Stopped

    def _watch(
        self, other: VersionedDocument, first: tuple[VersionedDocument, float] | None
    ) -> None:
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
        self,
        name: str,
        read: VersionedDocument | None,
        first: tuple[VersionedDocument, float] | None,
    ) -> Version | None:
        """Claim a free document; None if it is held, or another process was faster."""
        if read is None:
            return self._state.create(name, self._document(name))
        if read.document["token"] == self._token:
            # We wrote it, and the answer was lost.
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
        except StoreDenied as error:
            # Nobody sees it otherwise: the next daemon waits until the claim has expired.
            if not self._is_denied:
                logger.warning("The claim on %s cannot be written: %s", self._work, error)
            self._is_denied = True
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
        stored = self._state.read(name)
        if stored is None:
            # Deleted by others; created unless another process claims it at this moment.
            return self._state.create(name, mine) or version
        if stored.document["token"] != self._token:
            self._lost_to = stored.document
        return stored.version

    def _give_up(self) -> None:
        with self._lock:
            while self._held and self._lost_to is None:
                self._state.delete(*self._held.popitem())


def now_iso() -> str:
    """Format the present time (UTC) to the millisecond."""
    return datetime.now(tz=UTC).isoformat(timespec="milliseconds")
