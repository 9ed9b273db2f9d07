"""Find pictures whose sidecar files changed since their documents were written.

A changed sidecar leaves its picture's size and modification time as they are, by which folders
and index are compared.  So a document stores a hash of its picture's sidecars (`sidecar_id`), or
a note why they could not be parsed.  It is checked against the files whenever a sidecar is added,
changed or removed: after an event, or if a comparison of the folder lists other sidecars than the
comparison before it.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from es_imgsearch.describe.fields import failed, is_refusal, note_of
from es_imgsearch.describe.fitting import ERRORS_FIELD
from es_imgsearch.describe.sidecar import SIDECAR_ID, Sidecar, sidecar_fields
from es_imgsearch.describe.sidecars.names import TABLE, Listing, is_sidecar, is_table
from es_imgsearch.describe.sidecars.table import FILE_COLUMN, named_pictures, row_key
from es_imgsearch.elastic.store import Store
from es_imgsearch.pipeline.file_memory import REMEMBERED_FILES, FileMemory, state_hash
from es_imgsearch.records import Change, FileState, Root, disk_path, stored_path
from es_imgsearch.watch.places import is_below
from es_imgsearch.watch.reconcile import FileDifference

logger = logging.getLogger(__name__)

_AT_ONCE = 500
_STATE_BITS = 40


# Instead of a name: all pictures of the folder; an empty name means those below it, too.
_OF_FOLDER = "."


def concerns(root: Root, relative_path: str) -> bool:
    """Return True for a file of the root's partition, or a sidecar of any."""
    return root.holds(relative_path) or is_sidecar(os.path.basename(relative_path))


class _Place(NamedTuple):
    """A sidecar or a picture; an empty name: all pictures of the folder and below."""

    root: Root
    folder: str
    name: str


class _SidecarState(NamedTuple):
    """The hash of a picture's sidecars, or a note why they cannot be parsed."""

    sidecar_id: str | None
    note: str | None


class _ComparisonHistory:
    """The sidecars that earlier comparisons of a root listed."""

    def __init__(self) -> None:
        # Of every folder with sidecars: the number of its last comparison, and of its sidecars.
        self.folders: dict[tuple[Root, str], tuple[int, int]] = {}
        self._states = FileMemory(REMEMBERED_FILES)

    def put(self, file: str, number: int, state: FileState) -> tuple[int, bool]:
        """Remember a sidecar and the comparison that lists it.

        Returns the number of the comparison that listed it before, -1 for none, and whether the
        state is the same.
        """
        stored = self._states.get(file)
        hashed = state_hash(state) % 2**_STATE_BITS
        self._states.put(file, number << _STATE_BITS | hashed)
        if stored is None:
            return -1, False
        return stored >> _STATE_BITS, stored % 2**_STATE_BITS == hashed

    def end_round(self) -> None:
        """The root was compared: forget its sidecars not listed since the last call."""
        self._states.end_round()


class SidecarComparison:
    """The sidecars that one comparison of a root, or of one of its folders, lists."""

    def __init__(self, root: Root, folder: str, number: int, history: _ComparisonHistory) -> None:
        self.root = root
        self.folder = folder
        self._number = number
        self._history = history
        self._changed: list[_Place] = []
        # Of each folder, the number of sidecars, and of those that the last comparison listed too.
        self._listed: Counter[str] = Counter()
        self._known: Counter[str] = Counter()

    def passed(self, differences: Iterable[FileDifference]) -> Iterator[FileDifference]:
        """Add the files; yield those of the root's partition, to index or to delete."""
        for each in differences:
            if each.state is not None:
                self.add_file(each.relative_path, each.state)
            if self.root.holds(each.relative_path):
                yield each

    def add_file(self, relative_path: str, state: FileState) -> None:
        """Add a file of the listing; ignored if it is no sidecar."""
        folder, name = os.path.split(relative_path)
        if not is_sidecar(name):
            return
        last, _ = self._history.folders.get((self.root, folder), (0, 0))
        file = f"{self.root.name}/{relative_path}"
        number, is_same = self._history.put(file, self._number, state)
        self._listed[folder] += 1
        if number == last:
            self._known[folder] += 1
        if number != last or not is_same:
            self._changed.append(_Place(self.root, folder, name))

    def end(self) -> list[_Place]:
        """Return the sidecars that changed since the last comparison of their folders.

        A folder with fewer known sidecars than before is returned as a whole: some were removed,
        or dropped from the history.
        """
        folders = self._history.folders
        places = self._changed
        for (root, folder), (_, files) in list(folders.items()):
            if root == self.root and is_below(folder, self.folder):
                if self._known[folder] < files:
                    places.append(_Place(root, folder, ""))
                del folders[root, folder]
        for folder, files in self._listed.items():
            folders[self.root, folder] = self._number, files
        if not self.folder:
            self._history.end_round()
        return places


