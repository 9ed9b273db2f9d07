"""Documents of `<index>-state`: what processes share, changed by compare-and-set only.

    daemon:NAME        lease of the daemon that watches a root; its queue
    comparison:NAME    what the last comparison of the root found
    pause:NAME         why deletions of the root wait; with `ended_at` once they may go on
    lock:reindex       lease of the process that builds, drops or cancels a generation

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
from es_imgsearch.elastic.error_mapping import missed_error
from es_imgsearch.elastic.mapping import state_alias
from es_imgsearch.errors import (
    ImageMissing,
    IndexMissing,
    StoreBusy,
    StoreDenied,
    StoreError,
    StoreRejected,
)

Document: TypeAlias = Mapping[str, Any]
# Which write of a document was read or made: parameters that let a write through only over it.
Version: TypeAlias = Mapping[str, str]

# Each round of a race has one winner, so 50 tries with jitter outlast 40 writers of one document.
_UPDATE_TRIES = 50
_LONGEST_WAIT_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Read:
    """A document as it was read."""

    document: Document
    version: Version


def daemon_id(root_name: str) -> str:
    """Id of the lease of the daemon that watches a root."""
    return f"daemon:{root_name}"


def comparison_id(root_name: str) -> str:
    """Id of what the last comparison of a root found."""
    return f"comparison:{root_name}"


def pause_id(root_name: str) -> str:
    """Id of the pause of a root's deletions."""
    return f"pause:{root_name}"


class State:
    """The state documents of one index, by id."""

    def __init__(self, connection: Connection) -> None:
        self._request = connection.request
        self._index = connection.index
        self._alias = state_alias(connection.index)

    def create(self, name: str, document: Document) -> Version | None:
        """Write a document where there is none; None where there is one."""
        return self._put(name, document, {"op_type": "create"})

    def replace(self, name: str, document: Document, version: Version) -> Version | None:
        """Write over exactly this version; None where it was changed or removed meanwhile."""
        return self._put(name, document, version)

    def delete(self, name: str, version: Version | None = None) -> bool:
        """Remove a document, or exactly this version of it; False where that is not there."""
        with self._explained():
            try:
                self._request("DELETE", self._path(name), params=version)
            except ImageMissing:
                return False
            except StoreRejected as error:
                return _refused(error)
        return True

    def read(self, name: str) -> Read | None:
        """The document of that id; None where there is none."""
        with self._explained():
            try:
                answer = self._request("GET", self._path(name))
            except ImageMissing:
                return None
        return Read(answer["_source"], _version(answer))

    def read_many(self, names: Sequence[str]) -> dict[str, Document]:
        """Those of these documents that are there, by id."""
        if not names:
            return {}
        params = {"filter_path": "docs._id,docs._source,docs.error"}
        with self._explained():
            answer = self._request(
                "POST", f"/{self._alias}/_mget", {"ids": list(names)}, params=params
            )
            docs = answer.get("docs", ())
            if missed := [each["error"] for each in docs if "error" in each]:
                # The request as a whole succeeds where no index or shard answers.
                raise missed_error(missed[0]) or IndexMissing
        return {each["_id"]: each["_source"] for each in docs if "_source" in each}

    def update(
        self, name: str, change: Callable[[Document | None], Document | None]
    ) -> Document | None:
        """Write what `change` makes of the document or None; the document as it is then.

        Where it returns None nothing is written.  `change` is called again when another process
        wrote meanwhile, and also after an answer that was lost, so what it does twice must be as
        good as once.  Raises StoreBusy when 50 tries were not enough.
        """
        for tried in range(_UPDATE_TRIES):
            found = self.read(name)
            before = None if found is None else found.document
            wanted = change(before)
            if wanted is None or wanted == before:
                return before
            written = (
                self.create(name, wanted)
                if found is None
                else self.replace(name, wanted, found.version)
            )
            if written is not None:
                return wanted
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
        """Name this index in errors, which else name the index of pictures."""
        try:
            yield
        except IndexMissing as error:
            raise IndexMissing(
                f"There is no {self._alias!r}, which keeps what processes share: make it with"
                f" `es-imgsearch init --index {self._index}`."
            ) from error
        except StoreDenied as error:
            raise StoreDenied(
                f"{error} On {self._alias!r}, reading the status takes the right read; watch, sync"
                " and reindex take read, index and delete."
            ) from error


def _version(answer: Mapping[str, Any]) -> Version:
    return {
        "if_seq_no": str(answer["_seq_no"]),
        "if_primary_term": str(answer["_primary_term"]),
    }


def _refused(error: StoreError) -> bool:
    """False for a version that is no longer the present one; any other error is raised."""
    if "version_conflict_engine_exception" not in str(error):
        raise error
    return False
