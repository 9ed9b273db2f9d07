"""Compare folders and index without changing anything (`verify`)."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import islice
from typing import Any

from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.store import IndexedFile, Store
from es_imgsearch.embed.context import open_context
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.errors import EncoderMismatch, ModelUnavailable, ReadError, RootError
from es_imgsearch.manage.foreign_vectors import VectorCheck
from es_imgsearch.manage.incomplete import incomplete_documents
from es_imgsearch.manage.stored_content import Readers, outcomes_of, unequal_contents
from es_imgsearch.manage.upgrade import has_state
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.read.workers import ReadPlan, ReadWorkers
from es_imgsearch.records import Change, FileState, Picture, Root, disk_path, image_id, stored_path
from es_imgsearch.settings import Settings
from es_imgsearch.watch.excludes import Excludes
from es_imgsearch.watch.mounts import KnownMounts, without_unlinked
from es_imgsearch.watch.places import NO_PICTURE, FileOnDisk, Unknown, UnknownKind, is_looked_at
from es_imgsearch.watch.reconcile import DifferenceKind, differences
from es_imgsearch.watch.roots import check_registered
from es_imgsearch.watch.sources.listing import list_root
from es_imgsearch.watch.sources.opened import status_at
from es_imgsearch.watch.walk import walk

logger = logging.getLogger(__name__)

_BATCH = 64
_IDS_PER_REQUEST = 500


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A path in which folder and index differ.

    missing             the index lacks a picture of the folder
    changed             the file has another size or modification time than its document
    gone                the index has a file that the folder lacks
    two states          the path has both a document and a failure
    other content       same size and time, other bytes than were indexed (`content` only)
    unknown             a folder that cannot be listed, a file that cannot be examined or opened
    not mounted         a folder of the root on which another file system was mounted
    readable now        the file of a failure can be read: `failures retry` stores it
    other encoder       the vector is not what the index's encoder makes of the file; a random
                        sample of every root is embedded again (`content` only)
    without vector      no search finds the document
    without regions     the index stores tiles; a large enough picture has none
    without code        the index has binary codes; this picture has none
    unregistered root   documents of a root that the index does not know; no path
    folder unavailable  the root's folder is missing or cannot be listed; no path
    """

    what: str
    root: str
    relative_path: str
    detail: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


_WORDS = {
    DifferenceKind.NEW: "missing",
    DifferenceKind.CHANGED: "changed",
    DifferenceKind.LOST: "gone",
}


def _word_of(unknown: Unknown) -> str:
    if not unknown.stored_path:
        return "folder unavailable"
    return "not mounted" if unknown.kind is UnknownKind.UNMOUNTED else "unknown"


# The file was not at fault, so reading it again does not show whether a retry would succeed.
_NOT_OF_READING = frozenset({"embed_failed", "rejected"})


def verify(
    store: Store,
    roots: Sequence[Root],
    settings: Settings,
    *,
    content: bool = False,
    encoder: Encoder | None = None,
    on_file: Callable[[int, int], None] = lambda _done, _of: None,
    on_left_out: Callable[[str, str], None] = lambda _root, _reason: None,
) -> Iterator[Discrepancy]:
    """Yield every difference between the roots and the index.

    A file matches a document or a failure of its size and modification time; with `content`, every
    such file is read and must have the document's content id, and some are embedded again, by the
    given encoder or the index's own.  `on_file` gets the number of files read for that, and of all,
    `on_left_out` a root's name and the reason (see `RootComparison`) for each left out.  Files that
    are no pictures have no document, so every file that the index lacks is read, and so is the file
    of every failure.

    Raises RootError if the index has another folder under a root's name, or if a folder that does
    not exist is unknown to the index, too.
    """
    meta = store.info().meta
    for root in roots:
        check_registered(root, settings.host, meta.roots)
        if root.name not in meta.roots and not root.is_url and not root.path.is_dir():
            raise RootError(f"{root.path} does not exist, and the index knows no {root.name!r}.")
    store.refresh()
    yield from _unregistered(store, meta)
    with ExitStack() as stack:

        @cache
        def readers() -> ReadWorkers:
            # Started with the first file: there is seldom one to read.
            preparation = Preparation(width=8, height=8, mode="squash")
            plan = ReadPlan.of(settings, preparation, describers=())
            workers = ReadWorkers(plan, settings.read_workers)
            stack.callback(workers.close)
            return workers

        excludes = Excludes.of_roots(settings.exclude, roots)
        for root in roots:
            rules, left_out = excludes[root.name], partial(on_left_out, root.name)
            yield from _RootCheck(store, meta, root, rules, readers, left_out).run()
    if content:
        yield from _contents(store, roots, excludes, settings, on_file)
        yield from _foreign(store, roots, settings, encoder)


