"""Look at folders in threads: the disk of a dead share does not answer."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from es_imgsearch.watch import root_disk

T = TypeVar("T")


class DiskHangs(Exception):
    """A disk has not answered for `HANGS_AFTER_SECONDS`."""


class Look(Generic[T]):
    """A look that goes on in a thread."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._outcome: queue.SimpleQueue[tuple[T | None, BaseException | None]] = (
            queue.SimpleQueue()
        )
        threading.Thread(target=self._run, name="look", daemon=True).start()

    def result(self, deadline: float) -> T:
        """Wait for the result until `time.monotonic()` is `deadline`.

        Raises DiskHangs, and what the call raised.
        """
        try:
            found, error = self._outcome.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise DiskHangs from None
        if error is not None:
            raise error
        return found  # type: ignore[return-value]

    def _run(self) -> None:
        try:
            self._outcome.put((self._call(), None))
        except BaseException as error:  # noqa: BLE001 - raised by `result`
            self._outcome.put((None, error))


class Looks:
    """Looks by what they look at; those that hang are not waited for again."""

    def __init__(self) -> None:
        self._hanging: dict[str, Look[object]] = {}

    def at(self, calls: Mapping[str, Callable[[], T]]) -> dict[str, T | None]:
        """Look at several at once; None for each whose disk hangs.  Raises as the calls."""
        looks = {what: Look(call) for what, call in calls.items() if not self._hangs(what)}
        deadline = time.monotonic() + root_disk.HANGS_AFTER_SECONDS
        found: dict[str, T | None] = dict.fromkeys(calls)
        for what, look in looks.items():
            try:
                found[what] = look.result(deadline)
            except DiskHangs:
                self._hanging[what] = look  # type: ignore[assignment]
        return found

    def join(self, what: str, other: str) -> None:
        """Have a look at `other` not waited for either while that at `what` hangs."""
        self._hanging[other] = self._hanging[what]

    def _hangs(self, what: str) -> bool:
        look = self._hanging.pop(what, None)
        if look is None:
            return False
        try:
            look.result(0.0)
        except DiskHangs:
            self._hanging[what] = look
            return True
        except Exception:  # noqa: BLE001 - the next look raises it again
            return False
        return False


LOOKS = Looks()


def found_at(path: str, call: Callable[[], T], otherwise: T) -> T:
    """Return what a call finds at a path, `otherwise` if its disk hangs."""
    found = LOOKS.at({path: call})[path]
    return otherwise if found is None else found
