"""Files beside pictures that changed: which documents no longer say what they say.

Such a file changes nothing of its picture's size and modification time, by which folders and index
are compared.  So a document holds a hash of what was beside its picture (`sidecar_id`), or a note
of why that was not understood, and is held against what is there now whenever such a file comes,
changes or goes: by an event, or because a comparison meets other files in the folder than the one
before.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

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
from es_imgsearch.described import ERRORS_FIELD, failed, note_of
from es_imgsearch.reconcile import is_below
from es_imgsearch.records import Change, FileState, Root, disk_path
from es_imgsearch.store import Store

logger = logging.getLogger(__name__)

_AT_ONCE = 500


class Met:
    """The files beside pictures that one comparison meets; `digests` tell folders' states apart."""

    def __init__(self) -> None:
        self.digests: dict[str, int] = {}

    def add(self, relative_path: str, state: FileState) -> None:
        """A file, in the order of the names in its folder; one that is named otherwise is not."""
        folder, name = os.path.split(relative_path)
        if is_sidecar(name):
            self.digests[folder] = hash((self.digests.get(folder), name, state))


class _Place(NamedTuple):
    """A file beside pictures, or a picture; without a name every picture of the folder."""

    root: Root
    folder: str
    name: str


class _Told(NamedTuple):
    """What was told of the files beside a picture: their hash, or why they cannot be understood."""

    sidecar_id: str | None
    note: str | None


class Sidecars:
    """Such files as they are noted; `outdated` says of which pictures the document is so.

    `note` may be called from any thread, `compared` from one and `outdated` from one.  Where the
    describer `sidecar` does not run (`describers` names those that do) every file is somebody
    else's.
    """

    def __init__(self, store: Store, describers: Sequence[str]) -> None:
        self._store = store
        self._runs = Sidecar.name in describers
        self._lock = threading.Lock()
        # With the ticket of the pipeline's by which what was read before is acknowledged.
        self._noted: dict[_Place, int] = {}
        # Of every folder that has such files, by root: their digest at the last comparison.
        self._digests: dict[str, dict[str, int]] = {}
        self._tables_told: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._noted)

    def note(self, root: Root, relative_path: str, ticket: int) -> None:
        """A file came, changed or went; one that is named otherwise changes nothing here."""
        folder, name = os.path.split(relative_path)
        if self._runs and is_sidecar(name):
            self._note(_Place(root, folder, name), ticket)

    def compared(self, root: Root, folder: str, met: Met, ticket: int) -> None:
        """A root, or one of its folders, was compared with the index, which was refreshed before.

        Raises what the store does, and then has noted nothing.
        """
        if not self._runs:
            return
        noted: list[_Place] = []
        if not folder:
            # What cannot be read now may be so an hour later, with no file changed.
            notes = self._store.having(root.name, ERRORS_FIELD, prefix=f"{Sidecar.name}:")
            noted += [_Place(root, *os.path.split(disk_path(each))) for each in notes]
            if root.name not in self._digests:
                # Nobody knows what was there before but the documents.
                described = self._store.having(root.name, SIDECAR_ID)
                folders = dict.fromkeys(os.path.dirname(disk_path(each)) for each in described)
                noted += [_Place(root, each, "") for each in folders]
        before = self._digests.get(root.name, {})
        inside = {each for each in before if is_below(each, folder)}
        noted += [
            _Place(root, each, "")
            for each in inside | met.digests.keys()
            if before.get(each) != met.digests.get(each)
        ]
        outside = {each: digest for each, digest in before.items() if each not in inside}
        if not folder or root.name in self._digests:
            self._digests[root.name] = outside | met.digests
        for place in noted:
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
            stored = self._store.stored_fields([change.image_id for change in chunk], fields)
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
    return stored != now
