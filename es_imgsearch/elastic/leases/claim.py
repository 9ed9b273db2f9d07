"""Take, renew and give up state documents; without a thread, see `lease`."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from es_imgsearch.elastic.leases.holders import (
    held_here,
    holder,
    is_alive,
    made_here,
    now_iso,
    process_of,
)
from es_imgsearch.elastic.state import Document, State, Version, VersionedDocument
from es_imgsearch.errors import AlreadyRunning, StoreBusy

logger = logging.getLogger(__name__)

# The part of `lease_seconds` for which a holder may act without another renewal.  The rest is for
# requests that were sent at its end, and for clocks that do not run alike.
VALID_SHARE = 0.75


def running_seconds() -> float:
    """Return seconds of a clock that no step moves and that goes on during suspension."""
    # Linux alone has it; elsewhere the monotonic clock goes on.
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Claim:
    """Claim of one process on several state documents, all or none of them.

    `claims` has the constant fields of each document by its id, `work` describes the activity of
    the holder ("watching 'photos'").  `body` returns further fields for every renewal.  Thread-safe
    but for `step`.
    """

    def __init__(
        self,
        state: State,
        claims: Mapping[str, Document],
        host: str,
        work: str,
        *,
        lease_seconds: float,
        body: Callable[[], Mapping[str, Any]] = dict,
        trusts_clocks: bool = True,
        clock: Callable[[], float] = running_seconds,
    ) -> None:
        self._state = state
        self._claims = claims
        self.work = work
        self.lease_seconds = lease_seconds
        self.body = body
        self._trusts_clocks = trusts_clocks
        self._clock = clock
        self.token = uuid.uuid4().hex
        self._me = {
            "host": host,
            "process_id": os.getpid(),
            "token": self.token,
            "since": now_iso(),
            "lease_seconds": lease_seconds,
        }
        self._held: dict[str, Version] = {}
        # When the last acknowledged write of each document was sent.
        self._sent: dict[str, float] = {}
        self._valid_until = -math.inf
        self._has_ended = False
        self._first_reads: dict[str, tuple[VersionedDocument, float]] = {}
        self._lost_to: Document | None = None
        self._lock = threading.Lock()
        made_here.add(self.token)

    def forget_reads(self) -> None:
        """Begin to watch other holders anew."""
        self._first_reads.clear()

    def step(self, *, is_patient: bool = False, takes: bool = True) -> bool:
        """Take what is free, in one order; True once all documents are held.

        Other holders are watched from one call to the next; a call that `takes` nothing does only
        that.  Raises AlreadyRunning where one renews its document, unless the caller `is_patient`.
        """
        missing = sorted(self._claims.keys() - self._held.keys())
        reads = {name: self._state.read(name) for name in missing}
        for name, read in reads.items():
            if read is not None and read.document["token"] != self.token:
                self._watch(name, read, is_patient=is_patient)
        if not takes:
            return False
        # Every process takes them in the same order: one of two processes gets them all.
        for name in missing:
            sent_at = self._clock()
            if (version := self._take(name, reads[name])) is None:
                return False
            with self._lock:
                self._held[name] = version
                # If the answer to an earlier write was lost, it is not known when that was sent.
                is_ours = (read := reads[name]) and read.document["token"] == self.token
                self._note_sent(name, -math.inf if is_ours else sent_at)
        return True

    def check(self) -> None:
        """Raise AlreadyRunning once another process has taken over."""
        if (other := self._lost_to) is not None:
            raise AlreadyRunning(
                f"{holder(other)} took over {self.work} at {other['since']}, after this process"
                f" had not renewed its claim for {self.lease_seconds:g} s: this one ends."
            )

    def check_valid(self) -> None:
        """Raise unless no other process can have taken over: AlreadyRunning, or StoreBusy.

        To be called right before each request that only the holder may send.
        """
        self.check()
        if self._has_ended or self._clock() >= self._valid_until:
            raise StoreBusy(
                f"The claim of this process for {self.work} was not renewed for"
                f" {VALID_SHARE * self.lease_seconds:g} s, so it writes nothing."
            )

    def renew(self) -> None:
        """Write every document anew.  Raises the store's errors."""
        with self._lock:
            for name, version in self._held.items():
                if self._lost_to is None:
                    self._held[name] = self._renew_one(name, version)

    def give_up(self) -> None:
        """Delete the documents that are still ours."""
        self.end()
        with self._lock:
            while self._held and self._lost_to is None:
                self._state.delete(*self._held.popitem())

    def drop(self) -> None:
        """Forget the documents, which expire."""
        self.end()
        with self._lock:
            self._held.clear()

    def end(self) -> None:
        """Let `check_valid` fail from now on."""
        self._has_ended = True

    def _document(self, name: str) -> Document:
        body = {**self.body(), "process": process_of(os.getpid())}
        return {**self._claims[name], **self._me, "seen_at": now_iso(), "body": body}

    def _watch(self, name: str, other: VersionedDocument, *, is_patient: bool) -> None:
        """Raise AlreadyRunning where a document was written since it was first seen."""
        lease, first = other.document, self._first_reads.get(name)
        if first is not None and first[0].version != other.version:
            if not is_patient:
                raise AlreadyRunning(
                    f"{holder(lease)} is {self.work}, since {lease['since']}: stop that one, or"
                    f" wait for its end. If it is killed, this can be run"
                    f" {lease['lease_seconds']:.0f} s later."
                )
            first = None
        elif first is None and not is_patient and not self._may_take(lease, 0.0):
            logger.warning(
                "%s was %s, seen last at %s. If it was killed, this goes on in %.0f s.",
                holder(lease), self.work, lease["seen_at"], lease["lease_seconds"],
            )  # fmt: skip
        if first is None:
            self._first_reads[name] = (other, self._clock())

    def _take(self, name: str, read: VersionedDocument | None) -> Version | None:
        """Claim a free document; None if it is held, or another process was faster."""
        if read is None:
            return self._state.create(name, self._document(name))
        if read.document["token"] == self.token:
            # We wrote it, and the answer was lost.
            return read.version
        first = self._first_reads.get(name)
        watched_seconds = 0.0 if first is None else self._clock() - first[1]
        if not self._may_take(read.document, watched_seconds):
            return None
        return self._state.replace(name, self._document(name), read.version)

    def _may_take(self, lease: Document, watched_seconds: float) -> bool:
        return (
            watched_seconds >= lease["lease_seconds"]
            or (self._trusts_clocks and not is_alive(lease))
            or lease["token"] in made_here - held_here
        )

    def _renew_one(self, name: str, version: Version) -> Version:
        mine, sent_at = self._document(name), self._clock()
        if (renewed := self._state.replace(name, mine, version)) is not None:
            self._note_sent(name, sent_at)
            return renewed
        stored = self._state.read(name)
        if stored is None:
            # Deleted by others; created unless another process claims it at this moment.
            sent_at = self._clock()
            if (created := self._state.create(name, mine)) is None:
                return version
            self._note_sent(name, sent_at)
            return created
        if stored.document["token"] != self.token:
            self._lost_to = stored.document
        return stored.version

    def _note_sent(self, name: str, sent_at: float) -> None:
        self._sent[name] = sent_at
        if self._sent.keys() >= self._claims.keys():
            self._valid_until = min(self._sent.values()) + VALID_SHARE * self.lease_seconds
