"""Keeps an index like folders: reconcile, pipeline and deletions put together.

`sync` runs one pass of it; `Daemon` runs it for good.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from es_imgsearch.codes.apply import CodeFollower
from es_imgsearch.codes.coder import Coder
from es_imgsearch.describe.registry import chosen_describers
from es_imgsearch.elastic.retry import Outage, Stopped, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.embed.runtime.select import plan_of
from es_imgsearch.errors import ImgSearchError, StoreBusy
from es_imgsearch.pipeline.heartbeat import Presence, note_passes
from es_imgsearch.pipeline.jobs import Counts, Pass
from es_imgsearch.pipeline.pipeline import Pipeline
from es_imgsearch.pipeline.sidecar_changes import Sidecars
from es_imgsearch.records import Change, Grid, Root, disk_path, stored_path
from es_imgsearch.settings import Settings
from es_imgsearch.watch.excludes import Excludes
from es_imgsearch.watch.reconcile import Kind, Seen, Unknown, differences, is_looked_at, walk
from es_imgsearch.watch.settle import Settler
from es_imgsearch.watch.watcher import Hint, HintKind
from es_imgsearch.write.deletion_guard import Deletions, Pause, Pauses
from es_imgsearch.write.pending_deletions import Gone

logger = logging.getLogger(__name__)

# A file that never stops growing must not keep `sync` from ending.
_UNSETTLED_SECONDS = 30.0


class Indexer:
    """The parts that every pass needs, and the files that are gone and not yet deleted."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        roots: Sequence[Root],
        settings: Settings,
        *,
        allow_deletes: bool = False,
        warm_up: bool = False,
        describers: Sequence[str] | None = None,
        grid: Grid | None = None,
        coder: Coder | None = None,
    ) -> None:
        """`store` should be held to the generation whose encoder is given, see `Store.pinned`.

        `warm_up` loads the model at once, so that the first picture does not wait for it.

        `describers` are the names of those to run; None means those that `settings` ask for.
        `grid` is that of the index's regions, and `coder` that of its codes, where it keeps any.
        """
        if describers is None:
            describers = [each.name for each in chosen_describers(settings.describers)]
        self.comparisons_asked: Callable[[], int] = lambda: 0
        self.roots = tuple(roots)
        self.excludes = Excludes(settings.exclude)
        self.settler = Settler(settings.settle_seconds)
        # The last comparison of each root as a whole.
        self.passes: dict[str, Pass] = {}
        self.found = 0
        self._store = store
        self._encoder = encoder
        self._settings = settings
        self._unknown_told: set[tuple[str, str]] = set()
        self._gone = {
            root.name: Gone(settings.settle_seconds, lambda: self.comparisons_asked())
            for root in roots
        }
        self._deletions = Deletions(
            store,
            self.excludes.prunes,
            max_delete_share=settings.max_delete_share,
            allow=allow_deletes,
        )
        for root in roots:
            self._deletions.remember_device(root)
        self._sidecars = Sidecars(store, describers)
        self.pipeline = Pipeline(
            store,
            encoder,
            settings,
            on_gone=self._note_gone,
            on_unsettled=self._note_unsettled,
            outage=Outage(self._may_go_on),
            warm_up=warm_up,
            describers=describers,
            grid=grid,
            coder=coder,
        )
        self._pauses = Pauses(store, self.pipeline.closing, self.outage)
        self._code_follower = CodeFollower(store, coder)

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
        if self._store.generation is not None:
            self._store.switching.check_serving()

    def _may_go_on(self, error: ImgSearchError) -> None:
        # A generation that was switched away takes no more writes; nothing else tells it.
        if isinstance(error, StoreBusy):
            try:
                self.check_generation()
            except ImgSearchError as found:
                if not found.transient:
                    raise

    def reconcile(self, root: Root, folder: str = "") -> Pass:
        """Compare a root, or one of its folders, with the index and work off the difference.

        Waits for places in the pipeline, not for its end; what is lost waits for
        `delete_gone`.
        """
        started = time.monotonic()
        found = Pass()
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
            if difference.kind is Kind.LOST or (is_no_picture and difference.kind is Kind.CHANGED):
                found.lost += 1
                self._note_gone(change)
                continue
            if is_no_picture:
                continue
            self.found += 1
            found.new += difference.kind is Kind.NEW
            found.changed += difference.kind is Kind.CHANGED
            if state is not None and now - state.mtime_ns / 1e9 < self._settings.settle_seconds:
                # Perhaps somebody is still writing it.
                self.settler.offer(Hint(root, difference.relative_path, HintKind.TOUCHED), now)
            else:
                self.pipeline.submit(change, listed_at=listed_at)
        self._sidecars.compared(beside, self.pipeline.ticket)
        if not folder:
            others = {place for place in self._unknown_told if place[0] != root.name}
            self._unknown_told = others | unknown_now
            self._gone[root.name].note_complete()
        found.seconds = time.monotonic() - started
        found.ended_at = datetime.now(tz=UTC).isoformat(timespec="seconds")
        if not folder:
            self.passes[root.name] = found
        return found

    def submit_settled(self) -> None:
        """Give the pipeline every file that has settled."""
        for root, relative_path, detected_at in self.settler.due(time.time()):
            self._sidecars.note(root, relative_path, self.pipeline.ticket)
            self.pipeline.submit(Change(root, relative_path, detected_at))

    def submit_outdated(self) -> bool:
        """Have pictures read again whose sidecars say something new; False if there are none."""
        if not self._sidecars:
            return False
        changes = persist(
            lambda: list(self._sidecars.outdated(self.pipeline.settled_until)),
            self.pipeline.closing,
            self.outage,
        )
        for change in changes:
            # The file itself is as it was acknowledged.
            self.pipeline.forget(change)
            self.pipeline.submit(change)
        return bool(changes)

    def _until_closing(self, disk: Iterator[Seen | Unknown]) -> Iterator[Seen | Unknown]:
        for each in disk:
            if self.pipeline.closing.is_set():
                raise Stopped
            yield each

    def delete_gone(self, *, compared: int = 0, at_once: bool = False) -> bool:
        """Delete what has been gone for a moment and whose additions are acknowledged.

        `compared`: how many of `comparisons_asked` had ended before `submit_settled` was last
        called.  `at_once`: everything, since nothing else is under way.  False while
        something is still waiting.
        """
        for root in self.roots:
            gone = self._gone[root.name]
            if at_once:
                taken = gone.take_all()
            elif gone:
                found = gone.take(compared, self.pipeline.ticket, self.pipeline.settled_until)
                if found is None:
                    continue
                taken = found
            else:
                continue
            paths, is_complete = taken
            # A pause is judged again by a comparison of the whole root only: one more file
            # that goes says nothing of those that are missing.
            if is_complete or root.name not in self.paused:
                self._delete(root, paths, is_complete)
        return not any(self._gone.values())

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
        """Paused roots of which `_meta` says so no more: `sync --allow-deletes` ran.

        What they lack is judged afresh; the caller compares them.
        """
        ended = self._pauses.ended(self.roots)
        for root in ended:
            self._deletions.resume(root)
        return ended

    def follow_codes(self) -> None:
        """Take up a coder that was trained meanwhile."""
        self.pipeline.coder = self._code_follower.current()

    def presence(self) -> Presence:
        """What tells of this indexer's daemon in `_meta`; the caller starts and closes it."""
        return Presence(
            self._store,
            self.roots,
            self._settings.host,
            queue=lambda: self.pipeline.in_flight + len(self.settler),
            passes=self.passes,
            encoder_plan=self.encoder_plan,
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

    def _note_gone(self, change: Change) -> None:
        self._gone[change.root.name].note(change.relative_path)

    def _note_unsettled(self, change: Change) -> None:
        hint = Hint(change.root, change.relative_path, HintKind.TOUCHED)
        self.settler.offer(hint, change.detected_at)
