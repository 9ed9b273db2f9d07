"""Carry over fields that nothing computes: those of `import` and `rewrite`.

A document is written whole, so what no describer or encoder gives would be lost at the first
`chmod`.  It stays with its content: it is taken from the document of the same path, or of the same
content at another path (a moved file), and goes when the content changes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from es_imgsearch.describe.fields import ERRORS_FIELD, has_failed
from es_imgsearch.describe.registry import (
    describer_names,
    foreign_describers,
    is_by_vector,
    load_describers,
)
from es_imgsearch.describe.sidecar import SIDECAR_ID, Sidecar
from es_imgsearch.elastic.documents import DocumentVersion
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta_entries import CODE_FIELD
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import SettingsError
from es_imgsearch.records import REGIONS_FIELD, Change, Embedded, Picture, disk_path

# Fields of the file and of its write; `picture_document` gives them anew.
_OF_THE_FILE: Final = frozenset({
    "image_id", "image_name", "root", "relative_path", "folder", "content_id", "size_bytes",
    "mtime_ns", "ctime_ns", "modified_at", "indexed_at", "ingest_lag_ms", "embed_ms",
    VECTOR_FIELD, REGIONS_FIELD, CODE_FIELD, ERRORS_FIELD,
})  # fmt: skip

Document = Mapping[str, Any]


class Carried(NamedTuple):
    """Fields that a document keeps, and the version that it has to replace for that."""

    fields: Document
    version: DocumentVersion | None


class EmbeddedPicture(NamedTuple):
    """A picture with its vector, which was stored before if `is_reused`."""

    change: Change
    picture: Picture
    embedded: Embedded
    is_reused: bool


class CarriedFields:
    """Look up the fields that documents keep when they are written again."""

    def __init__(
        self, store: Store, describers: Sequence[str], *, outage: Outage, stopping: threading.Event
    ) -> None:
        """`describers` are the names of those that run."""
        self._store = store
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
        # The vector of a moved file is a stored one.
        moved = {
            each.picture.content_id
            for each, document in zip(results, before, strict=True)
            if document is None and each.is_reused
        }
        others: dict[str, list[Document]] = {}
        for document in self._store.documents.sources_by_content(sorted(moved)):
            others.setdefault(document["content_id"], []).append(document)
        return [
            Carried(self._kept(each, document), stored[each.change.image_id].version)
            if document is not None
            else Carried(
                self._kept(each, _moved_from(each, others.get(each.picture.content_id, ()))), None
            )
            for each, document in zip(results, before, strict=True)
        ]

    def _kept(self, result: EmbeddedPicture, document: Document | None) -> Document:
        if document is None:
            return {}
        described = result.picture.fields_by_source
        given = result.picture.fields.keys() | result.embedded.fields.keys()
        computed = _OF_THE_FILE | self._switched_off | given
        for name, fields in self._recomputed.items():
            # What a describer gave before is the best there is when it fails.
            if not has_failed(described.get(name, {})):
                computed |= fields
        if SIDECAR_ID in document and not has_failed(described.get(Sidecar.name, {})):
            computed |= self._sidecar
        return {name: value for name, value in document.items() if name not in computed}


def _fields_of(names: Iterable[str]) -> set[str]:
    """Return the fields of describers; none of one that cannot be loaded."""
    fields: set[str] = set()
    for name in names:
        with suppress(SettingsError):
            for describer in load_describers([name]):
                fields |= describer.mapping.keys()
    return fields


def _moved_from(result: EmbeddedPicture, candidates: Sequence[Document]) -> Document | None:
    """Choose, of documents with its content, that of the file which was moved."""
    root, name = result.change.root, os.path.basename(result.change.relative_path)

    def likeness(document: Document) -> tuple[bool, bool]:
        path = disk_path(document["relative_path"])
        is_gone = document["root"] == root.name and not os.path.lexists(root.absolute(path))
        return is_gone, os.path.basename(path) == name

    return max(candidates, key=likeness, default=None)
