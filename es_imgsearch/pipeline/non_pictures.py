"""Remember the files that are no pictures, in the state in which they were read.

They leave no document, so a comparison of folder and index finds them new every time: each that is
not remembered is read again.  Many are sidecars.  A process starts with an empty memory: `sync`
reads them once a run, at 0.6 ms per file (40 s for 60,000), where pictures are not read at all.
"""

from __future__ import annotations

import hashlib

from es_imgsearch.records import FileState

# 113 bytes per file (tests/unit/pipeline/test_non_pictures.py measures it).
NON_PICTURES = 1_000_000

# Two hashes of 60 bits take the place of path and state.  A picture is mistaken for a non-picture
# if both coincide.  CPython stores integers up to 60 bits in 32 bytes, longer ones in 48.
_HASH_BYTES, _UNUSED_BITS = 8, 4


class NonPictures:
    """A set of files, of at most `limit`.

    Those that the last comparisons have not met are dropped first.  Files beyond the limit are not
    remembered: comparisons meet all files in the same order, so dropping the least recently met
    would have every one of them read again.  Not thread-safe.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Hash of the state by hash of the id: met since the last round, and not yet since then.
        self._met: dict[int, int] = {}
        self._unmet: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._met) + len(self._unmet)

    def __contains__(self, file: tuple[str, FileState]) -> bool:
        """Return True if the file is no picture in this state; it counts as met."""
        key = _hash(file[0])
        if (unmet := self._unmet.pop(key, None)) is not None:
            self._met[key] = unmet
        return self._met.get(key) == _hash(repr(tuple(file[1])))

    def put(self, image_id: str, state: FileState) -> None:
        """Remember a file, unless the limit is reached."""
        key = _hash(image_id)
        self._unmet.pop(key, None)
        if key in self._met or len(self) < self._limit:
            self._met[key] = _hash(repr(tuple(state)))

    def forget(self, image_id: str) -> None:
        key = _hash(image_id)
        self._met.pop(key, None)
        self._unmet.pop(key, None)

    def end_round(self) -> None:
        """Drop the files that were not met since the last call; every root was compared."""
        self._unmet, self._met = self._met, {}


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest) >> _UNUSED_BITS
