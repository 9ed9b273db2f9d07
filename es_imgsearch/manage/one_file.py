"""Say what is so of one file: whether it is indexed, and why not (`verify FILE`)."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from es_imgsearch.elastic.leases import is_running
from es_imgsearch.elastic.leases.division import daemon_leases, divisions
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.state import Document, pause_id, unstored_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.upgrade import has_state
from es_imgsearch.manage.verify import Discrepancy, missing
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.read.workers import ReadPlan, ReadWorkers
from es_imgsearch.records import FileState, Root, image_id, is_url, path_of, stored_path
from es_imgsearch.records.partition import partitions
from es_imgsearch.settings import Settings
from es_imgsearch.watch.commands import sync_command, walk_options
from es_imgsearch.watch.excludes import HIDDEN, LIBRARY, USUAL, Excludes, Pattern
from es_imgsearch.watch.given_roots import taken_apart
from es_imgsearch.watch.places import ABSENT, folders_of, is_link
from es_imgsearch.watch.roots import root_of_path
from es_imgsearch.watch.sources.opened import is_readable, status_at
from es_imgsearch.write.deletion_pauses import active_pause
from es_imgsearch.write.unstored import unstored_files, unstored_reason

INDEXED = "indexed"

_REASONS = {
    HIDDEN: "its name begins with a dot, it is hidden",
    USUAL: "by the usual excludes: such files are unfinished, or made by other programs",
    LIBRARY: "it is a library of another program",
}


def file_of_argument(text: str, meta: Meta, host: str) -> Path | None:
    """Return the path of an argument of `verify` that names no root, else None.

    That is a file, or a path below a registered root of this host, whatever is there.
    """
    if is_url(text):
        url = path_of(text.rstrip("/"))
        root = root_of_path(url, meta, host)
        return url if root is not None and root.path != url else None
    path = Path(os.path.abspath(os.path.expanduser(text)))
    if os.path.isfile(path):
        return path
    name, folder = taken_apart(text)
    given = os.path.expanduser(folder)
    if name is not None and (os.path.isabs(given) or os.path.isdir(given)):
        # NAME=DIR, and no name of a file in the working folder.
        return None
    root = _root_of(path, meta, host)
    is_below = root is not None and root.path not in (path, Path(os.path.realpath(path)))
    return path if is_below else None


def _root_of(path: Path, meta: Meta, host: str) -> Root | None:
    """Find the registered root that holds a path as given, or behind links above it."""
    return root_of_path(path, meta, host) or root_of_path(_behind_links(path), meta, host)


def _behind_links(path: Path) -> Path:
    return Path(os.path.realpath(path.parent)) / path.name


class FileExplainer:
    """Explain the state of files; `close` ends the process that reads them."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings
        self._meta = store.info().meta
        preparation = Preparation(width=8, height=8, mode="squash")
        self._plan = ReadPlan.of(settings, preparation, describers=())
        self._workers: ReadWorkers | None = None

    def close(self) -> None:
        """End the process that reads."""
        if self._workers is not None:
            self._workers.close()

    def _readers(self) -> ReadWorkers:
        if self._workers is None:
            self._workers = ReadWorkers(self._plan, 1)
        return self._workers

    def explain(self, path: Path) -> Discrepancy:
        """Return INDEXED with the id, or what keeps the file out of the index, and why."""
        root = _root_of(path, self._meta, self._settings.host)
        if root is None:
            why = "it is in no folder that the index knows"
            return Discrepancy("not watched", "", stored_path(str(path)), why)
        inside = path if root.path in path.parents else _behind_links(path)
        below = os.path.relpath(inside, root.path)
        root, exclude = self._as_watched(root)
        what, detail = self._state(root, below, exclude)
        return Discrepancy(what, root.name, stored_path(below), detail)

    def _as_watched(self, root: Root) -> tuple[Root, Sequence[str]]:
        """Return the root and the patterns as its daemon, if one runs, has them."""
        settings = self._settings
        follows, exclude = settings.follow_links, settings.exclude
        state = self._store.state
        leases = daemon_leases(state, [root.name]) if has_state(self._meta) else {}
        for lease in filter(is_running, leases.values()):
            exclude = lease["body"].get("exclude", exclude)
            follows = lease["body"].get("follow_links", follows)
        return replace(root, follows_links=follows), exclude

    def _key(self, root: Root, below: str) -> str:
        """Return the name of the partition of a file, in ids of state documents."""
        if not has_state(self._meta):
            return root.name
        count = divisions(self._store.state, [root.name])[root.name]
        parts = (replace(root, partition=each) for each in partitions(count))
        return root.name if count == 1 else next(each.key for each in parts if each.holds(below))

    def _document(self, document_id: str) -> Document | None:
        read = self._store.state.read(document_id) if has_state(self._meta) else None
        return None if read is None else read.document

    def _state(self, root: Root, below: str, exclude: Sequence[str]) -> tuple[str, str]:
        path = root.absolute(below)
        try:
            status = status_at(path)
        except OSError as error:
            if error.errno not in ABSENT:
                return "unknown", f"it cannot be examined ({error.strerror}); what is stored stays"
            if not is_link(path):
                return self._gone(root, below)
            return "left out", "it is a link to nothing"
        is_folder = stat.S_ISDIR(status.st_mode)
        if why := _left_out(root, Excludes(exclude, root.path), below, is_folder):
            return "left out", why
        if is_folder:
            return "folder", "it is looked into: give one of its files"
        if not stat.S_ISREG(status.st_mode):
            return "left out", "it is a device, a pipe or a socket"
        return self._stored(root, below, FileState.of(status)) or self._unstored(
            root, below, status
        )

    def _stored(self, root: Root, below: str, state: FileState) -> tuple[str, str] | None:
        id_ = image_id(root.name, below)
        fields = ["size_bytes", "mtime_ns", "indexed_at"]
        if found := self._store.documents.stored_fields([id_], fields).get(id_):
            since = f"id {id_}, indexed at {found.get('indexed_at', 'an unknown time')}"
            if FileState.stored(found) == state:
                return INDEXED, since
            return "changed", f"{since}, and its size or time is another now; {self._sync(root)}"
        if failure := self._store.documents.failure(id_):
            return "failed", f"{failure['message']} It failed at {failure['failed_at']}"
        return None

    def _unstored(self, root: Root, below: str, status: os.stat_result) -> tuple[str, str]:
        """Say why a file has neither a document nor a failure."""
        document = self._document(unstored_id(self._key(root, below)))
        if stored_path(below) in unstored_files(document):
            return "refused", f"Elasticsearch refuses it: {unstored_reason(document)}"
        age = time.time() - status.st_mtime
        if 0 <= age < self._settings.settle_seconds:
            return "still being written", f"it changed {age:.1f} s ago"
        if not is_readable(root.absolute(below)):
            return "missing", f"this user may not read it; {self._sync(root)}"
        if list(missing(root, [stored_path(below)], self._readers)):
            return "missing", f"it is not indexed yet; {self._sync(root)}"
        return "no picture", "what is in it is no picture"

    def _gone(self, root: Root, below: str) -> tuple[str, str]:
        if not self._store.documents.existing([image_id(root.name, below)]):
            return "no such file", "neither the folder nor the index has it"
        if pause := active_pause(self._document(pause_id(self._key(root, below)))):
            why = f"deletions in {root.name!r} are paused since {pause['since']}"
            return "gone", f"the index still has it: {why}, {pause['reason']}"
        return "gone", f"the index still has it; {self._sync(root)}"

    def _sync(self, root: Root) -> str:
        command = sync_command(root, self._store.index, *walk_options(self._settings))
        return f"`{command}` brings the index up to date"


def _left_out(root: Root, excludes: Excludes, below: str, is_folder: bool) -> str:
    """Say why a walk leaves out a path, or a folder above it; "" if not."""
    for each in folders_of(below):
        is_whole = each == below
        above, _, name = each.rpartition("/")
        of = "" if is_whole else f"its folder {each} is left out: "
        if reason := excludes.left_out(name, above, is_folder or not is_whole):
            if isinstance(reason, Pattern):
                return f"{of}by the pattern {str(reason)!r}"
            return of + _REASONS[reason]
        if (is_folder or not is_whole) and is_link(root.absolute(each)) and not root.follows_links:
            return f"{of}it is a link to a folder, and links are not followed"
    return ""
