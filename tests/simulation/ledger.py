"""What the file system held and holds, and what the index should hold because of it."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np

from es_imgsearch.records import image_id
from es_imgsearch.write.deletion_pauses import active_pause
from tests.simulation.machine.file_system import FileSystem
from tests.simulation.machine.inodes import Inode
from tests.simulation.machine.scheduler import Scheduler
from tests.simulation.pictures import ENCODERS, content_id, is_whole
from tests.simulation.servers import Peek
from tests.simulation.transport import Action, Network

# A file may come back while the deletion of its document is on its way.
_GRACE_SECONDS = 30.0


class Kind(Enum):
    """What is at a path; NONE is a file that is no picture."""

    PICTURE = auto()
    BROKEN = auto()
    NONE = auto()
    ABSENT = auto()


@dataclass(slots=True)
class PathRecord:
    """The present kind of a path, since when, and whether a program can see it."""

    root: str
    path: str
    kind: Kind
    since: float
    is_seen: bool
    content: bytes = b""
    # Its content changed in a way that only an event shows, which may have been lost.
    is_excused: bool = False
    # Values of a field that no encoder and describer owns, one of which its document has to have:
    # two while a second one is being stored.
    labels: frozenset[str] = frozenset()
    # It vanished with so many others that only --allow-deletes may delete its document.
    is_protected: bool = False

    @property
    def key(self) -> str:
        return image_id(self.root, self.path)


class Ledger:
    """Follows every path of the roots; `violations` lists broken promises in words."""

    def __init__(
        self, scheduler: Scheduler, files: FileSystem, network: Network, roots: Mapping[str, str]
    ) -> None:
        self._scheduler = scheduler
        self._files = files
        self._network = network
        self._roots = roots
        self._records: dict[str, PathRecord] = {}
        self._contents: set[bytes] = set()
        # Every content that a file had, by its id.
        self.contents: dict[str, bytes] = {}
        self.pictures: list[bytes] = []
        self._paths: set[str] = set()
        self.violations: list[str] = []
        files.on_change = self.update
        network.on_bulk = self._on_bulk

    def records(self) -> list[PathRecord]:
        return list(self._records.values())

    def visible(self) -> list[PathRecord]:
        """Return the records of files that are there and can be seen."""
        return [each for each in self.records() if each.is_seen and each.kind is not Kind.ABSENT]

    def find(self, absolute: str) -> PathRecord | None:
        """Return the record of an absolute path, if there ever was a file."""
        for name, folder in self._roots.items():
            if absolute.startswith(f"{folder}/"):
                return self._records.get(image_id(name, absolute[len(folder) + 1 :]))
        return None

    def move(self, old: str, new: str, rename: Callable[[], None]) -> None:
        """Rename a file or a folder, whose fields move with it inside its root."""
        labels = {
            path.removeprefix(old): (each.root, each.labels)
            for each in self.records()
            if f"{(path := self._absolute(each))}/".startswith(f"{old}/") and each.labels
        }
        rename()
        for suffix, (root, each) in labels.items():
            record = self.find(f"{new}{suffix}")
            if record is not None and record.root == root and record.kind is Kind.PICTURE:
                record.labels = each

    def update(self) -> None:
        """Look at every path again; the file system calls it after each change."""
        for name, folder in self._roots.items():
            for path, inode in self._listed(folder):
                self._add_content(inode.content)
                if path not in self._paths:
                    self._paths.add(path)
                    record = PathRecord(name, path[len(folder) + 1 :], Kind.ABSENT, 0.0, True)
                    self._records[record.key] = record
        for record in self._records.values():
            self._update(record)

    def _absolute(self, record: PathRecord) -> str:
        return f"{self._roots[record.root]}/{record.path}"

    def _add_content(self, content: bytes) -> None:
        if content not in self._contents:
            self._contents.add(content)
            self.contents[content_id(content)] = content
            if is_whole(content):
                self.pictures.append(content)

    def _listed(self, folder: str) -> Iterator[tuple[str, Inode]]:
        try:
            yield from self._files.files(folder)
        except OSError:
            return

    def _update(self, record: PathRecord) -> None:
        inode, is_seen = self._files.truth(self._absolute(record))
        kind = _kind(record.path, inode)
        if kind is not record.kind:
            record.kind, record.since = kind, self._scheduler.seconds
            record.is_protected = False
            # Nothing keeps them after its file is gone; a move takes them along, see `move`.
            record.labels = frozenset()
        record.is_seen = is_seen
        if inode is not None and kind is not Kind.ABSENT and inode.content != record.content:
            record.content = inode.content
            record.is_excused = False
            record.labels = frozenset()
            self._add_content(inode.content)

    def _on_bulk(self, actions: list[Action], results: list[dict[str, Any]]) -> None:
        """Check each deletion of a picture at the time when the server applies it."""
        for action, result in zip(actions, results, strict=True):
            if action.kind != "delete" or result["delete"]["status"] != 200:
                continue
            record = self._records.get(action.document_id)
            if record is None or "-failures" in action.index_name:
                continue
            if record.is_protected:
                self.violations.append(
                    f"{self._scheduler.seconds:.3f} deleted {record.root}/{record.path}, which"
                    " vanished with many others"
                )
            limit = self._network.steady_since - _GRACE_SECONDS
            if record.kind is Kind.PICTURE and record.since < limit:
                seen = "on the disk" if record.is_seen else "unknown"
                self.violations.append(
                    f"{self._scheduler.seconds:.3f} deleted {record.root}/{record.path}, which is"
                    f" {seen} since {record.since:.3f}"
                )

    # -- after a quiet period -------------------------------------------------------------------

    def paused(self, peek: Peek) -> list[str]:
        """Return the roots whose deletions are paused."""
        return [name for name in self._roots if active_pause(peek.state(f"pause:{name}"))]

    def check(
        self, peek: Peek, *, moving: frozenset[str] = frozenset(), allows_pause: bool = True
    ) -> list[str]:
        """Return what is wrong with the index now; `moving` paths change all the time.

        With `allows_pause` a root whose deletions are paused keeps documents of missing files.
        """
        paused = self.paused(peek) if allows_pause else []
        return self.violations + sorted(self._differences(peek, moving, paused))

    def _differences(self, peek: Peek, moving: frozenset[str], paused: list[str]) -> Iterator[str]:
        pictures, failures = peek.pictures(), peek.failures()
        encoder = ENCODERS[peek.meta()["encoder"]["name"]]
        for key in pictures.keys() & failures.keys():
            yield f"{_where(pictures[key])} is in the index and in the failures"
        for document in pictures.values():
            content = self.contents.get(document["content_id"])
            if content is None:
                yield f"{_where(document)} has a content that no file had"
            elif not np.allclose(document["vector"][0], encoder.of_content(content), atol=1e-5):
                yield f"{_where(document)} has the vector of another content or encoder"
        for key in (pictures.keys() | failures.keys()) - self._records.keys():
            yield f"{_where((pictures | failures)[key])} never was a file"
        for key, record in self._records.items():
            if self._absolute(record) in moving:
                continue
            yield from self._path_differences(
                record, pictures.get(key), failures.get(key), is_paused=record.root in paused
            )

    def _path_differences(
        self,
        record: PathRecord,
        document: dict[str, Any] | None,
        failure: dict[str, Any] | None,
        *,
        is_paused: bool,
    ) -> Iterator[str]:
        where = f"{record.root}/{record.path}"
        if not record.is_seen:
            return
        if record.kind is Kind.PICTURE:
            yield from self._picture_differences(where, record, document)
            if failure is not None:
                yield f"{where} is a picture and a failure"
        elif record.kind is Kind.BROKEN:
            # A pause holds back what would replace pictures by failures, too.
            is_held = is_paused and document is not None and failure is None
            if failure is None and not is_held:
                yield f"{where} is broken and no failure"
            if document is not None and not is_held:
                yield f"{where} is broken and still in the index"
        elif not is_paused:
            kind = record.kind.name.lower()
            if document is not None:
                yield f"{where} is {kind} and still in the index"
            if failure is not None:
                yield f"{where} is {kind} and still a failure"

    def _picture_differences(
        self, where: str, record: PathRecord, document: dict[str, Any] | None
    ) -> Iterator[str]:
        inode, _ = self._files.truth(self._absolute(record))
        if document is None:
            yield f"{where} is missing in the index"
        elif inode is None or record.is_excused:
            return
        elif document["content_id"] != content_id(record.content):
            yield f"{where} has another content than its document"
        elif (document["size_bytes"], document["mtime_ns"]) != (
            len(inode.content),
            inode.mtime_ns,
        ):
            yield f"{where} has another size or time than its document"
        elif record.labels and (found := document.get("product_id")) not in record.labels:
            wanted = " or ".join(sorted(record.labels))
            yield f"{where} lost its field product_id: it has {found} in place of {wanted}"


def _kind(path: str, inode: Inode | None) -> Kind:
    if inode is None or not stat.S_ISREG(inode.mode):
        return Kind.ABSENT
    if is_whole(inode.content):
        return Kind.PICTURE
    is_like_one = path.lower().endswith(".png") or inode.content.startswith(b"PIC")
    return Kind.BROKEN if is_like_one else Kind.NONE


def _where(document: Mapping[str, Any]) -> str:
    return f"{document['root']}/{document['relative_path']}"
