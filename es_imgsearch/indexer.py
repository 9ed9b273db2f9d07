"""Keeps an index like folders: reconcile, pipeline and deletions put together.

`sync` runs one pass of it; `Daemon` runs it for good.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from es_imgsearch.backoff import Outage, persist
from es_imgsearch.deletions import Deletions, Pause
from es_imgsearch.embed import Encoder
from es_imgsearch.excludes import Excludes
from es_imgsearch.mapping import Meta
from es_imgsearch.pipeline import Counts, Pipeline
from es_imgsearch.reconcile import Kind, Unknown, differences, walk
from es_imgsearch.records import Change, Root
from es_imgsearch.settings import Settings
from es_imgsearch.settle import Settler
from es_imgsearch.store import Store
from es_imgsearch.watch import Hint, HintKind

logger = logging.getLogger(__name__)

# A file that never stops growing must not keep `sync` from ending.
_UNSETTLED_SECONDS = 30.0


@dataclass(slots=True)
class Pass:
    """What one reconcile found."""

    new: int = 0
    changed: int = 0
    lost: int = 0
    unknown: int = 0
    seconds: float = 0.0


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
    ) -> None:
        """`warm_up` loads the model at once, so that the first picture does not wait for it."""
        self.roots = tuple(roots)
        self.excludes = Excludes(settings.exclude)
        self.settler = Settler(settings.settle_seconds)
        self.paused: dict[str, Pause] = {}
        self.found = 0
        self._store = store
        self._settings = settings
        self._gone: dict[str, dict[str, tuple[int, float]]] = {root.name: {} for root in roots}
        self._gone_lock = threading.Lock()
        self._deletions = Deletions(
            store,
            self.excludes.prunes,
            max_delete_share=settings.max_delete_share,
            allow=allow_deletes,
        )
        for root in roots:
            self._deletions.remember_device(root)
        self.pipeline = Pipeline(
            store,
            encoder,
            settings,
            on_gone=self._note_gone,
            on_unsettled=self._note_unsettled,
            warm_up=warm_up,
        )

    @property
    def counts(self) -> Counts:
        return self.pipeline.counts

    @property
    def outage(self) -> Outage:
        return self.pipeline.outage

    def reconcile(self, root: Root, folder: str = "") -> Pass:
        """Compare a root, or one of its folders, with the index and work off the difference.

        Waits for places in the pipeline, not for its end; what is lost waits for
        `delete_gone`.
        """
        started = time.monotonic()
        found = Pass()

        def unknown(what: Unknown) -> None:
            found.unknown += 1
            logger.warning(
                "%s cannot be looked at (%s); what the index holds of it stays.",
                root.absolute(what.stored_path),
                what.reason,
            )

        self._store.refresh()
        disk = walk(root, self.excludes.prunes, folder)
        documents = self._store.listing(root.name, folder)
        failures = self._store.listing(root.name, folder, failures=True)
        for difference in differences(disk, documents, failures, unknown):
            if difference.kind is Kind.LOST:
                found.lost += 1
                self._note_gone(Change(root, difference.relative_path, time.time()))
                continue
            self.found += 1
            found.new += difference.kind is Kind.NEW
            found.changed += difference.kind is Kind.CHANGED
            now = time.time()
            state = difference.state
            if state is not None and now - state.mtime_ns / 1e9 < self._settings.settle_seconds:
                # Perhaps somebody is still writing it.
                self.settler.offer(Hint(root, difference.relative_path, HintKind.TOUCHED), now)
            else:
                self.pipeline.submit(Change(root, difference.relative_path, now))
        found.seconds = time.monotonic() - started
        return found

    def submit_settled(self) -> None:
        """Give the pipeline every file that has settled."""
        for root, relative_path, detected_at in self.settler.due(time.time()):
            self.pipeline.submit(Change(root, relative_path, detected_at))

    def delete_gone(self, *, patience_seconds: float | None = None) -> bool:
        """Delete what has been gone for a moment and whose additions are acknowledged.

        A file moved is first seen as gone, then as new: `patience_seconds` (by default
        `settle_seconds`) give the new one time to take over the vector.  False while
        something is still waiting.
        """
        patience = self._settings.settle_seconds if patience_seconds is None else patience_seconds
        settled = self.pipeline.settled_until
        now = time.monotonic()
        waiting = False
        for root in self.roots:
            with self._gone_lock:
                gone = self._gone[root.name]
                ripe = [p for p, (ticket, at) in gone.items()
                        if ticket <= settled and at + patience <= now]  # fmt: skip
                waiting = waiting or len(ripe) < len(gone)
                for path in ripe:
                    del gone[path]
            if ripe:
                self._delete(root, ripe)
        return not waiting

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

    def _delete(self, root: Root, relative_paths: Sequence[str]) -> None:
        result = persist(
            lambda: self._deletions.run(root, relative_paths, self.pipeline.no_pictures()),
            self.pipeline.stopping,
            self.outage,
        )
        self._tell_pause(root, result.pause)
        if result.pause is not None:
            return
        self.counts.deleted += result.pictures
        for path in relative_paths:
            change = Change(root, path, time.time())
            self.pipeline.forget(change.image_id)
            # Back again while its document was being deleted?
            self.settler.offer(Hint(root, path, HintKind.TOUCHED), change.detected_at)

    def _tell_pause(self, root: Root, pause: Pause | None) -> None:
        before = self.paused.get(root.name)
        if pause == before:
            return
        if pause is not None:
            self.paused[root.name] = pause
            if before is None or before.reason != pause.reason:
                logger.warning("%s", pause.words(root))
        else:
            self.paused.pop(root.name, None)
            logger.warning("Deletions in %r go on.", root.name)
        persist(
            lambda: self._store.update_meta(lambda meta: _with_pause(meta, root.name, pause)),
            self.pipeline.stopping,
            self.outage,
        )

    def _note_gone(self, change: Change) -> None:
        with self._gone_lock:
            self._gone[change.root.name].setdefault(
                change.relative_path, (self.pipeline.ticket, time.monotonic())
            )

    def _note_unsettled(self, change: Change) -> None:
        hint = Hint(change.root, change.relative_path, HintKind.TOUCHED)
        self.settler.offer(hint, change.detected_at)


def _with_pause(meta: Meta, name: str, pause: Pause | None) -> Meta:
    entry = {key: value for key, value in meta.roots[name].items() if key != "deletions_paused"}
    if pause is not None:
        before = meta.roots[name].get("deletions_paused", {})
        since = before.get("since") or datetime.now(tz=UTC).isoformat(timespec="seconds")
        entry["deletions_paused"] = {
            "reason": pause.reason,
            "pictures": pause.pictures,
            "since": since,
        }
    return replace(meta, roots={**meta.roots, name: entry})


def sync(indexer: Indexer) -> list[Pass]:
    """One pass over every root, until everything found is acknowledged and what is gone deleted.

    Raises what ended the pipeline; the caller closes it.
    """
    passes = [indexer.reconcile(root) for root in indexer.roots]
    deadline = time.monotonic() + _UNSETTLED_SECONDS
    pause = threading.Event()
    while len(indexer.settler) and time.monotonic() < deadline:
        indexer.submit_settled()
        due_at = indexer.settler.next_due_at()
        if due_at is not None:
            pause.wait(max(0.0, min(1.0, due_at - time.time())))
    if len(indexer.settler):
        logger.warning(
            "%d files are still being written; run sync again later.", len(indexer.settler)
        )
    indexer.pipeline.wait_idle()
    indexer.delete_gone(patience_seconds=0.0)
    return passes
