"""Carry over fields that nothing computes: those of `import` and `rewrite`.

A document is written whole, so what no describer or encoder gives would be lost at the first
`chmod`.  It stays with its content: it is taken from the document of the same path, or of the same
content at another path (a moved file), even if that has just been deleted or replaced (see
`field_memory`), and goes when the content changes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import NamedTuple

from es_imgsearch.describe.dates import TAKEN_MAPPING
from es_imgsearch.describe.fields import has_failed
from es_imgsearch.describe.registry import (
    describer_names,
    foreign_describers,
    is_by_vector,
    is_on_request,
    load_describers,
)
from es_imgsearch.describe.sidecar import OF_SIDECARS, SIDECAR_ID, Sidecar
from es_imgsearch.elastic.documents import DocumentVersion
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import SettingsError
from es_imgsearch.records import Change, Embedded, FileState, Picture, Root, disk_path
from es_imgsearch.watch.presence import Presence, RootFiles
from es_imgsearch.watch.sources.opened import status_at
from es_imgsearch.write.field_memory import OF_THE_FILE, Copy, Document, FieldMemory


class Carried(NamedTuple):
    """Fields that a document keeps, and the version that it has to replace for that.

    `moved_from` is the path in the root at which its file was before, if it was moved.
    """

    fields: Document
    version: DocumentVersion | None
    moved_from: str | None = None


class EmbeddedPicture(NamedTuple):
    """A picture with its vector, which was stored before if `is_reused`."""

    change: Change
    picture: Picture
    embedded: Embedded
    is_reused: bool


class CarriedFields:
    """Look up the fields that documents keep when they are written again."""

    def __init__(
        self,
        store: Store,
        describers: Sequence[str],
        *,
        files: Callable[[Root], RootFiles],
        memory: FieldMemory,
        outage: Outage,
        stopping: threading.Event,
    ) -> None:
        """`describers` are the names of those that run."""
        self._store = store
        self._files = files
        self._memory = memory
        self._outage = outage
        self._stopping = stopping
        foreign = foreign_describers()
        # Describers of the file's bytes alone give the same again; what they do not give, such as
        # an imported title, came from elsewhere.
        self._recomputed = {
            each.name: each.mapping.keys()
            for each in load_describers(describers)
            if is_by_vector(each) or each.name in foreign
        }
        self._switched_off = _fields_of(set(describer_names()).difference(describers))
        self._sidecar = Sidecar.mapping.keys() if Sidecar.name in describers else set()

    def of(self, results: Sequence[EmbeddedPicture]) -> list[Carried]:
        """Return the fields that each picture's document keeps.  Raises Stopped.

        Of a document of the same path they come with its version, so that a change of it since
        then is not lost.
        """
        if not results:
            return []
        return persist(lambda: self._look_up(results), self._stopping, self._outage)

    def _look_up(self, results: Sequence[EmbeddedPicture]) -> list[Carried]:
        stored = self._store.documents.sources([each.change.image_id for each in results])
        before: list[Document | None] = []
        for each in results:
            found = stored.get(each.change.image_id)
            document = None if found is None else found.source
            content_id = each.picture.content_id
            # An imported document may lack its content_id.
            is_same = document is not None and document.get("content_id", content_id) == content_id
            before.append(document if is_same else None)
            if document is not None and not is_same:
                # Its file may have been moved to a path that is read later.
                self._memory.put_gone([document])
        # The vector of a moved file is a stored one.  It may have replaced an equal file.
        moved = {
            each.picture.content_id
            for each, document in zip(results, before, strict=True)
            if document is not None or each.is_reused
        }
        others: dict[str, list[Document]] = {}
        for document in self._store.documents.sources_by_content(sorted(moved)):
            others.setdefault(document["content_id"], []).append(document)
        if any(
            document is None or FileState.stored(document) != each.picture.state
            for each, document in zip(results, before, strict=True)
        ):
            self._memory.load()
        moves = _Moves(self._files)
        carried, copies = [], list[Copy]()
        for each, document in zip(results, before, strict=True):
            content_id = each.picture.content_id
            candidates = others.get(content_id, ())
            # Of its own path a document may be without the fields that are copied to it now.
            ids = {other["image_id"] for other in candidates} - {each.change.image_id}
            gone = self._memory.gone(content_id, ids)
            version, moved_from, is_replaced = None, None, True
            if document is None:
                origin, moved_from = moves.origin(each.change, candidates, gone)
            else:
                version = stored[each.change.image_id].version
                is_replaced = FileState.stored(document) != each.picture.state
                if gone is not None and is_replaced:
                    candidates = [*candidates, gone]
                origin = moves.replacement(each.change, each.picture.state, candidates, gone)
            if origin is not None:
                has_moved = document is not None or moved_from is not None or origin is gone
                copies.append(Copy(origin, each.change.image_id, has_moved))
            own, given = self._kept(each, document), self._kept(each, origin)
            # After a `chmod` of a file that was moved before, its own fields are the later ones.
            fields = {**own, **given} if is_replaced else {**given, **own}
            carried.append(Carried(fields, version, moved_from))
        self._memory.put_copied(copies)
        return carried

    def _kept(self, result: EmbeddedPicture, document: Document | None) -> Document:
        if document is None:
            return {}
        described = result.picture.fields_by_source
        given = result.picture.fields.keys() | result.embedded.fields.keys()
        computed = OF_THE_FILE | self._switched_off | given
        for name, fields in self._recomputed.items():
            # What a describer gave before is the best there is when it fails.
            if not has_failed(described.get(name, {})):
                computed |= fields
        taken_from = document.get("taken_from")
        if SIDECAR_ID in document and not has_failed(described.get(Sidecar.name, {})):
            computed |= self._sidecar - TAKEN_MAPPING.keys()
            if taken_from in OF_SIDECARS:
                computed |= TAKEN_MAPPING.keys()
        if taken_from == "name":
            # Another name has another date, or none.
            computed |= TAKEN_MAPPING.keys()
        kept = {name: value for name, value in document.items() if name not in computed}
        if result.picture.fields.get("taken_from") == "name" and "taken_at" in document:
            # A date that was imported is more than a guess.
            kept |= _imported_date(document)
        return kept


def _imported_date(document: Document) -> Document:
    taken = {name: document[name] for name in TAKEN_MAPPING if name in document}
    # Documents of earlier versions do not say where it is from.
    return taken if taken.setdefault("taken_from", "import") == "import" else {}


def _fields_of(names: Iterable[str]) -> set[str]:
    """Return the fields of describers; none of one that cannot be loaded.

    Nor of one that runs on request: `describe` may have given them since this process began.
    """
    fields: set[str] = set()
    for name in names:
        with suppress(SettingsError):
            for describer in load_describers([name]):
                if not is_on_request(describer):
                    fields |= describer.mapping.keys()
    return fields


class _Moves:
    """Find the documents of moved files, for one batch."""

    def __init__(self, files: Callable[[Root], RootFiles]) -> None:
        self._files = files
        self._of_roots: dict[Root, RootFiles] = {}

    def origin(
        self, change: Change, candidates: Sequence[Document], gone: Document | None
    ) -> tuple[Document | None, str | None]:
        """Choose, among documents of one content, the one whose file was moved to a path.

        `gone` is one that was deleted or replaced before, if there is one.  Returns the path in the
        root as well from which the file has left.
        """
        if gone is not None:
            candidates = [*candidates, gone]

        def likeness(document: Document) -> tuple[bool, bool, int]:
            path = disk_path(document["relative_path"])
            has_left = document is gone or self._has_left(change.root, document, path)
            is_namesake = os.path.basename(path) == os.path.basename(change.relative_path)
            return has_left, is_namesake, len(document.keys() - OF_THE_FILE)

        by_likeness = [(likeness(each), each) for each in candidates]
        if not by_likeness:
            return None, None
        (has_left, *_), origin = max(by_likeness, key=itemgetter(0))
        path = disk_path(origin["relative_path"])
        is_move = has_left and origin["root"] == change.root.name and path != change.relative_path
        return origin, path if is_move else None

    def replacement(
        self,
        change: Change,
        state: FileState,
        candidates: Sequence[Document],
        gone: Document | None,
    ) -> Document | None:
        """Choose the document of an equal file, of this state, moved over a path.

        `gone`, if it is one of them, was deleted or replaced before.
        """
        moved = [
            each
            for each in candidates
            if each["image_id"] != change.image_id
            and FileState.stored(each) == state
            and (
                each is gone or self._has_left(change.root, each, disk_path(each["relative_path"]))
            )
        ]
        return max(moved, key=lambda each: len(each.keys() - OF_THE_FILE), default=None)

    def _has_left(self, root: Root, document: Document, path: str) -> bool:
        """Return True if a document's file is known to be gone, or is another one now."""
        if document["root"] != root.name:
            return False
        if root not in self._of_roots:
            self._of_roots[root] = self._files(root)
        presence = self._of_roots[root].presence(path)
        if presence is not Presence.PRESENT:
            # What is on a file system that is not mounted has not left.
            return presence is Presence.GONE
        with suppress(OSError):
            state = FileState.of(status_at(root.absolute(path)))
            return state != FileState.stored(document)
        return False
