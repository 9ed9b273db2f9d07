"""Remember stored files that could not be read, and when to try them again."""

from __future__ import annotations

import time
from typing import NamedTuple

from es_imgsearch.pipeline.queues import BoundedCache
from es_imgsearch.records import FileSignature, FileState
from es_imgsearch.write.unreadable import wait_seconds

_UNREADABLE_FILES = 200_000


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
        self._files: BoundedCache[_Unreadable] = BoundedCache(_UNREADABLE_FILES)
        self._broken: BoundedCache[FileState] = BoundedCache(_UNREADABLE_FILES)

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
        return sum(each.root == root_name for each in self._files.values())

    def put_broken(self, image_id: str, state: FileState) -> None:
        self._files.forget(image_id)
        self._broken.put(image_id, state)

    def is_broken(self, image_id: str, state: FileState) -> bool:
        return self._broken.get(image_id) == state

    def forget(self, image_id: str) -> None:
        self._files.forget(image_id)
        self._broken.forget(image_id)
