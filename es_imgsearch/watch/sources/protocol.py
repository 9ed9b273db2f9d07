"""The protocol of sources: list files, look at one, open one, check the whole.

A source is an entry point of the group `es_imgsearch.sources`, named like the protocol of its URLs
(`s3`), and is made by a call with the URL.  `fsspec` is asked for every protocol that has no
source of its own.  Reading processes make sources of their own.

    sorted      `files` sorts by the UTF-8 bytes of the keys, as the index does: both are merged.
                Memory is bounded, however many keys there are.
    state       size and modification time are all that a comparison has: a source that has a
                better sign of a change (an ETag) puts it into the nanoseconds, see `change_ns`.
    errors      each method raises OSError: FileNotFoundError only for what surely is not there.
                What cannot be listed is unknown, and nothing of it is deleted.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import IO, NamedTuple, Protocol

from es_imgsearch.records import FileState, stored_ns

_SECOND_NS = 1_000_000_000


class SourceFile(NamedTuple):
    """A file of a listing: its path below the source's URL, and its state."""

    key: str
    state: FileState


class OpenedFile(NamedTuple):
    """A file that can be read and sought in, and its status when it was opened."""

    content: IO[bytes]
    status: os.stat_result


class Source(Protocol):
    """The files below a URL, or in a folder."""

    def files(self, folder: str = "") -> Iterator[SourceFile]:
        """Yield every file below a folder of it, sorted by the UTF-8 bytes of its key."""
        ...

    def status(self, key: str) -> os.stat_result:
        """Look at a file, as `os.stat` does."""
        ...

    def open(self, key: str, *, only_bytes: int = 0) -> AbstractContextManager[OpenedFile]:
        """Open a file; with `only_bytes`, only so many from its beginning are needed."""
        ...

    def check(self) -> int:
        """Raise OSError unless it is there and can be listed.

        Returns a number that differs if another one took its place, such as the device of a folder.
        """
        ...


def change_ns(seconds: float, tag: str) -> int:
    """Return modification time and tag (an ETag) of a file as nanoseconds.

    The seconds are those of the file, and the nanoseconds below are 30 bits of the tag's hash: S3
    gives whole seconds, within which a key may be written twice with the same size.
    """
    digest = hashlib.blake2b(tag.encode(errors="replace"), digest_size=8).digest()
    below = int.from_bytes(digest, "big") % _SECOND_NS if tag else 0
    return stored_ns(int(seconds) * _SECOND_NS + below)


def status_of(state: FileState) -> os.stat_result:
    """Return the status of a regular file of this state, as of `os.stat`."""
    seconds = state.mtime_ns // _SECOND_NS
    return os.stat_result(
        (stat.S_IFREG | 0o444, 0, 0, 1, 0, 0, state.size_bytes, seconds, seconds, seconds),
        {"st_mtime_ns": state.mtime_ns, "st_ctime_ns": state.mtime_ns},
    )
