"""Remember the fields of documents that were deleted, replaced or copied.

A file may be moved to where no event tells of it, so that its old document is deleted before the
new path is found; or another file may take its old path first.  And a document may be rewritten
after its fields were copied to that of the new path.

The process that finds the new path may be another one: of a folder of another daemon, or after a
crash.  So the fields that nothing computes are stored in `<index>-state` before their document
goes, for two days: of the last documents, up to 1 MB.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, Final, NamedTuple

from es_imgsearch.describe.dates import TAKEN_MAPPING
from es_imgsearch.describe.fitting import ERRORS_FIELD
from es_imgsearch.describe.registry import load_describers
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta_entries import CODE_FIELD
from es_imgsearch.elastic.queries import to_json
from es_imgsearch.elastic.state import GONE_FIELDS, State, Version
from es_imgsearch.errors import SettingsError
from es_imgsearch.records import REGIONS_FIELD

# About 2 kB each.
REMEMBERED_DOCUMENTS: Final = 5_000

# Fields of the file and of its write; `picture_document` gives them anew.
OF_THE_FILE: Final = frozenset({
    "image_id", "image_name", "root", "relative_path", "folder", "content_id", "size_bytes",
    "mtime_ns", "ctime_ns", "modified_at", "indexed_at", "ingest_lag_ms", "embed_ms",
    VECTOR_FIELD, REGIONS_FIELD, CODE_FIELD, ERRORS_FIELD,
})  # fmt: skip

# Those of them that tell whose fields they are.
_ORIGIN: Final = {"image_id", "root", "relative_path", "content_id", "size_bytes", "mtime_ns"}
# Fields that every picture has, and describers that look at pixels: they give the same again.
_PROPERTIES: Final = frozenset({"format", "width", "height", "orientation", "caption"})
_MEASURING: Final = ("colours", "exif", "hashes", "layout", "tags", "text_in_image")

_STORED_SECONDS: Final = 2 * 86_400.0
_STORED_BYTES: Final = 1_000_000

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

    def __init__(self, state: State | None = None, limit: int = REMEMBERED_DOCUMENTS) -> None:
        """Without a `state` they are remembered in this process only."""
        self._state = state
        self._limit = limit
        self._lock = threading.Lock()
        self._gone: OrderedDict[str, Document] = OrderedDict()
        # By content, with the time at which each went.
        self._stored: Mapping[str, tuple[float, Document]] = {}
        self._loaded: Version | None = None
        self._copied: OrderedDict[str, tuple[Document, str]] = OrderedDict()

    def put_gone(self, documents: Iterable[Document]) -> None:
        """Remember documents that are to go, or to be replaced by other contents.

        Raises what the store does.
        """
        going = [each for each in documents if "content_id" in each]
        if self._state is not None and (lasting := [*filter(None, map(lasting_fields, going))]):
            self._state.update(GONE_FIELDS, partial(_with_gone, lasting, time.time()))
        with self._lock:
            for each in going:
                _put(self._gone, each["content_id"], each, self._limit)

    def load(self) -> None:
        """Read what was stored since the last call.  Raises what the store does."""
        if self._state is None:
            return
        # Up to 1 MB, and every batch asks.
        if self._state.version(GONE_FIELDS) == self._loaded:
            return
        read = self._state.read(GONE_FIELDS)
        entries = _entries(None if read is None else read.document, time.time())
        self._stored = {
            each["document"]["content_id"]: (each["at"], each["document"]) for each in entries
        }
        self._loaded = None if read is None else read.version

    def gone(self, content_id: str) -> Document | None:
        """Return the last document of this content that went, best one with own fields."""
        with self._lock:
            at, document = self._stored.get(content_id, (0.0, None))
            if document is not None and at > time.time() - _STORED_SECONDS:
                return document
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


@cache
def _measured() -> frozenset[str]:
    fields = set(_PROPERTIES)
    for name in _MEASURING:
        with suppress(SettingsError):
            fields.update(*(each.mapping for each in load_describers([name])))
    # Of a file, or imported.
    return frozenset(fields - {"location"})


def lasting_fields(document: Document) -> Document | None:
    """Return the fields that nothing computes, and whose they are; None without any."""
    computed = _measured()
    if document.get("taken_from", "import") == "import":
        computed -= TAKEN_MAPPING.keys()
    fields = document.keys() - OF_THE_FILE - computed
    if not fields:
        return None
    return {name: value for name, value in document.items() if name in fields | _ORIGIN}


def _entries(document: Document | None, now: float) -> list[Mapping[str, Any]]:
    """Return the stored entries of the last two days, oldest first."""
    entries = [] if document is None else document["body"]["documents"]
    return [each for each in entries if each["at"] > now - _STORED_SECONDS]


def _with_gone(going: Sequence[Document], now: float, stored: Document | None) -> Document:
    """Return the state document with these, the last ones up to 1 MB."""
    contents = {each["content_id"] for each in going}
    before = _entries(stored, now)
    entries = [each for each in before if each["document"]["content_id"] not in contents]
    entries += [{"at": now, "document": each} for each in going]
    kept: list[Mapping[str, Any]] = []
    size = 0
    for each in reversed(entries):
        entry_bytes = len(to_json(each))
        if entry_bytes > _STORED_BYTES:
            # It fits by no means, and is no reason to forget the others.
            continue
        size += entry_bytes
        if size > _STORED_BYTES:
            break
        kept.append(each)
    return {"kind": "gone", "body": {"documents": kept[::-1]}}
