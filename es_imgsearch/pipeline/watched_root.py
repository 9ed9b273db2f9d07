"""Watch one root of a daemon, in threads that no other root waits for.

    reader      takes file events (the watcher's)
    compare     arms the watches, then compares folders with the index
    loop        submits settled files, deletes documents, looks after the root's folder
    sidecars    reads changed sidecar files
    disk        looks at files after their documents were written (the pipeline's)

A disk that does not answer, such as a dead network share, keeps these threads waiting and no other.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from es_imgsearch.elastic.retry import Stopped, waits
from es_imgsearch.errors import ImgSearchError
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.jobs import RootComparison
from es_imgsearch.records import Root
from es_imgsearch.settings import Settings
from es_imgsearch.watch.settle import Arrivals
from es_imgsearch.watch.sources.polling import Unwatched
from es_imgsearch.watch.sources.registry import source_of
from es_imgsearch.watch.watcher import Hint, HintKind, Watcher

logger = logging.getLogger(__name__)

# How long the loop sleeps if nothing is due: the shorter while deletions are pending.
_TICK_SECONDS = 0.1
_IDLE_SECONDS = 1.0
# How often it is looked whether another process ended a pause, or a missing folder is there.
_LOOK_SECONDS = 2.0

_MISSING = (
    "The folder of %r (%s) is not there: its pictures stay in the index, and it is watched again"
    " when it is back."
)


class WatchedRoot:
    """The threads of one root, until `stop` is set.

    `on_compared` is called after each comparison of the whole root, and when the disk hangs, so
    that the daemon does not wait for it; `on_error` with an error that ends the daemon.
    """

    def __init__(
        self,
        root: Root,
        indexer: Indexer,
        settings: Settings,
        stop: threading.Event,
        *,
        on_compared: Callable[[Root, RootComparison | None], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self.root = root
        # Set to have the loop run at once.
        self.wake = threading.Event()
        self._sidecars_due = threading.Event()
        self._indexer = indexer
        self._settings = settings
        self._stop = stop
        self._on_compared = on_compared
        self._on_error = on_error
        self._disk = indexer.disks.of(root)
        self._watcher = (
            Unwatched()
            if root.is_url
            else Watcher([root], indexer.excludes[root.name], self._on_hint, self._disk)
        )
        # Folders to compare, each with the number of its earliest request.
        self._requests: OrderedDict[str, int] = OrderedDict()
        self._requested = threading.Condition()
        self._comparisons = indexer.progress.comparisons
        # The number of the comparison in progress.
        self._comparing: int | None = None
        self._is_missing = False
        # Device and inode of the folder that is watched.
        self._identity: tuple[int, int] | None = None
        self._is_hung = False
        self._retry_delays = waits()
        self._arrivals = Arrivals(settings.settle_seconds)
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=name, daemon=True)
            for name, work in ((f"compare {root.name}", self._compare_loop),
                               (f"loop {root.name}", self._loop),
                               (f"sidecars {root.name}", self._sidecar_loop))
        ]  # fmt: skip

    def start(self) -> None:
        """Start the threads; the root is watched first and compared then."""
        # Watch first, then compare, so that a change in between is not missed.
        self.request_comparison()
        for thread in self._threads:
            thread.start()

    def end(self) -> threading.Thread:
        """Begin to end after `stop` was set; return the thread that ends the watcher."""
        self.wake.set()
        self._sidecars_due.set()
        with self._requested:
            self._requested.notify_all()
        # The watcher waits for its own thread, which may hang.
        ending = threading.Thread(target=self._watcher.stop, name="unwatch", daemon=True)
        ending.start()
        return ending

    def join(self, deadline: float) -> None:
        """Wait for the threads' end until `time.monotonic()` is `deadline`."""
        for thread in self._threads:
            if thread.ident:
                thread.join(timeout=max(0.0, deadline - time.monotonic()))

    def request_comparison(self, folder: str = "", number: int | None = None) -> None:
        """Queue a folder to be compared; one request covers those for folders below it.

        `number` is the number of a request that is repeated.
        """
        with self._requested:
            if number is None:
                number = self._comparisons.begin()
            for other in list(self._requests):
                if not other or folder == other or folder.startswith(f"{other}/"):
                    # In the queue already: the later number ends, the earlier stays open.
                    first, later = sorted((number, self._requests[other]))
                    self._requests[other] = first
                    self._comparisons.end(later)
                    return
                if not folder or other.startswith(f"{folder}/"):
                    number, later = sorted((number, self._requests.pop(other)))
                    self._comparisons.end(later)
            self._requests[folder] = number
            self._requested.notify_all()

    def check_disk(self) -> None:
        """Log whether the disk answers; for a thread that does not use it."""
        seconds = self._disk.hung_seconds
        if not seconds:
            if self._is_hung:
                self._is_hung = False
                logger.warning("The disk of %r answers again.", self.root.name)
                self.request_comparison()
            return
        if not self._is_hung:
            self._is_hung = True
            logger.warning(
                "The disk of %r (%s) has not answered for %.0f s: its pictures stay in the index."
                " Other folders go on. Check the disk, or the network share that is mounted there.",
                self.root.name, self.root.path, seconds,
            )  # fmt: skip
        # Deletions in other roots wait for all comparisons, so that a moved file is found first,
        # and for the acknowledgement of files submitted before.
        self._indexer.pipeline.end_tickets(self.root)
        with self._requested:
            self._comparisons.end(*self._requests.values())
            if self._comparing is not None:
                self._comparisons.end(self._comparing)
        self._on_compared(self.root, None)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Stopped:
            logger.debug("The pipeline has ended.")
        except BaseException as error:  # noqa: BLE001 - raised by `Daemon.run`
            self._on_error(error)

    # -- the loop -----------------------------------------------------------------------------

    def _loop(self) -> None:
        root, indexer = self.root, self._indexer
        settler = indexer.settler.of(root)
        next_poll = time.monotonic() + self._settings.poll_seconds
        next_look = 0.0
        while not self._stop.is_set():
            self.wake.clear()
            compared = self._comparisons.ended_until
            indexer.submit_settled(root)
            self._sidecars_due.set()
            all_read = indexer.submit_touched(root)
            if settler.take_overflowed():
                self.request_comparison()
            all_deleted = indexer.delete_missing(root, compared=compared)
            is_paused = root.name in indexer.paused
            if self._arrivals.is_due(indexer.settler.arrived, is_paused=is_paused):
                self.request_comparison()
            if time.monotonic() >= next_poll:
                next_poll = time.monotonic() + self._settings.poll_seconds
                self._poll()
            elif time.monotonic() >= next_look:
                next_look = time.monotonic() + _LOOK_SECONDS
                if root.name in indexer.paused:
                    self._resume_if_ended()
                if self._is_missing:
                    self._check_folders()
            due_at = settler.next_due_at()
            sleep = _IDLE_SECONDS if all_deleted and all_read else _TICK_SECONDS
            if due_at is not None:
                sleep = max(0.0, min(sleep, due_at - time.monotonic()))
            self.wake.wait(sleep)

    def _sidecar_loop(self) -> None:
        while not self._stop.is_set():
            self._sidecars_due.wait()
            self._sidecars_due.clear()
            self._indexer.submit_outdated(self.root)

    def _poll(self) -> None:
        """Check for changes without an event: ended pauses, the root, refused folders."""
        self._resume_if_ended()
        self._check_folders()
        if self.root.is_url and not self._is_missing:
            self.request_comparison()

    def _resume_if_ended(self) -> None:
        try:
            if self._indexer.resume_ended_pauses(self.root):
                self.request_comparison()
        except ImgSearchError as error:
            if not error.transient:
                raise
            self._indexer.outage.begin(error, f"poll {self.root.name}")
        else:
            self._indexer.outage.end(f"poll {self.root.name}")

    def _check_folders(self) -> None:
        if self._is_missing:
            with self._disk.calling():
                # Path.is_dir raises for a stale mount.
                is_there = not self.root.is_url and os.path.isdir(self.root.path)
            if is_there or (self.root.is_url and self._look()):
                self._take_back("The folder of %r is there again: it is watched and compared.")
        elif (found := self._look()) is None:
            self._miss(_MISSING)
            self.request_comparison()
        elif found != self._identity:
            # Another file system was mounted there: no event tells of it.
            self._take_back("Another disk or folder is in the place of %r: it is compared.")
        elif refused := self._watcher.refused(self.root):
            # The limit of inotify watches may have been raised; existing watches stay.
            self._watcher.rearm(self.root)
            for folder in sorted(refused):
                self.request_comparison(folder)

    def _take_back(self, message: str) -> None:
        """Watch the folder that is there now, and compare it."""
        self._identity = self._look()
        self._watcher.rearm(self.root)
        self._is_missing = False
        self._indexer.absent.discard(self.root.name)
        logger.warning(message, self.root.name)
        self.request_comparison()

    def _look(self) -> tuple[int, int] | None:
        """Return device and inode of the root's folder; None if there is no folder."""
        try:
            with self._disk.calling():
                if self.root.is_url:
                    return source_of(str(self.root.path)).check(), 0
                status = os.stat(self.root.path)
        except OSError:
            return None
        return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None

    def _miss(self, message: str) -> None:
        """Note that the folder is missing, once."""
        if not self._is_missing:
            self._is_missing = True
            self._indexer.absent.add(self.root.name)
            logger.warning(message, self.root.name, self.root.path)

    def _on_hint(self, hint: Hint) -> None:
        if hint.kind not in {HintKind.GONE, HintKind.ROOT_GONE}:
            self._indexer.settler.arrived += 1
        if hint.kind is HintKind.SUBTREE:
            self.request_comparison(hint.relative_path)
        elif hint.kind is HintKind.OVERFLOW:
            self.request_comparison()
        else:
            self._indexer.offer(hint)
        if hint.kind is HintKind.ROOT_GONE:
            self._miss(_MISSING)
            self.request_comparison()
        self.wake.set()

    # -- comparisons --------------------------------------------------------------------------

    def _compare_loop(self) -> None:
        self._identity = self._look()
        self._watcher.start()
        if self._identity is None:
            self._miss(
                "The folder of %r (%s) is not there: what the index holds of it stays, and it is"
                " watched when it comes."
            )
        while (request := self._next_request()) is not None:
            folder, number = request
            comparison = self._compare(folder, number)
            self.wake.set()
            if comparison is not None and not folder:
                self._on_compared(self.root, comparison)

    def _next_request(self) -> tuple[str, int] | None:
        with self._requested:
            self._comparing = None
            while not self._requests and not self._stop.is_set():
                self._requested.wait()
            if self._stop.is_set():
                return None
            folder, self._comparing = self._requests.popitem(last=False)
            return folder, self._comparing

    def _compare(self, folder: str, number: int) -> RootComparison | None:
        """Compare a folder; on a transient error queue it again and return None."""
        thread = f"compare {self.root.name}"
        try:
            comparison = self._indexer.reconcile(self.root, folder)
            for change in self._indexer.leftovers.unseen.take(self.root, folder):
                self._indexer.pipeline.submit(change)
        except ImgSearchError as error:
            if not error.transient:
                raise
            self._indexer.outage.begin(error, thread)
            self.request_comparison(folder, number)
            self._stop.wait(next(self._retry_delays))
            return None
        self._comparisons.end(number)
        self._indexer.outage.end(thread)
        self._retry_delays = waits()
        return comparison
