"""The daemon: events make it fast, reconciling makes it right.

Its threads, in addition to the pipeline's: one reads events (the watcher), one submits settled
files and runs deletions, one compares folders with the index, and one reports to `status`.
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
from es_imgsearch.errors import GenerationSwitched, ImgSearchError
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.jobs import RootComparison
from es_imgsearch.records import Root
from es_imgsearch.settings import Settings
from es_imgsearch.watch.watcher import Hint, HintKind, Watcher

logger = logging.getLogger(__name__)

# How long the loop sleeps when nothing is due; deletions ripen in these steps.
_TICK_SECONDS = 0.1
_IDLE_SECONDS = 1.0

# Of `shutdown_seconds`, for the threads that only ask Elasticsearch.
_LAST_SECONDS = 0.5


class Daemon:
    """Watches the indexer's roots until `stop` is called, or `reindex` switches the index."""

    def __init__(
        self, indexer: Indexer, settings: Settings, on_ready: Callable[[], None] = lambda: None
    ) -> None:
        self._indexer = indexer
        self._settings = settings
        self._on_ready = on_ready
        self._watcher = Watcher(indexer.roots, indexer.excludes, self._hint)
        self._presence = indexer.presence()
        self._wake = threading.Event()
        self._stop = threading.Event()
        # A signal handler may interrupt whoever holds an event's lock; this queue has none.
        self._stop_wanted: queue.SimpleQueue[None] = queue.SimpleQueue()
        # Folders to compare, each with the number of the earliest request it stands for.
        self._requests: OrderedDict[tuple[Root, str], int] = OrderedDict()
        self._requested = threading.Condition()
        self._comparisons = indexer.progress.comparisons
        self._error: BaseException | None = None
        self._gone_roots: set[Root] = set()
        self._pauses = waits()

    def stop(self) -> None:
        """Begin to stop; `run` returns when everything has ended.  Safe in a signal handler."""
        self._stop_wanted.put(None)

    def run(self) -> bool:
        """Watch until stopped; False if something in flight was left for the next start.

        Raises what ended the daemon if it was not `stop`: GenerationSwitched where one of the
        index's next generation has to take over.
        """
        comparer = threading.Thread(target=self._compare_loop, name="reconcile", daemon=True)
        stopper = threading.Thread(target=self._await_stop, name="stop", daemon=True)
        stopper.start()
        try:
            self._presence.start()
        except Stopped:
            return True
        except BaseException:
            self.stop()
            raise
        # Armed first, then scanned: what changes in between is seen by one or by both.
        self._watcher.start()
        comparer.start()
        for root in self._indexer.roots:
            self._request(root)
        looper = threading.Thread(target=self._guarded_loop, name="loop", daemon=True)
        looper.start()
        try:
            # Wait here and not in a request that Elasticsearch does not answer.
            self._stop.wait()
        finally:
            drained = self._close(stopper, looper, comparer)
        if self._error is None and self._is_switched:
            self._error = self._indexer.pipeline.fatal
        if self._error is not None:
            raise self._error
        return drained

    def _close(self, stopper: threading.Thread, *loops: threading.Thread) -> bool:
        """End everything in order; False if something in flight was left for the next start."""
        # Wake every thread that waits: for a place in the pipeline, a request, or Elasticsearch.
        self.stop()
        stopper.join()
        # No more events: they would only add to what is in flight.
        self._watcher.stop()
        # Finish what is in flight, unless another generation serves: then it cannot be written any
        # more, and the next daemon finds it.
        within_seconds = max(0.0, self._settings.shutdown_seconds - _LAST_SECONDS)
        drained = self._indexer.pipeline.close(
            within_seconds=0.0 if self._is_switched else within_seconds
        )
        # Give up the roots; only now may another daemon have them.
        self._presence.leave()
        # These may be in a request without an answer: they get a moment, and are left behind then.
        deadline = time.monotonic() + _LAST_SECONDS
        for thread in loops:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
        self._presence.join(max(0.0, deadline - time.monotonic()))
        return drained

    @property
    def _is_switched(self) -> bool:
        errors = (self._error, self._indexer.pipeline.fatal)
        return any(isinstance(each, GenerationSwitched) for each in errors)

    def _await_stop(self) -> None:
        self._stop_wanted.get()
        self._stop.set()
        # Whoever waits for a place in the pipeline, or for Elasticsearch, is woken by this.
        self._indexer.pipeline.closing.set()
        self._wake.set()
        with self._requested:
            self._requested.notify_all()

    def _guarded_loop(self) -> None:
        try:
            self._loop()
        except Stopped:
            logger.debug("The pipeline has ended.")
        except BaseException as error:  # noqa: BLE001 - ends the daemon, which tells it
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
            self._presence.check()
            compared = self._comparisons.ended_until
            self._indexer.submit_settled()
            self._indexer.submit_outdated()
            for root in self._indexer.settler.take_overflowed():
                self._request(root)
            all_deleted = self._indexer.delete_gone(compared=compared)
            now = time.monotonic()
            if now >= next_full:
                next_full = now + self._settings.reconcile_minutes * 60
                for root in self._indexer.roots:
                    self._request(root)
            if now >= next_poll:
                next_poll = now + self._settings.poll_seconds
                self._poll()
            due_at = self._indexer.settler.next_due_at()
            sleep = _IDLE_SECONDS if all_deleted else _TICK_SECONDS
            if due_at is not None:
                sleep = max(0.0, min(sleep, due_at - time.time()))
            self._wake.wait(sleep)

    def _poll(self) -> None:
        """Compare what gets no events; look what has changed that no event tells of."""
        try:
            self._indexer.check_generation()
            for root in self._indexer.pauses_ended():
                self._request(root)
            self._indexer.refresh_post_embed()
        except ImgSearchError as error:
            if not error.transient:
                raise
            self._indexer.outage.begin(error, "poll")
        else:
            self._indexer.outage.end("poll")
        for root in self._indexer.roots:
            if root in self._gone_roots:
                # Path.is_dir raises for a mount that is stale.
                if os.path.isdir(root.path):
                    self._watcher.rearm(root)
                    self._gone_roots.discard(root)
                    logger.warning("The folder of %r is back.", root.name)
                    self._request(root)
                continue
            if refused := self._watcher.refused(root):
                # Perhaps the quota was raised; what has a watch keeps it.
                self._watcher.rearm(root)
                for folder in sorted(refused):
                    self._request(root, folder)

    def _hint(self, hint: Hint) -> None:
        if hint.kind is HintKind.SUBTREE:
            self._request(hint.root, hint.relative_path)
        elif hint.kind is HintKind.OVERFLOW:
            self._request(hint.root)
        elif hint.kind is HintKind.ROOT_GONE:
            self._indexer.settler.offer(hint, time.time())
            if hint.root not in self._gone_roots:
                self._gone_roots.add(hint.root)
                logger.warning(
                    "The folder of %r is gone; what the index holds of it stays.", hint.root.name
                )
            self._request(hint.root)
        else:
            self._indexer.settler.offer(hint, time.time())
        self._wake.set()

    def _request(self, root: Root, folder: str = "", number: int | None = None) -> None:
        """Have a folder compared; one request covers those for the folders below it.

        `number` is that of a request that has to be made again.
        """
        with self._requested:
            if number is None:
                number = self._comparisons.begin()
            for other_root, other in list(self._requests):
                if other_root != root:
                    continue
                if not other or folder == other or folder.startswith(f"{other}/"):
                    # The earlier number stays open; all up to the later one end with it.
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
        waiting_for = set(self._indexer.roots)
        try:
            while (request := self._next_request()) is not None:
                (root, folder), number = request
                found = self._compare(root, folder, number)
                self._wake.set()
                if found is None or folder:
                    continue
                self._presence.tell()
                logger.info(
                    "Compared %r in %.1f s: %d new, %d changed, %d gone.",
                    root.name, found.seconds, found.new, found.changed, found.lost,
                )  # fmt: skip
                if waiting_for and not (waiting_for := waiting_for - {root}):
                    self._on_ready()
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001 - ends the daemon, which tells it
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
        """One comparison; None if it has to be made again later."""
        try:
            found = self._indexer.reconcile(root, folder)
        except ImgSearchError as error:
            if not error.transient:
                raise
            self._indexer.outage.begin(error, f"compare {root.name}")
            self._request(root, folder, number)
            self._stop.wait(next(self._pauses))
            return None
        self._comparisons.end(number)
        self._indexer.outage.end(f"compare {root.name}")
        self._pauses = waits()
        return found