def _unregistered(store: Store, meta: Meta) -> Iterator[Discrepancy]:
    for failures in (False, True):
        for name, count in store.listings.counts_by_root(failures=failures).items():
            if name not in meta.roots:
                kind = "failures" if failures else "documents"
                yield Discrepancy("unregistered root", name, "", f"{count} {kind}")


class _RootCheck:
    """The comparison of one root with the index."""

    def __init__(
        self,
        store: Store,
        meta: Meta,
        root: Root,
        excludes: Excludes,
        readers: Readers,
        on_left_out: Callable[[str], None],
    ) -> None:
        self._store, self._meta, self._root = store, meta, root
        self._prunes = excludes.left_out
        self._on_left_out = on_left_out
        self._readers = readers
        self._unknown: list[Unknown] = []
        # Files that this user may not open.
        self._unreadable: list[str] = []

    def run(self) -> Iterator[Discrepancy]:
        twice = self._in_two_states()
        for path in sorted(twice):
            yield self._found("two states", path)
        new: list[str] = []
        for difference in differences(
            self._disk(), self._stored(), self._stored(failures=True), self._unknown.append
        ):
            path = stored_path(difference.relative_path)
            if difference.kind is DifferenceKind.NEW:
                new.append(path)
                if len(new) == _BATCH:
                    yield from self._missing(new)
                    new = []
            elif path not in twice:
                yield self._found(_WORDS[difference.kind], path)
        yield from self._missing(new)
        for each in self._unknown:
            yield self._found(_word_of(each), each.stored_path, each.reason)
        yield from self._kept_though_unreadable()
        yield from self._readable_failures()
        for what, path in incomplete_documents(self._store, self._meta, self._root.name):
            yield self._found(what, path)

    def _missing(self, new: Sequence[str]) -> list[Discrepancy]:
        found = list(missing(self._root, new, self._readers))
        for _ in new[len(found) :]:
            self._on_left_out(NO_PICTURE)
        return found

    def _found(self, what: str, path: str, detail: str = "") -> Discrepancy:
        return Discrepancy(what, self._root.name, path, detail)

    def _stored(self, *, failures: bool = False) -> Iterator[IndexedFile]:
        return self._store.listings.stored(self._root.name, failures=failures)

    def _disk(self) -> Iterator[FileOnDisk | Unknown]:
        # An index of the first version has no state yet.
        if self._root.is_url:
            yield from list_root(self._root, self._prunes, "", self._on_left_out)
            return
        known = KnownMounts(self._store.state).load(self._root) if has_state(self._meta) else {}
        mounts = without_unlinked(self._root, known)
        for each in walk(self._root, self._prunes, mounts=mounts, on_left_out=self._on_left_out):
            if isinstance(each, FileOnDisk):
                path = disk_path(each.stored_path)
                if not os.access(self._root.absolute(path), os.R_OK):
                    self._unreadable.append(each.stored_path)
            yield each

    def _in_two_states(self) -> set[str]:
        """Paths of failures that have a document, too."""
        paths = (each.stored_path for each in self._store.listings.stored(
            self._root.name, failures=True))  # fmt: skip
        return {path for part in _parts(paths) for path in self._with_document(part)}

    def _with_document(self, paths: Sequence[str]) -> list[str]:
        ids = {image_id(self._root.name, disk_path(path)): path for path in paths}
        return [ids[each] for each in self._store.documents.existing(list(ids))]

    def _kept_though_unreadable(self) -> Iterator[Discrepancy]:
        for part in _parts(iter(self._unreadable)):
            for path in sorted(self._with_document(part)):
                yield self._found("unknown", path, "This user may not read it.")

    def _readable_failures(self) -> Iterator[Discrepancy]:
        failed = (
            each
            for each in self._store.listings.failures(self._root.name)
            if each["error_class"] not in _NOT_OF_READING and self._is_unchanged(each)
        )
        for part in _parts(failed, _BATCH):
            by_path = {each["relative_path"]: each for each in part}
            for path, outcome in outcomes_of(self._root, by_path, self._readers):
                if isinstance(outcome, Picture):
                    yield self._found("readable now", path, by_path[path]["error_class"])

    def _is_unchanged(self, failure: Mapping[str, Any]) -> bool:
        """Return True if its file is as it failed; a comparison finds any other."""
        path = disk_path(failure["relative_path"])
        with suppress(OSError):
            is_same = FileState.of(status_at(self._root.absolute(path))) == FileState.stored(
                failure
            )
            return is_same and is_looked_at(self._root, self._prunes, path)
        return False


