"""Delete documents of missing files when they are due, root by root."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from es_imgsearch.elastic.retry import persist
from es_imgsearch.errors import ImgSearchError
from es_imgsearch.pipeline.engines.intake import Intake
from es_imgsearch.records import Change, Root
from es_imgsearch.watch.presence import Presence, RootFiles
from es_imgsearch.watch.settle import Settlers
from es_imgsearch.watch.watcher import Hint, HintKind
from es_imgsearch.write.deletion_guard import DeletionGuard
from es_imgsearch.write.deletion_pauses import DeletionPauses
from es_imgsearch.write.pending_deletions import PendingDeletions, WholeRoot

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Deletions:
    """The pending deletions of all roots; one thread at a time may call it for each."""

    def __init__(
        self,
        guard: DeletionGuard,
        pauses: DeletionPauses,
        pending: Mapping[str, PendingDeletions],
        *,
        files: Callable[[Root], RootFiles],
        settler: Settlers,
        pipeline: Intake,
    ) -> None:
        self._guard = guard
        self._pauses = pauses
        self._pending = pending
        self._files = files
        self._settler = settler
        self._pipeline = pipeline
        self._counts_lock = threading.Lock()

    def delete_due(self, root: Root, compared: int, *, at_once: bool) -> None:
        """Delete the documents of a root's missing files that are due; see `Indexer`."""
        pending = self._pending[root.name]
        batch = pending.take_all() if at_once else pending.take_due(compared)
        if batch is None:
            return
        paths, whole = batch
        # Only a comparison of the whole root checks a pause again: one more deleted file says
        # nothing about the others that are missing.
        if whole is not None or root.name not in self._pauses.active:
            self._delete(root, paths, whole)

    def begin_comparison(self, root: Root) -> WholeRoot:
        """Return a root as it is stored before a comparison.  Raises the store's errors."""
        whole = self._guard.begin_comparison(root)
        return replace(whole, pause=self._pauses.read(root))

    def resume_ended(self, roots: Sequence[Root]) -> list[Root]:
        """Resume roots whose pause another process ended, and return them."""
        ended = self._pauses.take_ended(roots)
        for root in ended:
            self._persist(partial(self._guard.resume, root))
        return ended

    def _delete(self, root: Root, relative_paths: Sequence[str], whole: WholeRoot | None) -> None:
        pipeline = self._pipeline
        if relative_paths and not self._guard.is_permitted and self._pauses.hold(root):
            return
        result = self._persist(
            lambda: self._guard.delete(root, relative_paths, pipeline.holds_no_picture)
        )
        if result.pause is not None:
            self._pauses.begin(root, result.pause)
        elif whole is not None and self._pauses.end(
            root, whole.pause, is_permitted=self._guard.is_permitted
        ):
            self._note_whole(root, whole)
            if self._guard.is_permitted and root.partition is None:
                self._pauses.end_parts(root)
        removed = pipeline.activity.note_deleted(root, result.paths, result.pictures)
        with self._counts_lock:
            pipeline.counts.deleted += result.pictures
            pipeline.counts.moved += result.pictures - removed
        files = self._files(root)
        for path in result.paths:
            change = Change(root, path, time.time())
            pipeline.forget(change)
            # The file may have come back while its document was being deleted.
            if files.presence(path) is Presence.PRESENT:
                self._settler.offer(Hint(root, path, HintKind.TOUCHED), time.monotonic())

    def _note_whole(self, root: Root, whole: WholeRoot) -> None:
        try:
            self._guard.note_whole(root, whole)
        except ImgSearchError as error:
            if not error.transient:
                raise
            # Deletions are judged by the number noted before; the next comparison notes it again.
            logger.debug("What %r holds could not be noted: %s", root.name, error)

    def _persist(self, call: Callable[[], T]) -> T:
        return persist(call, self._pipeline.closing, self._pipeline.outage)
