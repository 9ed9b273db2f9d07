"""Remember the fields of documents that were deleted, replaced or copied.

A file may be moved to where no event tells of it, so that its old document is deleted before the
new path is found; or another file may take its old path first.  And a document may be rewritten
after its fields were copied to that of the new path.  In the memory of a process: one that is
killed in between loses them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from es_imgsearch.describe.fitting import ERRORS_FIELD
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta_entries import CODE_FIELD
from es_imgsearch.records import REGIONS_FIELD

# About 2 kB each.
REMEMBERED_DOCUMENTS: Final = 5_000

# Fields of the file and of its write; `picture_document` gives them anew.
OF_THE_FILE: Final = frozenset({
    "image_id", "image_name", "root", "relative_path", "folder", "content_id", "size_bytes",
    "mtime_ns", "ctime_ns", "modified_at", "indexed_at", "ingest_lag_ms", "embed_ms",
    VECTOR_FIELD, REGIONS_FIELD, CODE_FIELD, ERRORS_FIELD,
})  # fmt: skip

Document = Mapping[str, Any]


class LaterChange(NamedTuple):
    """What became of a document after its fields were copied to another one."""

    copy_id: str
    content_id: str
    fields: Mapping[str, Any]  # None for one that was removed

    def apply(self, document: dict[str, Any]) -> Document | None:
        """Return the copy with these fields; None if its content is another by now."""
        if document.get("content_id") != self.content_id:
            return None
        changed = {**document, **self.fields}
        return {name: value for name, value in changed.items() if value is not None}


class FieldMemory:
    """The last documents that went or were copied, by content.  Thread-safe."""

    def __init__(self, limit: int = REMEMBERED_DOCUMENTS) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._gone: OrderedDict[str, Document] = OrderedDict()
        self._copied: OrderedDict[str, tuple[Document, str]] = OrderedDict()

    def put_gone(self, documents: Iterable[Document]) -> None:
        """Remember documents that are deleted, or replaced by those of other contents."""
        with self._lock:
            for each in documents:
                if "content_id" in each:
                    _put(self._gone, each["content_id"], each, self._limit)

    def gone(self, content_id: str) -> Document | None:
        """Return the last document of this content that went."""
        with self._lock:
            return self._gone.get(content_id)

    def put_copied(self, document: Document, copy_id: str) -> None:
        """Remember that the fields of a document were copied."""
        with self._lock:
            _put(self._copied, document["image_id"], (document, copy_id), self._limit)

    def take_later(self, document: Document) -> LaterChange | None:
        """Return what changed of a document, which goes now, since its fields were copied."""
        with self._lock:
            before, copy_id = self._copied.pop(document["image_id"], (document, ""))
        if document.get("content_id") != before.get("content_id"):
            return None
        changed = {
            name: document.get(name)
            for name in (document.keys() | before.keys()) - OF_THE_FILE
            if document.get(name) != before.get(name)
        }
        return LaterChange(copy_id, before["content_id"], changed) if changed else None


def _put(where: OrderedDict[str, Any], key: str, value: Any, limit: int) -> None:
    where[key] = value
    where.move_to_end(key)
    while len(where) > limit:
        where.popitem(last=False)