class SidecarChanges:
    """Collect changed sidecars; `outdated` yields the pictures to read again.

    `record` may be called from any thread, comparisons run one after the other, and `outdated` is
    called from one thread.  Without `sidecar` among the index's `describers` nothing is recorded.
    """

    def __init__(self, store: Store, describers: Sequence[str]) -> None:
        self._store = store
        self._runs = Sidecar.name in describers
        self._lock = threading.Lock()
        # Each with the ticket of the pipeline up to which files were submitted before.
        self._changed: dict[_Place, int] = {}
        self._numbers = itertools.count(1)
        self._histories: dict[Root, _ComparisonHistory] = {}
        self._compared_whole: set[Root] = set()
        self._reported_tables: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._changed)

    def record(self, root: Root, relative_path: str, ticket: int) -> None:
        """Record that a file was added, changed or removed; ignored if it is no sidecar."""
        folder, name = os.path.split(relative_path)
        if self._runs and is_sidecar(name):
            self._record(_Place(root, folder, name), ticket)

    def begin_comparison(self, root: Root, folder: str) -> SidecarComparison:
        """Begin to compare a root, or one of its folders; ended by `end_comparison`."""
        history = self._histories.setdefault(root, _ComparisonHistory())
        return SidecarComparison(root, folder, next(self._numbers), history)

    def end_comparison(self, comparison: SidecarComparison, ticket: int) -> None:
        """Record the sidecars that are new, changed or removed since the last comparison.

        The index must have been refreshed after `begin_comparison`.  Raises the store's errors;
        the next comparison finds the same changes then.
        """
        if not self._runs:
            return
        root = comparison.root
        places: list[_Place] = []
        if not comparison.folder:
            # A sidecar that could not be read may be readable now, with its state unchanged.
            notes = self._store.listings.having(root.name, ERRORS_FIELD, prefix=f"{Sidecar.name}:")
            places += [_Place(root, *os.path.split(disk_path(each))) for each in notes]
            if root not in self._compared_whole:
                # In a new process only the documents show which sidecars there were.
                described = self._store.listings.having(root.name, SIDECAR_ID)
                folders = dict.fromkeys(os.path.dirname(disk_path(each)) for each in described)
                places += [_Place(root, each, _OF_FOLDER) for each in folders]
                self._compared_whole.add(root)
        for place in [*places, *comparison.end()]:
            self._record(place, ticket)

    def _record(self, place: _Place, ticket: int) -> None:
        with self._lock:
            self._changed[place] = ticket

    def outdated(self, settled: int) -> Iterator[Change]:
        """Yield pictures to read again, of the changes up to the ticket `settled`.

        The changes are dropped when the last picture was yielded.
        """
        with self._lock:
            due = {place: ticket for place, ticket in self._changed.items() if ticket <= settled}
        remaining = self._pictures(due)
        # A picture may be met once for its own folder and once for a table above it.
        found: set[str] = set()
        while chunk := list(islice(remaining, _AT_ONCE)):
            fields = (SIDECAR_ID, ERRORS_FIELD)
            stored = self._store.documents.stored_fields(
                [change.image_id for change, _ in chunk], fields
            )
            for change, listing in chunk:
                # A picture without a document is read anyway.
                document = stored.get(change.image_id)
                if document is None or change.image_id in found:
                    continue
                if _is_outdated(_stored_state(document), _current_state(change, listing)):
                    found.add(change.image_id)
                    yield change
        with self._lock:
            for place, ticket in due.items():
                if self._changed.get(place) == ticket:
                    del self._changed[place]

    def _pictures(self, places: Mapping[_Place, int]) -> Iterator[tuple[Change, Listing]]:
        """Yield pictures that these sidecars may describe, with their folders' listings.

        Each folder is listed once, except those below a table.
        """
        is_refreshed = False
        by_folder: dict[tuple[Root, str], set[str]] = {}
        for place in places:
            by_folder.setdefault((place.root, place.folder), set()).add(place.name)
        for (root, folder), changed in by_folder.items():
            in_folder, has_folders = _entries(root, folder)
            listing = Listing(in_folder)
            has_table = "" in changed or any(map(is_table, changed))
            names = set(changed.intersection(listing.pictures))
            if has_table or _OF_FOLDER in changed:
                names.update(listing.pictures)
            names.update(*(listing.about(each) for each in changed if is_sidecar(each)))
            now = time.time()
            for name in sorted(names):
                yield Change(root, os.path.join(folder, name), now), listing
            if not has_table:
                continue
            named = self._named_pictures(root.absolute(folder))
            if has_folders:
                if not is_refreshed:
                    # The files of these tickets were written before.
                    self._store.refresh()
                    is_refreshed = True
                yield from self._pictures_below(root, folder, named)

    def _named_pictures(self, folder: str) -> frozenset[str]:
        try:
            named = named_pictures(folder)
        except OSError:
            return frozenset()
        if named is None:
            self._warn_of_table(os.path.join(folder, TABLE))
        return frozenset(named or ())

    def _pictures_below(
        self, root: Root, folder: str, named: Collection[str]
    ) -> Iterator[tuple[Change, Listing]]:
        """Yield stored pictures of folders below a table that it names, or may have named."""
        stored_folder = stored_path(folder)
        paths = set(self._store.listings.having(root.name, SIDECAR_ID, folder=stored_folder))
        if any("/" in each for each in named):
            listed = self._store.listings.stored(root.name, stored_folder)
            below = len(stored_folder) + 1 if folder else 0
            paths.update(
                each.stored_path
                for each in listed
                if row_key(disk_path(each.stored_path[below:])) in named
            )
        by_folder: dict[str, list[str]] = {}
        for each in paths:
            parent, name = os.path.split(disk_path(each))
            if parent != folder:
                by_folder.setdefault(parent, []).append(name)
        now = time.time()
        for parent, names in sorted(by_folder.items()):
            listing = Listing(_entries(root, parent)[0])
            for name in sorted(names):
                yield Change(root, os.path.join(parent, name), now), listing

    def _warn_of_table(self, path: str) -> None:
        if path not in self._reported_tables:
            self._reported_tables.add(path)
            logger.warning(
                "%s has no column %s that names pictures: it is ignored.", path, FILE_COLUMN
            )


