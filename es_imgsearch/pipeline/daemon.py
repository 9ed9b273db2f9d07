"""Keep an index up to date by file events and by comparisons of folders with it.

Events make updates fast; comparisons find what events missed.  Each root has threads of its own
(`WatchedRoot`).  Of the daemon's, one checks the index and the roots' disks, one renews the claim
on the roots, and one waits for the request to stop; none of them uses a disk.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from es_imgsearch.elastic.leases import Lease
from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.errors import GenerationSwitched, ImgSearchError, IndexMissing, counted
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.jobs import RootComparison
from es_imgsearch.pipeline.reporting.daemon_log import DaemonLog
from es_imgsearch.pipeline.watched_root import WatchedRoot
from es_imgsearch.records import Root
from es_imgsearch.settings import Settings

logger = logging.getLogger(__name__)

_TICK_SECONDS = 1.0

# The part of `shutdown_seconds` for threads that only wait for Elasticsearch.
_JOIN_SECONDS = 0.5


class Daemon:
    """Watch the indexer's roots until `stop`, or until `reindex` switches the index."""

    def __init__(
        self,
        indexer: Indexer,
        settings: Settings,
        on_ready: Callable[[], None] = lambda: None,
        lease: Lease | None = None,
    ) -> None:
        """A `lease` was acquired before; it is the daemon's from now on."""
        self._indexer = indexer
        self._settings = settings
        self._on_ready = on_ready
        self._heartbeat = indexer.heartbeat(lease)
        self._log = DaemonLog(indexer, settings.index)
        self._wake = threading.Event()
        self._stop = threading.Event()
        # `stop` may run in a signal handler, which can interrupt the thread that holds the lock of
        # an Event; a SimpleQueue is reentrant.
        self._stop_requests: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        # Roots that were neither compared nor found to hang yet.
        self._not_compared = set(indexer.roots)
        self._lock = threading.Lock()
        self._watched = [
            WatchedRoot(
                root,
                indexer,
                settings,
                self._stop,
                on_compared=self._on_compared,
                on_error=self._fail,
            )
            for root in indexer.roots
        ]

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
        stopper = threading.Thread(target=self._await_stop, name="stop", daemon=True)
        stopper.start()
        try:
            self._heartbeat.start()
        except Stopped:
            return True
        except BaseException:
            self.stop()
            raise
        for each in self._watched:
            each.start()
        looper = threading.Thread(target=self._guard, args=(self._loop,), name="loop", daemon=True)
        looper.start()
        try:
            # The main thread sends no requests, which may get no answer.
            self._stop.wait()
            if self._error is None:
                waiting = self._indexer.waiting
                logger.info("Stopping%s.", f": {counted(waiting, 'file')} in hand" * bool(waiting))
        finally:
            drained = self._close(stopper, looper)
            self._log.close()
        if self._error is None and self._is_switched:
            self._error = self._indexer.pipeline.fatal
        if self._error is not None:
            if isinstance(self._error, IndexMissing):
                # Raises a clearer error if the index was made again.
                self._indexer.check_generation()
            raise self._error
        return drained

    def _close(self, stopper: threading.Thread, looper: threading.Thread) -> bool:
        """End all threads in order; False if files in flight were given up."""
        # Wake every thread that waits for a slot of the pipeline, a request, or Elasticsearch.
        self.stop()
        stopper.join()
        # No more events: they would add files in flight.  A disk that hangs is not waited for.
        endings = [each.end() for each in self._watched]
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in endings:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
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
        looper.join(timeout=max(0.0, deadline - time.monotonic()))
        for each in self._watched:
            each.join(deadline)
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

    def _guard(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except Stopped:
            logger.debug("The pipeline has ended.")
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            self._fail(error)
        finally:
            self.stop()

    def _fail(self, error: BaseException) -> None:
        """Stop; `run` raises the first error."""
        with self._lock:
            self._error = self._error or error
        self.stop()

    def _loop(self) -> None:
        next_full = time.monotonic() + self._settings.reconcile_minutes * 60
        next_poll = time.monotonic() + self._settings.poll_seconds
        while not self._stop.is_set():
            self._wake.clear()
            if self._indexer.pipeline.fatal is not None:
                raise self._indexer.pipeline.fatal
            self._heartbeat.check()
            self._log.tick()
            for each in self._watched:
                each.check_disk()
            now = time.monotonic()
            if now >= next_full:
                next_full = now + self._settings.reconcile_minutes * 60
                for each in self._watched:
                    each.request_comparison()
            if now >= next_poll:
                next_poll = now + self._settings.poll_seconds
                self._poll()
            self._wake.wait(_TICK_SECONDS)

    def _poll(self) -> None:
        """Check for another generation, and for parts that were trained meanwhile."""
        try:
            self._indexer.check_generation()
            self._indexer.refresh_post_embed()
        except ImgSearchError as error:
            if not error.transient:
                raise
            self._indexer.outage.begin(error, "poll")
        else:
            self._indexer.outage.end("poll")

    def _on_compared(self, root: Root, comparison: RootComparison | None) -> None:
        """Log a comparison, None for a root that hangs: the others are ready without it."""
        if comparison is not None:
            self._heartbeat.renew_soon()
            self._log.compared(root, comparison)
        with self._lock:
            is_last = self._not_compared == {root}
            self._not_compared.discard(root)
        if is_last:
            self._on_ready()
