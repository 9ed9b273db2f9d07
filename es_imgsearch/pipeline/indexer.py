"""Keeps an index like folders: reconcile, pipeline and deletions put together.

`sync` runs one pass of it; `Daemon` runs it for good.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from es_imgsearch.elastic.retry import Outage, Stopped, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import IndexContext
from es_imgsearch.embed.runtime.select import plan_of
from es_imgsearch.errors import ImgSearchError, StoreBusy
from es_imgsearch.pipeline.heartbeat import Heartbeat, note_passes
from es_imgsearch.pipeline.jobs import Counts, RootComparison
from es_imgsearch.pipeline.pipeline import Pipeline
from es_imgsearch.pipeline.sidecar_changes import Sidecars
from es_imgsearch.read.file import Skipped
from es_imgsearch.records import Change, Root, disk_path, stored_path
from es_imgsearch.settings import Settings
from es_imgsearch.watch.excludes import Excludes
from es_imgsearch.watch.reconcile import (
    DifferenceKind,
    FileOnDisk,
    Unknown,
    differences,
    is_looked_at,
    walk,
)
from es_imgsearch.watch.settle import Settler
from es_imgsearch.watch.watcher import Hint, HintKind
from es_imgsearch.write.deletion_guard import DeletionPauses, Deletions, Pause
from es_imgsearch.write.pending_deletions import PendingDeletions, Progress

logger = logging.getLogger(__name__)

# A file that never stops growing must not keep `sync` from ending.
_UNSETTLED_SECONDS = 30.0


class _Remaining:
    """What the pipeline leaves to be done later; its `put` is the pipeline's successor."""

    def __init__(self, settler: Settler, pending: Mapping[str, PendingDeletions]) -> None:
        self._settler = settler
        self._pending = pending

    def put(self, change: Change, reason: Skipped) -> None:
        """A file that is still being written settles once more; any other is to be deleted."""
        if reason is Skipped.CHANGING:
            hint = Hint(change.root, change.relative_path, HintKind.TOUCHED)
            self._settler.offer(hint, change.detected_at)
        else:
            self._pending[change.root.name].note(change.relative_path)


