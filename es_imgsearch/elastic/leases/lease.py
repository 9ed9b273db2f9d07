"""Hold a claim: renew it from a thread of its own until it is released."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Self

from es_imgsearch.elastic.leases.claim import Claim
from es_imgsearch.elastic.leases.holders import held_here
from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.elastic.state import Document, State
from es_imgsearch.errors import ImgSearchError, StoreDenied

logger = logging.getLogger(__name__)

LEASE_SECONDS = 20.0
_RENEWALS = 4
_POLLS = 40
# How long a missing answer may delay the end of the process.
_RELEASE_SECONDS = 5.0


class Lease:
    """A `Claim` with a thread that renews it.

    `renewed` is called after each renewal, from that thread; the other parameters are those of
    `Claim`.
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
        trusts_clocks: bool = True,
    ) -> None:
        self._claim = Claim(
            state,
            claims,
            host,
            work,
            lease_seconds=lease_seconds,
            body=body,
            trusts_clocks=trusts_clocks,
        )
        self._renewed = renewed
        self._news = threading.Event()
        self._ending = threading.Event()
        self._is_denied = False
        self._thread = threading.Thread(target=self._renew_loop, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self.acquire(threading.Event())
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self.join(_RELEASE_SECONDS)

    def acquire(
        self, stopping: threading.Event, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        """Claim all documents; wait until the leases of a killed process have expired.

        `meanwhile` is called while it waits.  May be called again after a transient error.  Raises
        AlreadyRunning if another process holds one of them, Stopped once `stopping` is set.
        """
        self._begin()
        try:
            self._claim.forget_reads()
            while not self._claim.step():
                meanwhile()
                stopping.wait(self._claim.lease_seconds / _POLLS)
                if stopping.is_set():
                    raise Stopped
            if stopping.is_set():
                raise Stopped
        except BaseException as error:
            if not (isinstance(error, ImgSearchError) and error.transient):
                self.release()
            raise

    def try_acquire(self) -> bool:
        """Claim all documents if they are free by now, without waiting; see `Claim.step`.

        Other holders are watched from one call to the next.
        """
        self._begin()
        return self._claim.step(is_patient=True)

    def watch(self) -> None:
        """Watch other holders, as `try_acquire` does, without claiming anything."""
        self._claim.step(is_patient=True, takes=False)

    def tell(self, body: Callable[[], Mapping[str, Any]], renewed: Callable[[], None]) -> None:
        """Store what another `body` returns from now on, and call this after each renewal."""
        self._claim.body, self._renewed = body, renewed
        self.renew_soon()

    def renew_soon(self) -> None:
        """Have the thread renew now instead of when it is due."""
        self._news.set()

    def check(self) -> None:
        """Raise AlreadyRunning once another process has taken over."""
        self._claim.check()

    def check_valid(self) -> None:
        """Raise unless no other process can have taken over, see `Claim.check_valid`."""
        self._claim.check_valid()

    def confirm(self) -> None:
        """Renew now; raise AlreadyRunning if another process has taken over."""
        self._claim.renew()
        self._claim.check()

    def release(self) -> None:
        """Begin to delete the documents, so that a waiting process gets them."""
        held_here.discard(self._claim.token)
        self._claim.end()
        self._ending.set()
        self._news.set()

    def leave(self) -> None:
        """End without deleting the documents, as a killed process does."""
        self._claim.drop()
        self.release()

    def join(self, seconds: float) -> None:
        """Wait until the documents are deleted, at most so long; otherwise they expire."""
        if self._thread.ident:
            self._thread.join(seconds)

    def _begin(self) -> None:
        held_here.add(self._claim.token)
        if not self._thread.ident:
            # Before the first claim, which would expire during the wait for the others.
            self._thread.start()

    def _renew_loop(self) -> None:
        while not self._ending.is_set():
            self._attempt(self._claim.renew)
            self._attempt(self._renewed)
            self._news.wait(self._claim.lease_seconds / _RENEWALS)
            self._news.clear()
        self._attempt(self._renewed)
        self._attempt(self._claim.give_up)

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except StoreDenied as error:
            # Nobody sees it otherwise: the next daemon waits until the claim has expired.
            if not self._is_denied:
                logger.warning("The claim on %s cannot be written: %s", self._claim.work, error)
            self._is_denied = True
        except ImgSearchError as error:
            logger.debug("The claim on %s was not written: %s", self._claim.work, error)
