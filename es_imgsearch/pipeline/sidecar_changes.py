"""Files beside pictures that changed: which documents no longer say what they say.

Such a file changes nothing of its picture's size and modification time, by which folders and index
are compared.  So a document holds a hash of what was beside its picture (`sidecar_id`), or a note
of why that was not understood, and is held against what is there now whenever such a file comes,
changes or goes: by an event, or because a comparison of the folder meets other files than the one
before it.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from es_imgsearch.describe.fields import ERRORS_FIELD, failed, is_refusal, note_of
from es_imgsearch.describe.sidecar import (
    FILE_COLUMN,
    SIDECAR_ID,
    TABLE,
    Listing,
    Sidecar,
    is_sidecar,
    names_pictures,
    sidecar_fields,
)
from es_imgsearch.elastic.store import Store
from es_imgsearch.pipeline.queues import Recent
from es_imgsearch.records import Change, FileState, Root, disk_path
from es_imgsearch.watch.reconcile import is_below

logger = logging.getLogger(__name__)

_AT_ONCE = 500
_RECENT_FILES = 200_000


class _Place(NamedTuple):
    """A file beside pictures, or a picture; without a name every picture of the folder."""

    root: Root
    folder: str
    name: str


class _Told(NamedTuple):
    """What was told of the files beside a picture: their hash, or why they cannot be understood."""

    sidecar_id: str | None
    note: str | None


class _Memory:
    """What the comparisons before met."""

    def __init__(self) -> None:
        # Of every folder that has such files: the number of its last comparison, and how many.
        self.folders: dict[tuple[Root, str], tuple[int, int]] = {}
        # States of files by root and path, with the number of the comparison that met them.
        self.states: Recent[tuple[int, FileState]] = Recent(_RECENT_FILES)


class Comparison:
    """Files beside pictures as one comparison of a root, or of one of its folders, meets them."""

    def __init__(self, root: Root, folder: str, number: int, memory: _Memory) -> None:
        self.root = root
        self.folder = folder
        self._number = number
        self._memory = memory
        self._changed: list[_Place] = []
        # Of each folder, how many files it met, and how many of those the one before met.
        self._met: Counter[str] = Counter()
        self._known: Counter[str] = Counter()

    def meet(self, relative_path: str, state: FileState) -> None:
        """There is a file; one that is named otherwise changes nothing here."""
        folder, name = os.path.split(relative_path)
        if not is_sidecar(name):
            return
        last, _ = self._memory.folders.get((self.root, folder), (0, 0))
        key = f"{self.root.name}/{relative_path}"
        number, before = self._memory.states.get(key) or (-1, None)
        self._memory.states.keep(key, (self._number, state))
        self._met[folder] += 1
        if number == last:
            self._known[folder] += 1
        if number != last or before != state:
            self._changed.append(_Place(self.root, folder, name))

    def end(self) -> list[_Place]:
        """What changed since the last comparisons of these folders; the next begins with this one.

        A folder of which the memory has forgotten some files is looked at as if they were gone.
        """
        folders = self._memory.folders
        places = self._changed
        for (root, folder), (_, files) in list(folders.items()):
            if root == self.root and is_below(folder, self.folder):
                if self._known[folder] < files:
                    places.append(_Place(root, folder, ""))
                del folders[root, folder]
        for folder, files in self._met.items():
            folders[self.root, folder] = self._number, files
        return places


class Sidecars:
    """Such files as they are noted; `outdated` says of which pictures the document is so.

    `note` may be called from any thread, comparisons are made one after the other, and `outdated`
    is called from one thread.  Where the describer `sidecar` does not run (`describers` names those
    that do) every file is somebody else's.
    """

    def __init__(self, store: Store, describers: Sequence[str]) -> None:
        self._store = store
        self._runs = Sidecar.name in describers
        self._lock = threading.Lock()
        # With the ticket of the pipeline's by which what was read before is acknowledged.
        self._noted: dict[_Place, int] = {}
        self._numbers = itertools.count(1)
        self._memory = _Memory()
        self._compared_whole: set[Root] = set()
        self._tables_told: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._noted)

    def note(self, root: Root, relative_path: str, ticket: int) -> None:
        """A file came, changed or went; one that is named otherwise changes nothing here."""
        folder, name = os.path.split(relative_path)
        if self._runs and is_sidecar(name):
            self._note(_Place(root, folder, name), ticket)

    def comparison(self, root: Root, folder: str) -> Comparison:
        """Begin to compare a root, or one of its folders; `compared` ends it."""
        return Comparison(root, folder, next(self._numbers), self._memory)

    def compared(self, comparison: Comparison, ticket: int) -> None:
        """Note what it met that is new or another, and what it did not meet any more.

        The index was refreshed when it began.  Raises what the store does; the next one finds the
        same then.
        """
        if not self._runs:
            return
        root = comparison.root
        noted: list[_Place] = []
        if not comparison.folder:
            # What cannot be read now may be so an hour later, with no file changed.
            notes = self._store.listings.having(root.name, ERRORS_FIELD, prefix=f"{Sidecar.name}:")
            noted += [_Place(root, *os.path.split(disk_path(each))) for each in notes]
            if root not in self._compared_whole:
                # Only the documents tell what was there before.
                described = self._store.listings.having(root.name, SIDECAR_ID)
                folders = dict.fromkeys(os.path.dirname(disk_path(each)) for each in described)
                noted += [_Place(root, each, "") for each in folders]
                self._compared_whole.add(root)
        for place in [*noted, *comparison.end()]:
            self._note(place, ticket)

    def _note(self, place: _Place, ticket: int) -> None:
        with self._lock:
            self._noted[place] = ticket

    def outdated(self, settled: int) -> Iterator[Change]:
        """Pictures to be read again, of what was noted up to that ticket.

        What was noted is forgotten when the last of them was given.
        """
        with self._lock:
            ripe = {place: ticket for place, ticket in self._noted.items() if ticket <= settled}
        remaining = self._pictures(ripe)
        while chunk := list(islice(remaining, _AT_ONCE)):
            fields = (SIDECAR_ID, ERRORS_FIELD)
            stored = self._store.documents.stored_fields(
                [change.image_id for change in chunk], fields
            )
            for change in chunk:
                # Of what has no document there is nothing to be put right.
                document = stored.get(change.image_id)
                if document is not None and _is_outdated(_told(document), _now(change)):
                    yield change
        with self._lock:
            for place, ticket in ripe.items():
                if self._noted.get(place) == ticket:
                    del self._noted[place]

    def _pictures(self, places: Mapping[_Place, int]) -> Iterator[Change]:
        """Every picture that these may be about, once; each folder is listed once."""
        by_folder: dict[tuple[Root, str], set[str]] = {}
        for place in places:
            by_folder.setdefault((place.root, place.folder), set()).add(place.name)
        for (root, folder), noted in by_folder.items():
            listing = Listing(_names(root, folder))
            self._tell_of_table(root, folder, noted)
            if "" in noted or TABLE in noted:
                names = set(listing.pictures)
            else:
                names = noted.intersection(listing.pictures)
                names.update(*(listing.about(each) for each in noted if is_sidecar(each)))
            now = time.time()
            for name in sorted(names):
                yield Change(root, os.path.join(folder, name), now)

    def _tell_of_table(self, root: Root, folder: str, noted: set[str]) -> None:
        path = root.absolute(os.path.join(folder, TABLE))
        if not noted & {"", TABLE} or path in self._tables_told or names_pictures(path):
            return
        self._tables_told.add(path)
        logger.warning("%s names no pictures (no column %s): it is left alone.", path, FILE_COLUMN)


def _names(root: Root, folder: str) -> list[str]:
    try:
        return os.listdir(root.absolute(folder))
    except OSError:
        return []


def _told(document: Mapping[str, Any]) -> _Told:
    return _Told(document.get(SIDECAR_ID), note_of(Sidecar.name, document))


def _now(change: Change) -> _Told:
    """What a document would be told now, in the words of whoever reads the picture."""
    try:
        fields = sidecar_fields(change.root.absolute(change.relative_path))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is noted in the document
        return _told(failed(Sidecar.name, error))
    return _told(fields)


def _is_outdated(stored: _Told, now: _Told) -> bool:
    if now.note is not None:
        # What was understood before may have been kept beside the note, see `describing`.
        return stored.note != now.note
    if stored.note is not None and is_refusal(stored.note):
        return stored.sidecar_id != now.sidecar_id
    return stored != now
