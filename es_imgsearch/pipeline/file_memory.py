"""Remember something of many files in little memory.

Files that are no pictures leave no document, so a comparison of folder and index finds them new
every time: each that is not remembered is read again.  Many are sidecars.  A process starts with an
empty memory: `sync` reads them once a run, at 0.6 ms per file (40 s for 60,000), where pictures are
not read at all.
"""

from __future__ import annotations

import hashlib
import time
from typing import NamedTuple

from es_imgsearch.pipeline.queues import BoundedCache
from es_imgsearch.records import FileSignature, FileState
from es_imgsearch.write.unreadable import wait_seconds

# 113 bytes per file (tests/unit/pipeline/test_file_memory.py measures it).
REMEMBERED_FILES = 1_000_000

# CPython stores integers up to 60 bits in 32 bytes, longer ones in 48.
_HASH_BYTES, _UNUSED_BITS = 8, 4


class FileMemory:
    """An integer for each of at most `limit` files, by the file's id or path.

    Those that the last comparisons have not met are dropped first.  Files beyond the limit are not
    remembered: comparisons meet all files in the same order, so dropping the least recently met
    would have every one of them read again.  Not thread-safe.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # By a hash of the file's id: met since the last round, and not yet since then.
        self._met: dict[int, int] = {}
        self._unmet: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._met) + len(self._unmet)

    def get(self, file: str) -> int | None:
        """Return the integer of a file, which counts as met; None if it is not remembered."""
        key = _hash(file)
        if (unmet := self._unmet.pop(key, None)) is not None:
            self._met[key] = unmet
        return self._met.get(key)

    def put(self, file: str, value: int) -> None:
        """Remember a file, unless the limit is reached; a value takes up to 60 bits."""
        key = _hash(file)
        self._unmet.pop(key, None)
        if key in self._met or len(self) < self._limit:
            self._met[key] = value

    def forget(self, file: str) -> None:
        key = _hash(file)
        self._met.pop(key, None)
        self._unmet.pop(key, None)

    def end_round(self) -> None:
        """Every root was compared: drop the files not met since the last call."""
        self._unmet, self._met = self._met, {}


def state_hash(state: FileState) -> int:
    """Return a hash of 60 bits."""
    return _hash(repr(tuple(state)))


def _hash(text: str) -> int:
    # Names that are not UTF-8 contain surrogates.
    data = text.encode(errors="surrogateescape")
    digest = hashlib.blake2b(data, digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest) >> _UNUSED_BITS


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
