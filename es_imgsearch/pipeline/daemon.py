"""Keep an index up to date by file events and by comparisons of folders with it.

Events make updates fast; comparisons find what events missed.  Threads, in addition to the
pipeline's: one reads events (the watcher), one submits settled files and runs deletions, one reads
changed sidecars, one compares folders with the index, and one renews the claim on the roots.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from es_imgsearch.elastic.retry import Stopped, waits
from es_imgsearch.errors import GenerationSwitched, ImgSearchError, IndexMissing
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.jobs import RootComparison
from es_imgsearch.records import Root
from es_imgsearch.settings import Settings
from es_imgsearch.watch.watcher import Hint, HintKind, Watcher

logger = logging.getLogger(__name__)

# How long the loop sleeps if nothing is due: the shorter while deletions are pending.
_TICK_SECONDS = 0.1
_IDLE_SECONDS = 1.0

# The part of `shutdown_seconds` for threads that only wait for Elasticsearch.
_JOIN_SECONDS = 0.5


class Daemon:
    """Watch the indexer's roots until `stop`, or until `reindex` switches the index."""

    def __init__(
        self, indexer: Indexer, settings: Settings, on_ready: Callable[[], None] = lambda: None
    ) -> None:
        self._indexer = indexer
        self._settings = settings
        self._on_ready = on_ready
        self._watcher = Watcher(indexer.roots, indexer.excludes, self._on_hint)
        self._heartbeat = indexer.heartbeat()
        self._wake = threading.Event()
        self._sidecars_due = threading.Event()
        self._stop = threading.Event()
        # `stop` may run in a signal handler, which can interrupt the thread that holds the lock of
        # an Event; a SimpleQueue is reentrant.
        self._stop_requests: queue.SimpleQueue[None] = queue.SimpleQueue()
        # Folders to compare, each with the number of its earliest request.
        self._requests: OrderedDict[tuple[Root, str], int] = OrderedDict()
        self._requested = threading.Condition()
        self._comparisons = indexer.progress.comparisons
        self._error: BaseException | None = None
        self._missing_roots: set[Root] = set()
        self._retry_delays = waits()

    def stop(self) -> None:
        """Begin to stop.

        `run` returns when all threads have ended.  Safe in a signal handler.
        """
        self._stop_requests.put(None)

    def run(self) -> bool:
        """Watch until stopped; False if files in flight were given up.

        Raises the error that ended the daemon: GenerationSwitched if a daemon on the index's next
        generation has to take over.
        """
        comparer = threading.Thread(target=self._compare_loop, name="reconcile", daemon=True)
        stopper = threading.Thread(target=self._await_stop, name="stop", daemon=True)
        stopper.start()
        try:
            self._heartbeat.start()
        except Stopped:
            return True
        except BaseException:
            self.stop()
            raise
        # Watch first, then compare, so that a change in between is not missed.
        self._watcher.start()
        comparer.start()
        for root in self._indexer.roots:
            self._request_comparison(root)
        loops = [
            threading.Thread(target=self._guard, args=(loop,), name=name, daemon=True)
            for name, loop in (("loop", self._loop), ("sidecars", self._sidecar_loop))
        ]
        for thread in loops:
            thread.start()
        try:
            # The main thread sends no requests, which may get no answer.
            self._stop.wait()
        finally:
            drained = self._close(stopper, *loops, comparer)
        if self._error is None and self._is_switched:
            self._error = self._indexer.pipeline.fatal
        if self._error is not None:
            if isinstance(self._error, IndexMissing):
                # Raises a clearer error if the index was made again.
                self._indexer.check_generation()
            raise self._error
        return drained

    def _close(self, stopper: threading.Thread, *loops: threading.Thread) -> bool:
        """End all threads in order; False if files in flight were given up."""
        # Wake every thread that waits for a slot of the pipeline, a request, or Elasticsearch.
        self.stop()
        stopper.join()
        # No more events: they would add files in flight.
        self._watcher.stop()
        # Finish the files in flight.  After a switch they cannot be written any more: the next
        # daemon finds them.
        within_seconds = max(0.0, self._settings.shutdown_seconds - _JOIN_SECONDS)
        drained = self._indexer.pipeline.close(
            within_seconds=0.0 if self._is_switched else within_seconds
        )
        # Release the roots, now that nothing is written any more.
        self._heartbeat.release()
        # These may wait for an answer: after a short time they are left behind.
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in loops:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
        self._heartbeat.join(max(0.0, deadline - time.monotonic()))
        return drained

    @property
    def _is_switched(self) -> bool:
        errors = (self._error, self._indexer.pipeline.fatal)
        return any(isinstance(each, GenerationSwitched) for each in errors)

    def _await_stop(self) -> None:
        self._stop_requests.get()
        self._stop.set()
        # Wakes threads that wait for a slot of the pipeline, or for Elasticsearch.
        self._indexer.pipeline.closing.set()
        self._wake.set()
        self._sidecars_due.set()
        with self._requested:
            self._requested.notify_all()

    def _guard(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except Stopped:
            logger.debug("The pipeline has ended.")
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            self._error = error
        finally:
            self.stop()

    def _loop(self) -> None:
        next_full = time.monotonic() + self._settings.reconcile_minutes * 60
        next_poll = time.monotonic() + self._settings.poll_seconds
        while not self._stop.is_set():
            self._wake.clear()
            if self._indexer.pipeline.fatal is not None:
                raise self._indexer.pipeline.fatal
            self._heartbeat.check()
            compared = self._comparisons.ended_until
            self._indexer.submit_settled()
            self._sidecars_due.set()
            all_read = self._indexer.submit_touched()
            for root in self._indexer.settler.take_overflowed():
                self._request_comparison(root)
            all_deleted = self._indexer.delete_missing(compared=compared)
            now = time.monotonic()
            if now >= next_full:
                next_full = now + self._settings.reconcile_minutes * 60
                for root in self._indexer.roots:
                    self._request_comparison(root)
            if now >= next_poll:
                next_poll = now + self._settings.poll_seconds
                self._poll()
            due_at = self._indexer.settler.next_due_at()
            sleep = _IDLE_SECONDS if all_deleted and all_read else _TICK_SECONDS
            if due_at is not None:
                sleep = max(0.0, min(sleep, due_at - time.time()))
            self._wake.wait(sleep)

    def _sidecar_loop(self) -> None:
        # In a thread of its own: files of a share may be slow to read.
        while not self._stop.is_set():
            self._sidecars_due.wait()
            self._sidecars_due.clear()
            self._indexer.submit_outdated()

    def _poll(self) -> None:
        """Check for changes without an event: generation, ended pauses, missing roots."""
        try:
            self._indexer.check_generation()
            for root in self._indexer.resume_ended_pauses():
                self._request_comparison(root)
            self._indexer.refresh_post_embed()
        except ImgSearchError as error:
            if not error.transient:
                raise
            self._indexer.outage.begin(error, "poll")
        else:
            self._indexer.outage.end("poll")
        for root in self._indexer.roots:
            if root in self._missing_roots:
                # Path.is_dir raises for a stale mount.
                if os.path.isdir(root.path):
                    self._watcher.rearm(root)
                    self._missing_roots.discard(root)
                    logger.warning("The folder of %r is back.", root.name)
                    self._request_comparison(root)
                continue
            if refused := self._watcher.refused(root):
                # The limit of inotify watches may have been raised; existing watches stay.
                self._watcher.rearm(root)
                for folder in sorted(refused):
                    self._request_comparison(root, folder)

    def _on_hint(self, hint: Hint) -> None:
        if hint.kind is HintKind.SUBTREE:
            self._request_comparison(hint.root, hint.relative_path)
        elif hint.kind is HintKind.OVERFLOW:
            self._request_comparison(hint.root)
        elif hint.kind is HintKind.ROOT_GONE:
            self._indexer.settler.offer(hint, time.time())
            if hint.root not in self._missing_roots:
                self._missing_roots.add(hint.root)
                logger.warning(
                    "The folder of %r is missing: its documents stay in the index.", hint.root.name
                )
            self._request_comparison(hint.root)
        else:
            self._indexer.offer(hint)
        self._wake.set()

    def _request_comparison(self, root: Root, folder: str = "", number: int | None = None) -> None:
        """Queue a folder to be compared; one request covers those for folders below it.

        `number` is the number of a request that is repeated.
        """
        with self._requested:
            if number is None:
                number = self._comparisons.begin()
            for other_root, other in list(self._requests):
                if other_root != root:
                    continue
                if not other or folder == other or folder.startswith(f"{other}/"):
                    # In the queue already: the later number ends, the earlier stays open.
                    first, later = sorted((number, self._requests[root, other]))
                    self._requests[root, other] = first
                    self._comparisons.end(later)
                    return
                if not folder or other.startswith(f"{folder}/"):
                    number, later = sorted((number, self._requests.pop((root, other))))
                    self._comparisons.end(later)
            self._requests[root, folder] = number
            self._requested.notify_all()

    def _compare_loop(self) -> None:
        not_compared = set(self._indexer.roots)
        try:
            while (request := self._next_request()) is not None:
                (root, folder), number = request
                comparison = self._compare(root, folder, number)
                self._wake.set()
                if comparison is None or folder:
                    continue
                self._heartbeat.renew_soon()
                logger.info(
                    "Compared %r in %.1f s: %d new, %d changed, %d missing.",
                    root.name, comparison.seconds,
                    comparison.new, comparison.changed, comparison.lost,
                )  # fmt: skip
                if not_compared and not (not_compared := not_compared - {root}):
                    self._on_ready()
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            self._error = error
            self.stop()

    def _next_request(self) -> tuple[tuple[Root, str], int] | None:
        with self._requested:
            while not self._requests and not self._stop.is_set():
                self._requested.wait()
            if self._stop.is_set():
                return None
            return self._requests.popitem(last=False)

    def _compare(self, root: Root, folder: str, number: int) -> RootComparison | None:
        """Compare a folder; on a transient error queue it again and return None."""
        try:
            comparison = self._indexer.reconcile(root, folder)
        except ImgSearchError as error:
            if not error.transient:
                raise
            self._indexer.outage.begin(error, f"compare {root.name}")
            self._request_comparison(root, folder, number)
            self._stop.wait(next(self._retry_delays))
            return None
        self._comparisons.end(number)
        self._indexer.outage.end(f"compare {root.name}")
        self._retry_delays = waits()
        return comparison
