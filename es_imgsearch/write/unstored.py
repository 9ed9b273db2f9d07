"""Remember files that Elasticsearch takes neither as pictures nor as failures.

Nothing in the index or the failures says that such a file was read, so every comparison would find
it new and read it again.  They are remembered until they change, in this process and in a document
of `<index>-state` for each root, by which `status` shows them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from es_imgsearch.elastic.state import Document, State, unstored_id
from es_imgsearch.records import Change, FileState, Root, disk_path, stored_path, utf8
from es_imgsearch.watch.reconcile import DifferenceKind, FileDifference

# Of a root; more are read at each comparison.
_MOST_FILES = 10_000
_MOST_REASON = 1_000


class UnstoredFiles:
    """Files by root and stored path.  Thread-safe."""

    def __init__(
        self, state: State | None = None, keys: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Without a `state` they are remembered in this process only.

        `keys` has the names of roots' partitions, by the root's name.
        """
        self._state = state
        self._keys = keys
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._files: dict[str, dict[str, FileState]] = {}
        self._reasons: dict[str, str] = {}
        self._loaded: set[str] = set()
        # Paths that the comparison of their root has met, or that were refused meanwhile.
        self._met: dict[str, set[str]] = {}
        self._changed: set[str] = set()

    def load(self, root_name: str) -> None:
        """Read what earlier processes remembered of a root; only once."""
        if self._state is None or root_name in self._loaded:
            return
        read = self._state.read(self._id(root_name))
        stored = unstored_files(None if read is None else read.document)
        with self._lock:
            self._loaded.add(root_name)
            self._files[root_name] = {**stored, **self._files.get(root_name, {})}

    def save(self) -> None:
        """Write what has changed since the last call.  Raises what the store does."""
        if self._state is None:
            return
        with self._saving:
            for name in sorted(self._changed):
                with self._lock:
                    # Before the update: what changes meanwhile is for the next call.
                    self._changed.discard(name)
                    document = self._document(name)
                try:
                    self._state.update(self._id(name), partial(_replace, document))
                except BaseException:
                    with self._lock:
                        self._changed.add(name)
                    raise

    def without_known(
        self, root: Root, differences: Iterable[FileDifference], *, is_whole: bool
    ) -> Iterator[FileDifference]:
        """Leave out new files that were refused in the state that they have.

        A comparison of the whole root drops files that it has not met.
        """
        self.load(root.name)
        for each in differences:
            if each.kind is not DifferenceKind.NEW or not self._meets(root.name, each):
                yield each
        if is_whole:
            self._end_comparison(root.name)

    def _id(self, root_name: str) -> str:
        return unstored_id(self._keys.get(root_name, root_name))

    def _meets(self, root_name: str, found: FileDifference) -> bool:
        path = stored_path(found.relative_path)
        with self._lock:
            if self._files.get(root_name, {}).get(path) != found.state:
                return False
            self._met.setdefault(root_name, set()).add(path)
            return True

    def _end_comparison(self, root_name: str) -> None:
        with self._lock:
            met = self._met.pop(root_name, set())
            for path in self._files.get(root_name, {}).keys() - met:
                self._remove(root_name, path)

    def _document(self, root_name: str) -> Document:
        files = {path: list(each) for path, each in self._files.get(root_name, {}).items()}
        body = {"files": files, "reason": self._reasons.get(root_name, "")}
        return {"kind": "unstored", "root": root_name, "body": body}

    def put(self, change: Change, state: FileState, reason: str) -> None:
        """Remember a file that was refused in this state."""
        name = change.root.name
        with self._lock:
            files = self._files.setdefault(name, {})
            path = stored_path(change.relative_path)
            if path in files or len(files) < _MOST_FILES:
                files[path] = state
                self._met.setdefault(name, set()).add(path)
            self._reasons[name] = utf8(reason)[:_MOST_REASON]
            self._changed.add(name)

    def forget(self, change: Change) -> None:
        """Forget a file that was stored, or is no picture."""
        with self._lock:
            self._remove(change.root.name, stored_path(change.relative_path))

    def is_known(self, change: Change, state: FileState) -> bool:
        """Return True if the file was refused in this state."""
        with self._lock:
            files = self._files.get(change.root.name, {})
            return files.get(stored_path(change.relative_path)) == state

    def count(self) -> int:
        """Count the files of all roots."""
        return sum(map(len, self._files.values()))

    def changes(self, root: Root) -> list[Change]:
        """Return a change of each file of a root, to have it read again."""
        with self._lock:
            paths = list(self._files.get(root.name, {}))
        return [Change(root, disk_path(each), time.time()) for each in paths]

    def _remove(self, root_name: str, path: str) -> None:
        # The caller holds the lock.
        if self._files.get(root_name, {}).pop(path, None) is not None:
            self._changed.add(root_name)


def _replace(document: Document, _stored: Document | None) -> Document:
    return document


def unstored_files(document: Document | None) -> dict[str, FileState]:
    """Return the files of a state document."""
    files: Mapping[str, Any] = (document or {}).get("body", {}).get("files", {})
    return {path: FileState(*each) for path, each in files.items()}


def unstored_reason(document: Document | None) -> str:
    """Return why the last of them was refused."""
    return str((document or {}).get("body", {}).get("reason", ""))