def missing(root: Root, stored_paths: Sequence[str], readers: Readers) -> Iterator[Discrepancy]:
    """Yield those of these files that are pictures, or are named like one."""
    for path, outcome in outcomes_of(root, stored_paths, readers):
        if isinstance(outcome, Picture | ReadError):
            yield Discrepancy("missing", root.name, path)


def _contents(
    store: Store,
    roots: Sequence[Root],
    excludes: Mapping[str, Excludes],
    settings: Settings,
    on_file: Callable[[int, int], None],
) -> Iterator[Discrepancy]:
    """Read every file with its document's state; yield those with other bytes."""
    total = sum(store.listings.count(root.name) for root in roots)
    done = 0
    for root in roots:
        stored = store.listings.contents(root.name)
        prunes = excludes[root.name].prunes
        for path, what, detail in unequal_contents(root, stored, settings.read_workers):
            done += 1
            on_file(done, total)
            if what is not None and is_looked_at(root, prunes, disk_path(path)):
                yield Discrepancy(what, root.name, path, detail)


def _foreign(
    store: Store, roots: Sequence[Root], settings: Settings, encoder: Encoder | None
) -> Iterator[Discrepancy]:
    try:
        context = open_context(store, settings, encoder, describers=())
    except (ModelUnavailable, EncoderMismatch) as error:
        logger.warning("No vectors are compared, only files: %s", error)
        return
    check = VectorCheck(context, settings)
    try:
        for root in roots:
            for each in sorted(check.sample(root), key=lambda each: each.stored_path):
                detail = f"cosine {each.cosine:.2f}"
                yield Discrepancy("other encoder", root.name, each.stored_path, detail)
    finally:
        check.close()


def submit_differing(
    indexer: Indexer,
    store: Store,
    settings: Settings,
    on_file: Callable[[int, int], None] = lambda _done, _of: None,
) -> None:
    """Have pictures indexed anew whose documents differ in more than size and time.

    These are the files with other content, and documents without vector or regions.  Vectors of
    another encoder are replaced at once, in a root whose sample has any.
    """
    meta = store.info().meta
    store.refresh()
    # First, while the pipeline does not use the encoder.
    check = VectorCheck(indexer.context, settings)
    try:
        for root in indexer.roots:
            if check.sample(root):
                logger.warning(
                    "%d vectors of %r were made by another encoder and are replaced.",
                    check.replace_all(root), root.name,
                )  # fmt: skip
    finally:
        check.close()
    roots = {root.name: root for root in indexer.roots}
    for each in _contents(store, indexer.roots, indexer.excludes, settings, on_file):
        if each.what == "other content":
            _submit(indexer, roots[each.root], each.relative_path)
    for root in indexer.roots:
        for what, path in incomplete_documents(store, meta, root.name):
            if what != "without code" and is_looked_at(
                root, indexer.excludes[root.name].prunes, disk_path(path)
            ):
                _submit(indexer, root, path)


def _submit(indexer: Indexer, root: Root, path: str) -> None:
    indexer.pipeline.submit(Change(root, disk_path(path), time.time()))


def _parts(items: Iterator[Any], size: int = _IDS_PER_REQUEST) -> Iterator[list[Any]]:
    while part := list(islice(items, size)):
        yield part
