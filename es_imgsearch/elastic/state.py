"""Documents that processes share (`<index>-state`).

They are changed by compare-and-set only.

    daemon:NAME        lease of the daemon that watches a root; its queue
    worker:NAME/I/N    lease of a worker that shares a root, held also while it waits for its part
    division:NAME      into how many partitions a root is divided; one without this document
    lock:division:NAME lease of the process that changes that
    comparison:NAME    result of the last comparison of the root
    deletions:NAME     what the root held when it was last whole, what was deleted since
    mounts:NAME        where other file systems are mounted below the root
    pause:NAME         why deletions of the root wait; with `ended_at` once they may go on
    unstored:NAME      files of the root that can be stored neither as pictures nor as failures
    gone:fields        fields of documents that were deleted lately and that nothing computes
    lock:reindex       lease of the process that builds, drops or cancels a generation
    load:refresh       lease of the process that switched refresh off while it loads, see
                       `manage.production.refreshing`
    roots:ID           the folders of an index, by name, see `meta`
    learned:ID         tuning, curves, codes and so on of a generation, see `meta`

Of a root that several workers share, each partition has its own `daemon:NAME/I/N`, and so for
comparison, deletions, pause and unstored; no name of a root has a slash in it.

One index behind one alias for all generations, so a switch changes nothing here.  Reads are by id,
which Elasticsearch answers from what was acknowledged, refreshed or not.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote

from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.error_mapping import is_conflict
from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.requests import documents_by_id, documents_request
from es_imgsearch.errors import (
    ImageMissing,
    IndexMissing,
    StoreBusy,
    StoreDenied,
    StoreError,
    StoreRejected,
)

Document: TypeAlias = Mapping[str, Any]
# Version of a document: parameters that make a write conditional on it.
Version: TypeAlias = Mapping[str, str]

# Each round of a race has one winner, so 50 tries with jitter outlast 40 writers of one document.
_UPDATE_TRIES = 50
_LONGEST_WAIT_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class VersionedDocument:
    """A document and the version that was read."""

    document: Document
    version: Version


def daemon_id(root_name: str) -> str:
    """Id of the lease of the daemon that watches a root."""
    return f"daemon:{root_name}"


def worker_id(key: str) -> str:
    """Id of the lease of the worker that a partition is given to."""
    return f"worker:{key}"


def division_id(root_name: str) -> str:
    """Id of the number of partitions of a root."""
    return f"division:{root_name}"


def comparison_id(root_name: str) -> str:
    """Id of the result of the last comparison of a root."""
    return f"comparison:{root_name}"


def deletions_id(root_name: str) -> str:
    """Id of the deletions of a root lately, and of what it held before them."""
    return f"deletions:{root_name}"


def mounts_id(root_name: str) -> str:
    """Id of the known mount points below a root."""
    return f"mounts:{root_name}"


def pause_id(root_name: str) -> str:
    """Id of the pause of deletions in a root."""
    return f"pause:{root_name}"


def unstored_id(root_name: str) -> str:
    """Id of the files of a root that cannot be stored, not even as failures."""
    return f"unstored:{root_name}"


# Id of the lease of the process that builds, drops or cancels a generation.
REINDEX_LOCK = "lock:reindex"

# Id of the lease of the process that switched refresh off.
REFRESH_OFF = "load:refresh"

# Id of the fields of documents that went, see `write.field_memory`.
GONE_FIELDS = "gone:fields"


class State:
    """The state documents of one index, by id."""

    def __init__(self, connection: Connection) -> None:
        self._request, self._send = connection.request, connection.send
        self._index = connection.index
        self._alias = Companion.STATE.alias(connection.index)

    def create(self, name: str, document: Document) -> Version | None:
        """Create a document; None if it exists."""
        return self._put(name, document, {"op_type": "create"})

    def replace(self, name: str, document: Document, version: Version) -> Version | None:
        """Replace exactly this version; None if it was changed or deleted meanwhile."""
        return self._put(name, document, version)

    def delete(self, name: str, version: Version | None = None) -> bool:
        """Delete a document, or exactly this version of it; False if that is missing."""
        with self._explained():
            try:
                self._request("DELETE", self._path(name), params=version)
            except ImageMissing:
                return False
            except StoreRejected as error:
                return _refused(error)
        return True

    def read(self, name: str) -> VersionedDocument | None:
        """Read a document by its id; None if it is missing."""
        with self._explained():
            try:
                answer = self._request("GET", self._path(name))
            except ImageMissing:
                return None
        return VersionedDocument(answer["_source"], _version(answer))

    def version(self, name: str) -> Version | None:
        """Return the version of a document, without reading it; None if it is missing."""
        with self._explained():
            try:
                return _version(self._request("GET", self._path(name), params={"_source": "false"}))
            except ImageMissing:
                return None

    def read_many(self, names: Sequence[str]) -> dict[str, Document]:
        """Read the existing ones of these documents, by id."""
        if not names:
            return {}
        with self._explained():
            return documents_by_id(self._send(documents_request(self._alias, names)))

    def update(
        self, name: str, change: Callable[[Document | None], Document | None]
    ) -> Document | None:
        """Replace a document (or None) by the result of `change`; return the document.

        Nothing is written if that is None.  `change` is called again after a conflict with another
        process and after a lost answer, so it must be idempotent.  Raises StoreBusy after 50 tries.
        """
        for tried in range(_UPDATE_TRIES):
            stored = self.read(name)
            before = None if stored is None else stored.document
            after = change(before)
            if after is None or after == before:
                return before
            written = (
                self.create(name, after)
                if stored is None
                else self.replace(name, after, stored.version)
            )
            if written is not None:
                return after
            longest = min(_LONGEST_WAIT_SECONDS, 0.002 * 2**tried)
            time.sleep(random.uniform(0, longest))  # noqa: S311 - jitter, not a secret
        raise StoreBusy(f"{name!r} in {self._alias!r} is being changed by many others.")

    def _path(self, name: str) -> str:
        return f"/{self._alias}/_doc/{quote(name, safe='')}"

    def _put(self, name: str, document: Document, condition: Mapping[str, str]) -> Version | None:
        params = {**condition, "require_alias": "true"}
        with self._explained():
            try:
                answer = self._request("PUT", self._path(name), dict(document), params=params)
            except StoreRejected as error:
                _refused(error)
                return None
        return _version(answer)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Name this index in errors, which otherwise name the index of pictures."""
        try:
            yield
        except IndexMissing as error:
            raise IndexMissing(
                f"There is no {self._alias!r}, which holds what processes share: make it with"
                f" `es-imgsearch init --index {self._index}`."
            ) from error
        except StoreDenied as error:
            raise StoreDenied(
                f"{error} On {self._alias!r}, reading takes the right read; watch, sync and reindex"
                " take read, index and delete."
            ) from error


def _version(answer: Mapping[str, Any]) -> Version:
    return {
        "if_seq_no": str(answer["_seq_no"]),
        "if_primary_term": str(answer["_primary_term"]),
    }


def _refused(error: StoreError) -> bool:
    """Return False for a version conflict; raise any other error."""
    if not is_conflict(error):
        raise error
    return False