def _entries(root: Root, folder: str) -> tuple[list[str], bool]:
    """Return the names in a folder, and whether there may be folders among them."""
    try:
        with os.scandir(root.absolute(folder)) as entries:
            found = {each.name: each.is_symlink() or each.is_dir() for each in entries}
    except OSError:
        return [], True
    return list(found), any(found.values())


def _stored_state(document: Mapping[str, Any]) -> _SidecarState:
    return _SidecarState(document.get(SIDECAR_ID), note_of(Sidecar.name, document))


def _current_state(change: Change, listing: Listing) -> _SidecarState:
    """Return the state that a document written now would have."""
    path, tops = change.root.absolute(change.relative_path), [change.root.absolute("")]
    try:
        fields = sidecar_fields(path, listing=listing, tops=tops)
    except Exception as error:  # noqa: BLE001 - the document notes it
        return _stored_state(failed(Sidecar.name, error))
    return _stored_state(fields)


def _is_outdated(stored: _SidecarState, current: _SidecarState) -> bool:
    if current.note is not None and current.sidecar_id is None:
        # Nothing could be read.  The document may have its earlier sidecar_id next to the note.
        return stored.note != current.note
    if stored.note is not None and is_refusal(stored.note):
        return stored.sidecar_id != current.sidecar_id
    return stored != current
