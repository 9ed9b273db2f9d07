"""Keep an index equal to its folders: comparison, pipeline and deletions.

`sync` runs one pass of an `Indexer`; `Daemon` runs it until stopped.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from es_imgsearch.elastic.leases import Lease
from es_imgsearch.elastic.retry import Outage, Stopped, persist
from es_imgsearch.embed.context import IndexContext
from es_imgsearch.embed.runtime.select import plan_of
from es_imgsearch.errors import ImgSearchError
from es_imgsearch.pipeline.deletions import Deletions
from es_imgsearch.pipeline.engines.intake import Intake
from es_imgsearch.pipeline.engines.local import Pipeline
from es_imgsearch.pipeline.heartbeat import Heartbeat, check_excludes, save_comparisons
from es_imgsearch.pipeline.jobs import Counts, RootComparison
from es_imgsearch.pipeline.queues import LeftoverQueue, Round, TouchedFiles
from es_imgsearch.pipeline.sidecar_changes import SidecarChanges, concerns
from es_imgsearch.read.file import is_named_otherwise
from es_imgsearch.records import Change, FileState, Root, iso_timestamp, stored_path
from es_imgsearch.settings import Settings
from es_imgsearch.watch.commands import walk_options
from es_imgsearch.watch.excludes import Excludes
from es_imgsearch.watch.places import FileOnDisk, Unknown
from es_imgsearch.watch.reconcile import DifferenceKind, ListedFiles, differences
from es_imgsearch.watch.root_folders import RootFolders
from es_imgsearch.watch.settle import Settler, Settlers
from es_imgsearch.watch.unknown_places import UnknownPlaces
from es_imgsearch.watch.watcher import Hint, HintKind
from es_imgsearch.write.deletion_guard import DeletionGuard
from es_imgsearch.write.deletion_pauses import DeletionPauses, Pause
from es_imgsearch.write.field_memory import FieldMemory
from es_imgsearch.write.pending_deletions import PendingDeletions, Progress
from es_imgsearch.write.unreadable import with_retries
from es_imgsearch.write.unstored import UnstoredFiles

logger = logging.getLogger(__name__)


class Indexer:
    """The pipeline of one process on some roots, their pending deletions and pauses."""

    def __init__(
        self,
        context: IndexContext,
        roots: Sequence[Root],
        settings: Settings,
        *,
        allow_deletes: bool = False,
        warm_up: bool = False,
        engine: Callable[..., Intake] = Pipeline,
    ) -> None:
        """Connect the parts; with `warm_up` the first picture need not wait for the model."""
        store, self.context = context.store, context
        self.progress = Progress()
        self.roots = tuple(roots)
        self.partitions: Mapping[str, bool] = {}  # for metrics, see `Watched`
        self.excludes = Excludes.of_roots(settings.exclude, roots)
        self._folders = RootFolders(store, roots, self.excludes, forget_mounts=allow_deletes)
        self.disks = self._folders.disks
        seconds, disk = settings.settle_seconds, self.disks.of
        self.settler = Settlers({root: Settler(seconds, stat=disk(root).stat) for root in roots})
        self.absent: set[str] = set()  # names of roots whose folders a daemon misses
        self._gone: set[tuple[Root, str]] = set()  # files whose last event says that they are gone
        self._round = Round(root.name for root in roots)  # those not compared in this round yet
        # The last comparison of each whole root, by the root's name, and the last or present one.
        self.last_comparisons: dict[str, RootComparison] = {}
        self.comparing: dict[str, RootComparison] = {}
        self.listing = ListedFiles(len(roots))
        self._store, self._encoder, self._settings = store, context.encoder, settings
        self._unknown_places = UnknownPlaces(store.index, options := walk_options(settings))
        self._pending = {root.name: PendingDeletions(seconds, self.progress) for root in roots}
        self.leftovers = LeftoverQueue(self.settler, self._pending, self.comparing)
        self._deletion_guard = DeletionGuard(
            store,
            lambda root: self.excludes[root.name].prunes,
            mounts=self._folders.mounts,
            disk=self.disks.of,
            memory=(memory := FieldMemory(store.state)),
            max_delete_share=settings.max_delete_share,
            allow=allow_deletes,
        )
        self._keys = {root.name: root.key for root in roots}
        self.unstored = UnstoredFiles(store.state, self._keys)
        self._touched = {root.name: TouchedFiles() for root in roots}
        self._sidecars = {root.name: SidecarChanges(store, context.describers) for root in roots}
        self._post_embed = context.post_embed()
        self.pipeline = engine(
            context,
            settings,
            emit=self.leftovers.put,
            vector_fields=self._post_embed.fields,
            progress=self.progress,
            outage=Outage(store.check_busy),
            disks=self.disks,
            files=self._folders.files,
            memory=memory,
            unstored=self.unstored,
            warm_up=warm_up,
            folders=[root.absolute("") for root in roots],
        )
        self._pauses = DeletionPauses(store, self.pipeline.closing, self.outage, options)
        self._deletions = Deletions(
            self._deletion_guard,
            self._pauses,
            self._pending,
            files=self._folders.files,
            settler=self.settler,
            pipeline=self.pipeline,
        )

    @property
    def paused(self) -> Mapping[str, Pause]:
        """The pause of each root whose deletions wait, by the root's name."""
        return self._pauses.active

    @property
    def counts(self) -> Counts:
        return self.pipeline.counts

    @property
    def outage(self) -> Outage:
        return self.pipeline.outage

    @property
    def waiting(self) -> int:
        """The number of files that are in flight or still being written."""
        return self.pipeline.in_flight + len(self.settler)

    def check_generation(self) -> None:
        """Raise GenerationSwitched if the alias points to another generation."""
        self._store.check_generation()

    def reconcile(
        self, root: Root, folder: str = "", *, list_first: bool = False
    ) -> RootComparison:
        """Compare a root, or one of its folders, with the index; submit differences.

        With `list_first` all are counted in `listing` before the first is submitted.  Waits for
        free slots of the pipeline, not for its end; `delete_missing` deletes missing files later.
        """
        started = time.monotonic()
        patterns = self.excludes[root.name].leaving_out
        counts = RootComparison(left_out_by=Counter(dict.fromkeys(patterns, 0)))
        sidecars = self._sidecars[root.name].begin_comparison(root, folder)
        touched = self._touched[root.name]
        missing: list[str] = []
        unknown, report_unknown = self._unknown_places.collector(root)
        listed_at = time.monotonic()
        self._store.refresh()
        whole = None if folder else self._deletions.begin_comparison(root)
        self.comparing[root.name] = self.comparing.get(root.name, counts) if folder else counts
        stored_folder = stored_path(folder)
        listings, listed = self._store.listings, (root.name, stored_folder, root.partition)
        found = differences(
            self._until_closing(self._folders.walk(root, folder, counts.count_left_out, concerns)),
            listings.stored(*listed),
            with_retries(listings.failed(*listed), time.time()),
            report_unknown,
            compares_ctime=self._settings.compare_ctime,
        )
        found = self.unstored.without_known(root, found, is_whole=not folder)
        for difference in sidecars.passed(self.listing.of_root(found) if list_first else found):
            state, of_url = difference.state, difference.state if root.is_url else None
            change = Change(root, difference.relative_path, time.time(), listed=of_url)
            if state is None or self._holds_no_picture(difference.kind, change, state):
                # There is no such file, or it was read and is no picture.
                if state is not None:
                    counts.count_no_picture(difference.relative_path)
                if difference.kind is not DifferenceKind.NEW:
                    counts.lost += 1
                    missing.append(difference.relative_path)
                continue
            if difference.kind is DifferenceKind.TOUCHED and touched.put(change, listed_at):
                continue
            counts.count_submitted(difference.relative_path, difference.kind)
            self._submit_compared(change, state, listed_at)
        self._sidecars[root.name].end_comparison(sidecars, self.progress.files.begun)
        if not folder:
            self._unknown_places.keep(root, unknown)
        self._pending[root.name].add_compared(missing, whole and whole.plus(counts.new))
        counts.unreadable = self.pipeline.unreadable(root.name)
        counts.unknown = len(unknown)
        counts.seconds = time.monotonic() - started
        counts.ended_at = iso_timestamp()
        if not folder:
            self.last_comparisons[root.name] = counts
            if self._round.ends_with(root.name):
                self.pipeline.end_round()
        return counts

    def _holds_no_picture(self, kind: DifferenceKind, change: Change, state: FileState) -> bool:
        if kind is DifferenceKind.NEW:
            if change.listed and is_named_otherwise(change.relative_path):
                return True
            return self.pipeline.is_non_picture(change.image_id, state)
        return self.pipeline.holds_no_picture(change.image_id, state)

    def _submit_compared(self, change: Change, state: FileState, listed_at: float) -> None:
        now = change.detected_at
        # What is put at a URL is there as a whole.
        is_recent = now - state.mtime_ns / 1e9 < self._settings.settle_seconds and not change.listed
        if is_recent and not self.pipeline.has(change.image_id, state):
            # Perhaps it is still being written.
            hint = Hint(change.root, change.relative_path, HintKind.TOUCHED)
            self.settler.offer(hint, time.monotonic())
        else:
            self.pipeline.submit(change, listed_at=listed_at)

    def offer(self, hint: Hint) -> None:
        """Take an event of a file."""
        if not concerns(hint.root, hint.relative_path):
            return
        if hint.kind is HintKind.GONE:
            self._gone.add((hint.root, hint.relative_path))
        self.settler.offer(hint, time.monotonic())

    def submit_settled(self, *roots: Root) -> None:
        """Submit every file of these roots, by default of all, that has settled."""
        for root in roots or self.roots:
            due = self.settler.of(root).due(time.monotonic())
            if not due:
                continue
            files = self._folders.files(root)
            for _, relative_path, event_at in due:
                self._sidecars[root.name].record(root, relative_path, self.progress.files.begun)
                is_gone = (root, relative_path) in self._gone
                self._gone.discard((root, relative_path))
                if is_gone and files.has_other_case(relative_path):
                    # To read it would find the file under its new name.
                    self._pending[root.name].add(relative_path)
                else:
                    detected_at = time.time() - (time.monotonic() - event_at)
                    self.pipeline.submit(Change(root, relative_path, detected_at, event_at))

    def submit_touched(self, *roots: Root, all_at_once: bool = False) -> bool:
        """Submit files of these roots, by default of all, whose ctime alone changed.

        Others come first: few may be in flight.  Returns False if some are left; with
        `all_at_once` none are.
        """
        queues = [self._touched[root.name] for root in roots or self.roots]
        for touched in queues:
            while all_at_once or self.pipeline.in_flight < 2 * self._settings.read_workers:
                if (next_file := touched.pop()) is None:
                    break
                change, listed_at = next_file
                self.pipeline.submit(change, listed_at=listed_at)
        return not any(queues)

    def submit_outdated(self, *roots: Root) -> bool:
        """Submit pictures of these roots, by default of all, whose sidecars changed.

        False if there are none.
        """
        changes: list[Change] = []
        for sidecars in [self._sidecars[root.name] for root in roots or self.roots]:
            if sidecars:
                changes += persist(
                    lambda: list(sidecars.outdated(self.progress.files.ended_until)),  # noqa: B023
                    self.pipeline.closing,
                    self.outage,
                )
        for change in changes:
            self.pipeline.forget(change)  # the picture file itself is unchanged
            self.pipeline.submit(change)
        return bool(changes)

    def _until_closing(
        self, walked: Iterator[FileOnDisk | Unknown]
    ) -> Iterator[FileOnDisk | Unknown]:
        for each in walked:
            if self.pipeline.closing.is_set():
                raise Stopped
            yield each

    def delete_missing(self, *roots: Root, compared: int = 0, at_once: bool = False) -> bool:
        """Delete documents of missing files that are due.

        `roots` are by default all.  Returns False while some are not due yet.  `compared` is
        `progress.comparisons.ended_until` as it was before the last call of `submit_settled`.
        `at_once` deletes all, because no comparison or file is in progress.
        """
        for root in roots or self.roots:
            self._deletions.delete_due(root, compared, at_once=at_once)
        return not any(self._pending[root.name] for root in roots or self.roots)

    def check_excludes(self) -> None:
        """Raise AlreadyRunning if a daemon watches one of the roots with other excludes."""
        check = partial(check_excludes, self._store, self.roots, self._settings)
        persist(check, self.pipeline.closing, self.outage)

    def make_searchable(self) -> None:
        """Refresh the index: acknowledged documents are searchable on return."""
        persist(self._store.refresh, self.pipeline.closing, self.outage)

    def save_comparisons(self) -> None:
        """Store the last comparisons, and which files cannot be stored, for `status`."""
        for name, each in self.last_comparisons.items():
            each.unreadable = self.pipeline.unreadable(name)
        try:
            plan, activity = self.encoder_plan(), self.pipeline.activity
            save_comparisons(self._store, self.last_comparisons, plan, activity, self._keys)
            self.unstored.save()
        except ImgSearchError as error:
            logger.warning(
                "The last comparisons could not be stored, so `status` does not show them: %s",
                error,
            )

    def resume_ended_pauses(self, *roots: Root) -> list[Root]:
        """Resume roots whose pause `sync --allow-deletes` ended; return them to compare."""
        return self._deletions.resume_ended(roots or self.roots)

    def refresh_post_embed(self) -> None:
        """Load parts trained meanwhile for the step after embedding."""
        self._post_embed.refresh()

    def heartbeat(self, lease: Lease | None = None) -> Heartbeat:
        """Return a new claim on the roots; the caller starts and releases it."""
        return Heartbeat(
            self._store,
            self.roots,
            self._settings.host,
            exclude=self._settings.exclude,
            follow_links=self._settings.follow_links,
            queue=lambda: self.waiting,
            hung=self.disks.hung,
            absent=self.absent,
            comparisons=self.last_comparisons,
            unstored=self.unstored,
            encoder_plan=self.encoder_plan,
            activity=self.pipeline.activity,
            lease_seconds=self._settings.lease_seconds,
            closing=self.pipeline.closing,
            outage=self.outage,
            lease=lease,
        )

    def encoder_plan(self) -> Mapping[str, Any] | None:
        """Return how the encoder runs on this machine; None if it decides itself."""
        return plan_of(self._encoder)
