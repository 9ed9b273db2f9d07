"""Files beside pictures that changed: which documents no longer say what they say.

Such a file changes nothing of its picture's size and modification time, by which folders and index
are compared.  So a document holds a hash of what was beside its picture (`sidecar_id`), and is
held against what is there now whenever such a file comes, changes or goes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import islice

from es_imgsearch.describe.sidecar import (
    SIDECAR_ID,
    Sidecar,
    is_sidecar,
    pictures_of,
    sidecar_fields,
)
from es_imgsearch.recent import Recent
from es_imgsearch.records import Change, FileState, Root, disk_path
from es_imgsearch.store import Store

_AT_ONCE = 500
_RECENT_FILES = 200_000


class Sidecars:
    """Such files as they are noted; `outdated` says of which pictures the document is so.

    Thread-safe, but for `outdated`, which one thread calls.  Where the describer `sidecar` does not
    run (`describers` names those that do) every file is somebody else's.
    """

    def __init__(self, store: Store, describers: Sequence[str]) -> None:
        self._store = store
        self._runs = Sidecar.name in describers
        self._lock = threading.Lock()
        # With the ticket of the pipeline's by which what was read before is acknowledged.
        self._noted: dict[tuple[Root, str], int] = {}
        self._seen: Recent[FileState] = Recent(_RECENT_FILES)

    def __bool__(self) -> bool:
        return bool(self._noted)

    def note(self, root: Root, relative_path: str, ticket: int) -> None:
        """A file came, changed or went; one that is named otherwise changes nothing here."""
        if self._runs and is_sidecar(os.path.basename(relative_path)):
            self._note(root, relative_path, ticket)

    def note_seen(self, root: Root, relative_path: str, state: FileState, ticket: int) -> None:
        """The same of a file that a comparison met in this state; again only in another."""
        if not is_sidecar(os.path.basename(relative_path)):
            return
        key = f"{root.name}/{relative_path}"
        if self._seen.get(key) != state:
            self._seen.keep(key, state)
            self.note(root, relative_path, ticket)

    def note_bereft(self, root: Root, ticket: int) -> None:
        """Pictures whose document tells of such a file while there is none any more."""
        if not self._runs:
            return
        folder, beside = None, set[str]()
        for stored in self._store.having(root.name, SIDECAR_ID):
            path = disk_path(stored)
            if os.path.dirname(path) != folder:
                folder = os.path.dirname(path)
                beside = {name for name in _names(root, folder) if is_sidecar(name)}
            name = os.path.basename(path)
            if not any(pictures_of(each, [name]) for each in beside):
                self._note(root, path, ticket)

    def _note(self, root: Root, relative_path: str, ticket: int) -> None:
        with self._lock:
            self._noted[root, relative_path] = ticket

    def outdated(self, settled: int) -> Iterator[Change]:
        """Pictures to be read again, of what was noted up to that ticket.

        What was noted is forgotten when the last of them was given.
        """
        with self._lock:
            ripe = {key: ticket for key, ticket in self._noted.items() if ticket <= settled}
        # Several files may be beside one picture.
        pictures = dict.fromkeys(picture for key in ripe for picture in _pictures(*key))
        remaining = iter(pictures)
        while chunk := list(islice(remaining, _AT_ONCE)):
            changes = [Change(root, path, time.time()) for root, path in chunk]
            stored = self._store.sidecar_ids([change.image_id for change in changes])
            for change in changes:
                # Of what has no document there is nothing to be put right.
                if change.image_id in stored and stored[change.image_id] != _now(change):
                    yield change
        with self._lock:
            for key, ticket in ripe.items():
                if self._noted.get(key) == ticket:
                    del self._noted[key]


def _pictures(root: Root, relative_path: str) -> Iterator[tuple[Root, str]]:
    folder, name = os.path.split(relative_path)
    if not is_sidecar(name):
        yield root, relative_path
        return
    for picture in pictures_of(name, _names(root, folder)):
        yield root, os.path.join(folder, picture)


def _names(root: Root, folder: str) -> list[str]:
    try:
        return os.listdir(root.absolute(folder))
    except OSError:
        return []


def _now(change: Change) -> str | None:
    try:
        fields = sidecar_fields(change.root.absolute(change.relative_path))
    except (OSError, ValueError):
        # As the describer will find, too.
        return None
    return fields.get(SIDECAR_ID)
