"""Remember the fields of documents that were deleted, replaced or copied.

A file may be moved to where no event tells of it, so that its old document is deleted before the
new path is found; or another file may take its old path first.  And a document may be rewritten
after its fields were copied to that of the new path.

The process that finds the new path may be another one: of a folder of another daemon, or after a
crash.  So the fields that nothing computes are stored in `<index>-state` before their document
goes, for two days: of the last documents, up to 1 MB.

A document whose file was found at another path comes after the one that has its fields since: a
file that is moved there and back keeps what it was given in between.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Container, Iterable, Mapping, Sequence
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


class Copy(NamedTuple):
    """A document whose fields were copied; its file `has_moved` to the copy, or stays."""

    document: Document
    copy_id: str
    has_moved: bool


class _Gone(NamedTuple):
    """A document that went; `moved_to` is the id where its file was found, if it was."""

    document: Document
    moved_to: str | None = None
    at: float = math.inf


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
        # By content.
        self._gone: OrderedDict[str, _Gone] = OrderedDict()
        self._stored: Mapping[str, _Gone] = {}
        self._loaded: Version | None = None
        # By the id of the document that was copied.
        self._copied: OrderedDict[str, Copy] = OrderedDict()

    def put_gone(self, documents: Iterable[Document]) -> None:
        """Remember documents that are to go, or to be replaced by other contents.

        Raises what the store does.
        """
        going = [self._going(each) for each in documents if "content_id" in each]
        lasting = [
            each._replace(document=fields)
            for each in going
            if (fields := lasting_fields(each.document)) is not None
        ]
        if self._state is not None and lasting:
            self._state.update(GONE_FIELDS, partial(_with_gone, lasting, time.time()))
        with self._lock:
            for each in going:
                _put(self._gone, each.document["content_id"], each, self._limit)

    def _going(self, document: Document) -> _Gone:
        with self._lock:
            copy = self._copied.get(document["image_id"])
        is_found = copy is not None and copy.has_moved and _is_same(copy.document, document)
        return _Gone(document, copy.copy_id if copy is not None and is_found else None)

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
            each["document"]["content_id"]: _Gone(
                each["document"], each.get("moved_to"), each["at"]
            )
            for each in entries
        }
        self._loaded = None if read is None else read.version

    def gone(self, content_id: str, others: Container[str] = ()) -> Document | None:
        """Return the last document of this content that went, best one with own fields.

        `others` are the ids of present documents of this content: if the file was moved to one of
        them, the fields are those of that one, and nothing is returned.
        """
        with self._lock:
            gone, stored = self._gone.get(content_id), self._stored.get(content_id)
        if (
            stored is not None
            and stored.at > time.time() - _STORED_SECONDS
            # What went after it may have had its fields, and lost one.
            and (gone is None or stored.moved_to != gone.document["image_id"])
        ):
            gone = stored
        return None if gone is None or gone.moved_to in others else gone.document

    def put_copied(self, copies: Iterable[Copy]) -> None:
        """Remember that the fields of documents were copied.  Raises what the store does."""
        copies = list(copies)
        moved = {each.document["content_id"]: each for each in copies if each.has_moved}
        with self._lock:
            for each in copies:
                _put(self._copied, each.document["image_id"], each, self._limit)
            for content_id, each in moved.items():
                gone = self._gone.get(content_id)
                if gone is not None and _is_same(gone.document, each.document):
                    self._gone[content_id] = gone._replace(moved_to=each.copy_id)
            is_stored = any(
                content_id in self._stored
                and _is_same(self._stored[content_id].document, each.document)
                for content_id, each in moved.items()
            )
        if self._state is not None and is_stored:
            self._state.update(GONE_FIELDS, partial(_with_moved, moved))

    def take_later(self, document: Document) -> LaterChange | None:
        """Return what changed of a document, which goes now, since its fields were copied."""
        with self._lock:
            copy = self._copied.pop(document["image_id"], Copy(document, "", has_moved=False))
        before = copy.document
        if document.get("content_id") != before.get("content_id"):
            return None
        changed = {
            name: document.get(name)
            for name in (document.keys() | before.keys()) - OF_THE_FILE
            if document.get(name) != before.get(name)
        }
        return LaterChange(copy.copy_id, before["content_id"], changed) if changed else None


def _is_same(one: Document, other: Document) -> bool:
    """Return True for two states of the document of one path and one content."""
    return all(one.get(name) == other.get(name) for name in ("image_id", "content_id"))


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


def _with_moved(moved: Mapping[str, Copy], stored: Document | None) -> Document | None:
    """Return the state document in which entries say where their files were found."""
    if stored is None:
        return None
    entries = []
    for each in stored["body"]["documents"]:
        copy = moved.get(each["document"]["content_id"])
        is_moved = copy is not None and _is_same(each["document"], copy.document)
        entries.append({**each, "moved_to": copy.copy_id} if copy and is_moved else each)
    return {**stored, "body": {"documents": entries}}


def _with_gone(going: Sequence[_Gone], now: float, stored: Document | None) -> Document:
    """Return the state document with these, the last ones up to 1 MB."""
    contents = {each.document["content_id"] for each in going}
    before = _entries(stored, now)
    entries = [each for each in before if each["document"]["content_id"] not in contents]
    entries += [
        {"at": now, "document": each.document}
        | ({} if each.moved_to is None else {"moved_to": each.moved_to})
        for each in going
    ]
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
