"""Compare a folder with the index by merging two sorted streams.

Memory is one folder's names and one page of the index, however many files there are.  Both
streams are sorted by the stored path; its UTF-8 bytes and Python's strings sort alike.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice
from operator import itemgetter

from es_imgsearch.elastic.listings import IndexedFile
from es_imgsearch.records import FileState, disk_path
from es_imgsearch.watch.places import FileOnDisk, Unknown, UnknownKind, is_below


class DifferenceKind(Enum):
    """How a file differs from the index; LOST: only the index has it.

    TOUCHED: its ctime alone differs, so its content may have changed.
    """

    NEW = auto()
    CHANGED = auto()
    LOST = auto()
    TOUCHED = auto()


@dataclass(frozen=True, slots=True)
class FileDifference:
    """A file to read, or a path to delete if it is LOST (then without a state)."""

    kind: DifferenceKind
    relative_path: str
    state: FileState | None = None


# So many differences are listed ahead, of 300 bytes each.
_LISTED_AHEAD = 100_000


class ListedFiles:
    """The files to read in several roots, listed before the first is read.

    So their number does not grow while they are read; in larger folders it does, and `is_whole` is
    false until all are listed.
    """

    def __init__(self, roots: int, limit: int = _LISTED_AHEAD) -> None:
        self.files = 0
        self._unlisted = roots
        self._limit = limit

    @property
    def is_whole(self) -> bool:
        """True once the files of all roots are counted."""
        return self._unlisted <= 0

    def of_root(self, found: Iterable[FileDifference]) -> Iterator[FileDifference]:
        """Yield the differences of one root, the first after all are listed."""
        counted = self._counted(found)
        ahead = deque(islice(counted, self._limit))
        while ahead:
            yield ahead.popleft()
        yield from counted

    def _counted(self, found: Iterable[FileDifference]) -> Iterator[FileDifference]:
        for each in found:
            self.files += each.state is not None
            yield each
        self._unlisted -= 1


def differences(
    disk: Iterable[FileOnDisk | Unknown],
    documents: Iterable[IndexedFile],
    failures: Iterable[IndexedFile],
    on_unknown: Callable[[Unknown], None] = lambda _unknown: None,
    *,
    compares_ctime: bool = False,
) -> Iterator[FileDifference]:
    """Yield the changes that bring the index to the state of the disk.

    A file is accounted for by a document or a failure of the same size and modification time; by
    both it is CHANGED, since no path may have both.  Only with `compares_ctime` it may be TOUCHED.
    `on_unknown` gets what is unknown; links to nothing only if something is stored of them.
    """
    known = _grouped(heapq.merge(documents, failures, key=itemgetter(0)))
    stored = next(known, None)
    unknown_below: str | None = None

    def lost_before(limit: str | None) -> Iterator[FileDifference]:
        nonlocal stored
        while stored is not None and (limit is None or stored[0] < limit):
            path = stored[0]
            stored = next(known, None)
            if unknown_below is not None and is_below(path, unknown_below):
                continue
            yield FileDifference(DifferenceKind.LOST, disk_path(path))

    for seen in disk:
        # What is below a folder comes after its siblings that sort before a slash.
        is_folder = isinstance(seen, Unknown) and seen.kind is UnknownKind.DANGLING_FOLDER
        start = f"{seen.stored_path}{'/' * is_folder}"
        yield from lost_before(start)
        if isinstance(seen, Unknown):
            is_stored = stored is not None and (
                stored[0].startswith(start) if is_folder else stored[0] == start
            )
            if is_stored or not (is_folder or seen.kind is UnknownKind.DANGLING):
                on_unknown(seen)
            # The outer one holds for what is unknown in it.
            if unknown_below is None or not is_below(seen.stored_path, unknown_below):
                unknown_below = seen.stored_path
            continue
        if stored is not None and stored[0] == seen.stored_path:
            entries = stored[1]
            stored = next(known, None)
            if (kind := _kind_of(seen, entries, compares_ctime)) is not None:
                yield FileDifference(kind, disk_path(seen.stored_path), seen.state)
        else:
            yield FileDifference(DifferenceKind.NEW, disk_path(seen.stored_path), seen.state)
    yield from lost_before(None)


def _kind_of(
    seen: FileOnDisk, entries: Sequence[IndexedFile], compares_ctime: bool
) -> DifferenceKind | None:
    """Return how a file differs from its document or failure; None if it does not."""
    stored = entries[0]
    if len(entries) > 1 or seen.state != stored.state:
        return DifferenceKind.CHANGED
    if not compares_ctime or seen.ctime_ns is None:
        return None
    if stored.failed_at_ns is not None:
        is_touched = seen.ctime_ns > stored.failed_at_ns
    else:
        is_touched = stored.ctime_ns not in {None, seen.ctime_ns}
    return DifferenceKind.TOUCHED if is_touched else None


def _grouped(merged: Iterable[IndexedFile]) -> Iterator[tuple[str, list[IndexedFile]]]:
    """Group files by path; a path in both the index and the failures has two."""
    current: tuple[str, list[IndexedFile]] | None = None
    for each in merged:
        if current is not None and current[0] == each.stored_path:
            current[1].append(each)
            continue
        if current is not None:
            yield current
        current = (each.stored_path, [each])
    if current is not None:
        yield current
