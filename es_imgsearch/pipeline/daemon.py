"""The daemon: events make it fast, reconciling makes it right.

Threads besides the pipeline's: the watcher's (reads events), one for settled files and
deletions, one that reconciles, and one that tells `status` of it.  Order of stopping: no
more events, no more comparisons, what is in flight is finished within `shutdown_seconds`, then
the pipeline ends.
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
from es_imgsearch.pipeline.jobs import Pass
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
        self._asked = 0
        self._comparing: int | None = None
        indexer.comparisons_asked = lambda: self._asked
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
        # Armed first, then scanned: what changes in between is seen by one or by both.
        self._watcher.start()
        comparer.start()
        self._presence.start()
        for root in self._indexer.roots:
            self._request(root)
        looper = threading.Thread(target=self._guarded_loop, name="loop", daemon=True)
        looper.start()
        try:
            # Waiting here and not in a request that Elasticsearch does not answer.
            self._stop.wait()
        finally:
            self.stop()
            stopper.join()
            self._watcher.stop()
            self._presence.leave()
            within_seconds = max(0.0, self._settings.shutdown_seconds - _LAST_SECONDS)
            if self._is_switched:
                # What is in flight cannot be written any more; the next daemon finds it.
                within_seconds = 0.0
            drained = self._indexer.pipeline.close(within_seconds=within_seconds)
            deadline = time.monotonic() + _LAST_SECONDS
            for thread in (looper, comparer):
                thread.join(timeout=max(0.0, deadline - time.monotonic()))
            self._presence.join(max(0.0, deadline - time.monotonic()))
        if self._error is None and self._is_switched:
            self._error = self._indexer.pipeline.fatal
        if self._error is not None:
            raise self._error
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
            compared = self._compared
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
            self._indexer.follow_codes()
        except ImgSearchError as error:
            if not error.transient:
                raise
            self._indexer.outage.begins(error, "poll")
        else:
            self._indexer.outage.ends("poll")
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
                self._asked += 1
                number = self._asked
            for other_root, other in list(self._requests):
                if other_root == root and (
                    not other or folder == other or folder.startswith(f"{other}/")
                ):
                    self._requests[other_root, other] = min(
                        number, self._requests[other_root, other]
                    )
                    return
                if other_root == root and (not folder or other.startswith(f"{folder}/")):
                    number = min(number, self._requests.pop((other_root, other)))
            self._requests[root, folder] = number
            self._requested.notify_all()

    @property
    def _compared(self) -> int:
        """All comparisons asked for up to this number have ended."""
        with self._requested:
            open_numbers = list(self._requests.values())
            if self._comparing is not None:
                open_numbers.append(self._comparing)
            return min(open_numbers, default=self._asked + 1) - 1

    def _compare_loop(self) -> None:
        waiting_for = set(self._indexer.roots)
        try:
            while (request := self._next_request()) is not None:
                root, folder = request
                found = self._compare(root, folder)
                with self._requested:
                    self._comparing = None
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

    def _next_request(self) -> tuple[Root, str] | None:
        with self._requested:
            while not self._requests and not self._stop.is_set():
                self._requested.wait()
            if self._stop.is_set():
                return None
            request, self._comparing = self._requests.popitem(last=False)
            return request

    def _compare(self, root: Root, folder: str) -> Pass | None:
        """One comparison; None if it has to be made again later."""
        try:
            found = self._indexer.reconcile(root, folder)
        except ImgSearchError as error:
            if not error.transient:
                raise
            self._indexer.outage.begins(error, f"compare {root.name}")
            self._request(root, folder, self._comparing)
            self._stop.wait(next(self._pauses))
            return None
        self._indexer.outage.ends(f"compare {root.name}")
        self._pauses = waits()
        return found
