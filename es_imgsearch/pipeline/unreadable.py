"""Decide what becomes of a file that cannot be read, and when it is tried again.

    the file is            its error                          what happens
    not in the index       any                                a failure document
    in the index           permission, I/O, timeout           its document stays
    in the index           crash or memory, its state is      its document stays
                           that of its document
    in the index           any other                          its document is deleted, if the guard
                                                              permits, then it is read once more and
                                                              is a failure document

A file whose document stays is remembered here; a failure has `attempts` and `failed_at`.  By these,
a comparison tries again what was an error of the environment, waiting longer each time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from es_imgsearch.elastic.listings import IndexedFile
from es_imgsearch.pipeline.queues import BoundedCache
from es_imgsearch.records import FileSignature, FileState

# Errors that say nothing about the file's content.
UNKNOWN_CLASSES: Final = frozenset({"permission_denied", "io_error", "timeout"})
# Errors that may be of the environment: of a machine that is short of memory, for example.
ENVIRONMENT_CLASSES: Final = UNKNOWN_CLASSES | {"out_of_memory", "crashed"}

_FIRST_WAIT_SECONDS: Final = 300.0
_LONGEST_WAIT_SECONDS: Final = 86_400.0
_MOST_FILES: Final = 200_000


def wait_seconds(attempts: int) -> float:
    """Return how long to wait after so many attempts: 5 minutes, doubled up to a day."""
    return min(_FIRST_WAIT_SECONDS * 2.0 ** min(attempts - 1, 30), _LONGEST_WAIT_SECONDS)


def keeps_document(error_class: str, state: FileState, stored: FileState) -> bool:
    """Return True if a stored file with this error may be as its document says."""
    if error_class in UNKNOWN_CLASSES:
        return True
    return error_class in ENVIRONMENT_CLASSES and state == stored


def with_retries(failures: Iterable[Mapping[str, Any]], now: float) -> Iterator[IndexedFile]:
    """List failures for a comparison at `now` (`time.time()`).

    One that is due again has the state of no file.  One of the environment carries the time of its
    failure: a later ctime of its file, as by `chmod`, has it read again.
    """
    for failure in failures:
        state, failed_at_ns = FileState.stored(failure), None
        if failure.get("error_class") in ENVIRONMENT_CLASSES and "failed_at" in failure:
            failed_at = _timestamp(failure["failed_at"])
            failed_at_ns = round(failed_at * 1e9)
            # A clock that was set back must not delay it.
            if not failed_at <= now < failed_at + wait_seconds(failure.get("attempts", 1)):
                state = FileState.stored({})
        yield IndexedFile(failure["relative_path"], state, failed_at_ns=failed_at_ns)


def _timestamp(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class _Unreadable(NamedTuple):
    signature: FileSignature
    attempts: int
    retry_at: float
    root: str


class UnreadableFiles:
    """Stored files that could not be read, by id.  Not thread-safe.

    `broken` are those that are no pictures any more; the guard decides on their documents.
    """

    def __init__(self) -> None:
        self._files: BoundedCache[_Unreadable] = BoundedCache(_MOST_FILES)
        self._broken: BoundedCache[FileState] = BoundedCache(_MOST_FILES)

    def put(self, image_id: str, root_name: str, signature: FileSignature) -> None:
        """Note a try that failed; `waits` is True for the file until the next is due."""
        before = self._files.get(image_id)
        is_same = before is not None and before.signature == signature
        attempts = before.attempts + 1 if before is not None and is_same else 1
        retry_at = time.monotonic() + wait_seconds(attempts)
        self._files.put(image_id, _Unreadable(signature, attempts, retry_at, root_name))

    def waits(self, image_id: str, signature: FileSignature) -> bool:
        """Return True if a comparison need not try this file yet."""
        found = self._files.get(image_id)
        return (
            found is not None and found.signature == signature and time.monotonic() < found.retry_at
        )

    def count(self, root_name: str) -> int:
        """Count the files of a root that could not be read at their last try."""
        return sum(each.root == root_name for each in self._files.snapshot().values())

    def put_broken(self, image_id: str, state: FileState) -> None:
        self._files.forget(image_id)
        self._broken.put(image_id, state)

    def broken(self) -> dict[str, FileState]:
        return self._broken.snapshot()

    def is_broken(self, image_id: str, state: FileState) -> bool:
        return self._broken.get(image_id) == state

    def forget(self, image_id: str) -> None:
        self._files.forget(image_id)
        self._broken.forget(image_id)
