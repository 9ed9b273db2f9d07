"""Run a reindex: copy until both generations hold the same, then switch.

The copy is made in passes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from es_imgsearch.describe.registry import describer_mappings
from es_imgsearch.elastic.meta_entries import CopyCheckpoint
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import open_encoder
from es_imgsearch.embed.reduction import load_reduction
from es_imgsearch.errors import AlreadyRunning, ImgSearchError
from es_imgsearch.manage.reindex.agreement import Agreement, agreement
from es_imgsearch.manage.reindex.copy import CopyPass, GenerationCopier, can_copy_vectors
from es_imgsearch.manage.reindex.lock import ReindexLock
from es_imgsearch.manage.reindex.re_embed import CHANGED, GONE
from es_imgsearch.pipeline.heartbeat import watched_roots
from es_imgsearch.settings import Settings

logger = logging.getLogger(__name__)

# Writes are blocked once a pass copied no more than this: with a slow encoder, a minute.
_FEW = 50
# A daemon that writes faster than this copies would never let it become few.
_MOST_PASSES = 20
# A daemon collects deletions for 10 s at most before it executes them.
_SETTLING_WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0)
# How often writes are blocked for a switch that a changed file then prevents.
_MOST_HOLDS = 5


@dataclass(frozen=True, slots=True)
class ReindexResult:
    """Result of `reindex` or `go_back`.

    `serving` is the generation that is searched now, `kept` the other one, unfinished unless
    `switched`.  `carried` documents were copied, for which `embedded` pictures went through the
    encoder.  `missing` are the pictures that could not be copied, by root and reason; failed ones
    are in the failures of the new generation.
    """

    switched: bool
    serving: str
    kept: str
    pictures: int
    carried: int
    embedded: int
    removed: int
    missing: tuple[tuple[str, str, int], ...]
    agreement: Agreement | None
    held_back_seconds: float
    seconds: float

    @property
    def missing_pictures(self) -> int:
        """Number of pictures that could not be copied."""
        return sum(number for _, _, number in self.missing)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for `reindex --json`."""
        names = ("root", "reason", "pictures")
        return asdict(self) | {
            "missing": [dict(zip(names, each, strict=True)) for each in self.missing]
        }


class ReindexRun:
    """Copies source to target until both hold the same, then switches."""

    def __init__(
        self,
        store: Store,
        source: Store,
        target: Store,
        settings: Settings,
        lock: ReindexLock,
        max_missing_share: float,
        on_progress: Callable[[int, int], None],
        note: Callable[[str], None],
    ) -> None:
        self._store, self._source, self._target = store, source, target
        self._lock = lock
        self._max_missing_share = max_missing_share
        self._note = note
        self._passes: list[CopyPass] = []
        self._started = time.monotonic()
        self._held_back_seconds = 0.0
        info = target.info()
        reduction = load_reduction(store, info.meta)
        encoder = None
        if not can_copy_vectors(source.info().meta, info.meta):
            encoder = open_encoder(target, info, settings)

        def report(done: int, total: int) -> None:
            lock.check()
            on_progress(done, total)

        self._copier = GenerationCopier(
            source, target, settings, encoder=encoder, reduction=reduction, on_progress=report
        )

    def run(self) -> ReindexResult:
        """Copy, compare and switch."""
        try:
            return self._run()
        finally:
            self._copier.close()

    def _run(self) -> ReindexResult:
        # A run that was killed while writes were blocked left them so.
        self._source.switching.allow_writes()
        for _ in range(_MOST_PASSES):
            if self._copy().changes <= _FEW:
                break
        if not self._may_switch_soon():
            return self._outcome(None, switched=False)
        self._copier.codes.complete()
        compared = agreement(self._source, self._target)
        self._note(
            f"{self._target.listings.count():,} of {self._source.listings.count():,} pictures are"
            f" in {self._target.generation}. {compared.summary()}"
        )
        # Before writes are blocked: `go_back` may load its model for new pictures, which took 22 s
        # on a busy machine.
        self._copy()
        for _ in range(_MOST_HOLDS):
            if not self._may_switch_soon():
                break
            self._lock.confirm()
            if self._try_to_switch():
                return self._outcome(compared, switched=True)
        return self._outcome(compared, switched=False)

    def _try_to_switch(self) -> bool:
        """Block writes, copy the rest and switch; False if too much is missing then."""
        blocked_since = time.monotonic()
        is_ours = True
        try:
            self._source.switching.block_writes()
            self._copy()
            if not self._may_switch():
                return False
            self._switch()
        except AlreadyRunning:
            # The process that took over may have blocked writes by now.
            is_ours = False
            raise
        finally:
            # Also after Ctrl-C.  The source stays blocked only once it no longer serves.
            if is_ours and self._store.generations.roles().serving == self._source.generation:
                self._source.switching.allow_writes()
            self._held_back_seconds += time.monotonic() - blocked_since
        return True

    def _copy(self) -> CopyPass:
        done = persist(self._copier.run_pass, threading.Event(), Outage())
        self._passes.append(done)
        logger.debug("A pass copied %d and removed %d.", done.copied, done.removed)
        return done

    def _switch(self) -> None:
        """Switch the aliases; nothing is written to either generation now."""
        actual = self._target.listings.count()
        expected = self._source.listings.count() - len(self._passes[-1].missing)
        if actual < expected:
            # Should be impossible, and would go unnoticed later.
            raise ImgSearchError(
                f"{self._target.generation} has {actual} pictures instead of {expected} and is not"
                " switched to: run it again."
            )
        self._lock.confirm()
        # The source misses everything that is written to the target from now on.
        checkpoint = CopyCheckpoint(
            str(self._target.generation), self._target.rewrites.checkpoints()
        )
        self._source.generations.update_meta(lambda meta: replace(meta, copy_checkpoint=checkpoint))
        self._store.switching.switch_to(str(self._target.generation), describer_mappings())

    def _may_switch(self) -> bool:
        missing = len(self._passes[-1].missing)
        return missing <= self._max_missing_share * max(1, self._source.listings.count())

    def _may_switch_soon(self) -> bool:
        """Check `_may_switch`, after more passes if a daemon's next deletions are enough."""
        for wait_seconds in _SETTLING_WAITS_SECONDS:
            if self._may_switch() or not self._is_settling():
                break
            time.sleep(wait_seconds)
            self._copy()
        return self._may_switch()

    def _is_settling(self) -> bool:
        """Check that only a few files are missing, deleted or changed in watched folders.

        Until the daemon has noticed, such a picture of the source cannot be embedded; among fewer
        than 100 pictures a single one is too many.
        """
        missing = self._passes[-1].missing.values()
        if len(missing) > _FEW or any(reason not in {GONE, CHANGED} for _, reason in missing):
            return False
        roots = {root for root, _ in missing}
        return roots == watched_roots(self._store, sorted(roots))

    def _outcome(self, compared: Agreement | None, *, switched: bool) -> ReindexResult:
        serving, kept = str(self._source.generation), str(self._target.generation)
        if switched:
            serving, kept = kept, serving
        by_reason = Counter(self._passes[-1].missing.values())
        return ReindexResult(
            switched=switched,
            serving=serving,
            kept=kept,
            pictures=self._target.listings.count(),
            carried=sum(each.copied for each in self._passes),
            embedded=self._copier.pictures_embedded,
            removed=sum(each.removed for each in self._passes),
            missing=tuple((*place, number) for place, number in sorted(by_reason.items())),
            agreement=compared,
            held_back_seconds=self._held_back_seconds,
            seconds=time.monotonic() - self._started,
        )