class Indexer:
    """The parts that every pass needs, and the deletions that are pending."""

    def __init__(
        self,
        context: IndexContext,
        roots: Sequence[Root],
        settings: Settings,
        *,
        allow_deletes: bool = False,
        warm_up: bool = False,
    ) -> None:
        """`warm_up` loads the model at once, so that the first picture does not wait for it."""
        store = context.store
        self.progress = Progress()
        self.roots = tuple(roots)
        self.excludes = Excludes(settings.exclude)
        self.settler = Settler(settings.settle_seconds)
        # The last comparison of each root as a whole.
        self.passes: dict[str, RootComparison] = {}
        self.found = 0
        self._store = store
        self._encoder = context.encoder
        self._settings = settings
        self._unknown_told: set[tuple[str, str]] = set()
        self._pending = {
            root.name: PendingDeletions(settings.settle_seconds, self.progress) for root in roots
        }
        self._remaining = _Remaining(self.settler, self._pending)
        self._deletions = Deletions(
            store,
            self.excludes.prunes,
            max_delete_share=settings.max_delete_share,
            allow=allow_deletes,
        )
        for root in roots:
            self._deletions.remember_device(root)
        self._sidecars = Sidecars(store, context.describers)
        self._post_embed = context.post_embed()
        self.pipeline = Pipeline(
            context,
            settings,
            emit=self._remaining.put,
            vector_fields=self._post_embed.fields,
            progress=self.progress,
            outage=Outage(partial(_check_busy, store)),
            warm_up=warm_up,
        )
        self._pauses = DeletionPauses(store, self.pipeline.closing, self.outage)

    @property
    def paused(self) -> Mapping[str, Pause]:
        """Why deletions wait, by the name of their root."""
        return self._pauses.standing

    @property
    def counts(self) -> Counts:
        return self.pipeline.counts

    @property
    def outage(self) -> Outage:
        return self.pipeline.outage

    def check_generation(self) -> None:
        """Raise GenerationSwitched once another generation serves than the one that is kept."""
        _check_generation(self._store)

    def reconcile(self, root: Root, folder: str = "") -> RootComparison:
        """Compare a root, or one of its folders, with the index and work off the difference.

        Waits for places in the pipeline, not for its end; what is lost waits for
        `delete_gone`.
        """
        started = time.monotonic()
        found = RootComparison()
        beside = self._sidecars.comparison(root, folder)
        unknown_now: set[tuple[str, str]] = set()

        def unknown(what: Unknown) -> None:
            found.unknown += 1
            place = (root.name, what.stored_path)
            unknown_now.add(place)
            if place in self._unknown_told:
                return
            logger.warning(
                "%s cannot be looked at (%s); what the index holds of it stays.",
                root.absolute(disk_path(what.stored_path)),
                what.reason,
            )

        listed_at = time.monotonic()
        self._store.refresh()
        disk = self._until_closing(walk(root, self.excludes.prunes, folder))
        stored_folder = stored_path(folder)
        documents = self._store.listings.stored(root.name, stored_folder)
        failures = self._store.listings.stored(root.name, stored_folder, failures=True)
        for difference in differences(disk, documents, failures, unknown):
            now = time.time()
            change = Change(root, difference.relative_path, now)
            state = difference.state
            if state is not None:
                beside.meet(difference.relative_path, state)
            is_no_picture = state is not None and self.pipeline.is_no_picture(change, state)
            if difference.kind is DifferenceKind.LOST or (
                is_no_picture and difference.kind is DifferenceKind.CHANGED
            ):
                found.lost += 1
                self._remaining.put(change, Skipped.GONE)
                continue
            if is_no_picture:
                continue
            self.found += 1
            found.new += difference.kind is DifferenceKind.NEW
            found.changed += difference.kind is DifferenceKind.CHANGED
            if state is not None and now - state.mtime_ns / 1e9 < self._settings.settle_seconds:
                # Perhaps somebody is still writing it.
                self.settler.offer(Hint(root, difference.relative_path, HintKind.TOUCHED), now)
            else:
                self.pipeline.submit(change, listed_at=listed_at)
        self._sidecars.compared(beside, self.progress.files.begun)
        if not folder:
            others = {place for place in self._unknown_told if place[0] != root.name}
            self._unknown_told = others | unknown_now
            self._pending[root.name].note_complete()
        found.seconds = time.monotonic() - started
        found.ended_at = datetime.now(tz=UTC).isoformat(timespec="seconds")
        if not folder:
            self.passes[root.name] = found
        return found

    def submit_settled(self) -> None:
        """Give the pipeline every file that has settled."""
        for root, relative_path, detected_at in self.settler.due(time.time()):
            self._sidecars.note(root, relative_path, self.progress.files.begun)
            self.pipeline.submit(Change(root, relative_path, detected_at))

    def submit_outdated(self) -> bool:
        """Have pictures read again whose sidecars say something new; False if there are none."""
        if not self._sidecars:
            return False
        changes = persist(
            lambda: list(self._sidecars.outdated(self.progress.files.ended_until)),
            self.pipeline.closing,
            self.outage,
        )
        for change in changes:
            # The file itself is as it was acknowledged.
            self.pipeline.forget(change)
            self.pipeline.submit(change)
        return bool(changes)

    def _until_closing(
        self, disk: Iterator[FileOnDisk | Unknown]
    ) -> Iterator[FileOnDisk | Unknown]:
        for each in disk:
            if self.pipeline.closing.is_set():
                raise Stopped
            yield each

    def delete_gone(self, *, compared: int = 0, at_once: bool = False) -> bool:
        """Delete what has been gone for a moment and whose additions are acknowledged.

        `compared` is `progress.comparisons.ended_until` of before `submit_settled` was last
        called.  `at_once`: everything, since nothing else is under way.  False while
        something is still waiting.
        """
        for root in self.roots:
            pending = self._pending[root.name]
            taken = pending.take_all() if at_once else pending.take(compared)
            if taken is None:
                continue
            paths, is_complete = taken
            # A pause is judged again by a comparison of the whole root only: one more file
            # that goes says nothing of those that are missing.
            if is_complete or root.name not in self.paused:
                self._delete(root, paths, is_complete)
        return not any(self._pending.values())

    def make_searchable(self) -> None:
        """What was acknowledged is found by the next search, not only a second later."""
        persist(self._store.refresh, self.pipeline.closing, self.outage)

    def note_passes(self) -> None:
        """Enter what the last comparisons found, for `status`."""
        try:
            note_passes(self._store, self.passes, self.encoder_plan())
        except ImgSearchError as error:
            logger.warning("What was compared is not told to `status`: %s", error)

    def pauses_ended(self) -> list[Root]:
        """Paused roots whose pause another process ended: `sync --allow-deletes` ran.

        What they lack is judged afresh; the caller compares them.
        """
        ended = self._pauses.ended(self.roots)
        for root in ended:
            self._deletions.resume(root)
        return ended

    def refresh_post_embed(self) -> None:
        """Take up what was trained meanwhile for the step after embedding."""
        self._post_embed.refresh()

    def presence(self) -> Heartbeat:
        """The claim of this indexer's daemon on its roots; the caller starts and closes it."""
        return Heartbeat(
            self._store,
            self.roots,
            self._settings.host,
            queue=lambda: self.pipeline.in_flight + len(self.settler),
            passes=self.passes,
            encoder_plan=self.encoder_plan,
            lease_seconds=self._settings.lease_seconds,
            closing=self.pipeline.closing,
            outage=self.outage,
        )

    def encoder_plan(self) -> Mapping[str, Any] | None:
        """How the encoder runs on this machine; None if it runs in its own way."""
        return plan_of(self._encoder)

    def summary(self) -> str:
        counts = self.counts
        words = [f"{counts.embedded} embedded", f"{counts.reused} reused"]
        for number, what in (
            (counts.failed, "failed"),
            (counts.deleted, "deleted"),
            (counts.not_pictures, "no pictures"),
        ):
            if number:
                words.append(f"{number} {what}")
        return ", ".join(words)

    def _delete(self, root: Root, relative_paths: Sequence[str], is_complete: bool) -> None:
        result = persist(
            lambda: self._deletions.run(root, relative_paths, self.pipeline.no_pictures()),
            self.pipeline.closing,
            self.outage,
        )
        self._pauses.tell(root, result.pause, is_complete=is_complete)
        self.counts.deleted += result.pictures
        for path in result.paths:
            change = Change(root, path, time.time())
            self.pipeline.forget(change)
            # Back again while its document was being deleted?
            if is_looked_at(root, self.excludes.prunes, path) and os.path.exists(
                root.absolute(path)
            ):
                self.settler.offer(Hint(root, path, HintKind.TOUCHED), change.detected_at)


def _check_generation(store: Store) -> None:
    if store.generation is not None:
        store.switching.check_serving()


def _check_busy(store: Store, error: ImgSearchError) -> None:
    """Raise GenerationSwitched if that is why Elasticsearch takes no writes.

    A generation that was switched away takes none for good; no other error shows it.
    """
    if isinstance(error, StoreBusy):
        try:
            _check_generation(store)
        except ImgSearchError as found:
            if not found.transient:
                raise
