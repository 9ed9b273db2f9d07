"""One run of `reindex`: pass after pass until two generations hold the same, then the switch."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from es_imgsearch.elastic.meta_entries import CopyCheckpoint
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import writing_encoder
from es_imgsearch.embed.reduction import load_reduction
from es_imgsearch.errors import AlreadyRunning, ImgSearchError
from es_imgsearch.manage.reindex.agreement import Agreement, agreement
from es_imgsearch.manage.reindex.copy import CopyPass, GenerationCopier, can_copy_vectors
from es_imgsearch.manage.reindex.lock import ReindexLock
from es_imgsearch.manage.reindex.re_embed import CHANGED, GONE
from es_imgsearch.manage.reindex.target import described_fields
from es_imgsearch.pipeline.heartbeat import watched_roots
from es_imgsearch.settings import Settings

logger = logging.getLogger(__name__)

# Writing is held back when a pass found no more than this to carry: with a slow encoder, a minute.
_FEW = 50
# A daemon that writes faster than can be carried would never let it become few.
_MOST_PASSES = 20
# A daemon gathers what is gone for 10 s at most before it deletes it; see `gone`.
_SETTLING_WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0)
# So often writing is held back for a switch that a file then prevents.
_MOST_HOLDS = 5


@dataclass(frozen=True, slots=True)
class ReindexResult:
    """What `reindex` or `go_back` did.

    `serving` is the generation that is searched now, `kept` the other one, which is as yet
    unfinished if not `switched`.  `carried` documents were written, for which `embedded` pictures
    went through the encoder.  `missing` are the pictures that could not be carried, by root and
    reason; those that failed are in the failures of the new generation.
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
        return sum(number for _, _, number in self.missing)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `reindex --json` prints them."""
        names = ("root", "reason", "pictures")
        return asdict(self) | {
            "missing": [dict(zip(names, each, strict=True)) for each in self.missing]
        }


class ReindexRun:
    """Source to target until they hold the same, then the switch."""

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
            encoder = writing_encoder(target, info, settings)
        self._carrier = GenerationCopier(
            source,
            target,
            settings,
            encoder=encoder,
            reduction=reduction,
            on_progress=self._on_progress(on_progress),
        )

    def _on_progress(self, tell: Callable[[int, int], None]) -> Callable[[int, int], None]:
        def told(done: int, total: int) -> None:
            self._lock.check()
            tell(done, total)

        return told

    def run(self) -> ReindexResult:
        try:
            return self._migrate()
        finally:
            self._carrier.close()

    def _migrate(self) -> ReindexResult:
        # One that was killed while writing was held back left it so.
        self._source.switching.allow_writes()
        for _ in range(_MOST_PASSES):
            if self._pass().changes <= _FEW:
                break
        if not self._may_switch_soon():
            return self._outcome(None, switched=False)
        self._carrier.codes.complete()
        compared = agreement(self._source, self._target)
        self._note(
            f"{self._target.listings.count()} of {self._source.listings.count()} pictures are in"
            f" {self._target.generation}. {compared.summary()}"
        )
        # What came meanwhile: the way back may load its model for that, which took 22 s on a busy
        # machine, while writing would have been held back.
        self._pass()
        for _ in range(_MOST_HOLDS):
            if not self._may_switch_soon():
                break
            self._lock.confirm()
            if self._switched():
                return self._outcome(compared, switched=True)
        return self._outcome(compared, switched=False)

    def _switched(self) -> bool:
        """Hold writing back, carry the rest and switch; False where too much lacks then."""
        held_back_since = time.monotonic()
        is_ours = True
        try:
            self._source.switching.block_writes()
            self._pass()
            if not self._may_switch():
                return False
            self._exchange()
        except AlreadyRunning:
            # Whoever took over may hold writing back by now.
            is_ours = False
            raise
        finally:
            # Also after Ctrl-C; the old generation stays closed only once it is the old one.
            if is_ours and self._store.generations.roles().serving == self._source.generation:
                self._source.switching.allow_writes()
            self._held_back_seconds += time.monotonic() - held_back_since
        return True

    def _pass(self) -> CopyPass:
        done = persist(self._carrier.run_pass, threading.Event(), Outage())
        self._passes.append(done)
        logger.debug("A pass carried %d and removed %d.", done.carried, done.removed)
        return done

    def _exchange(self) -> None:
        """The switch itself; nothing is written to either generation now."""
        there = self._target.listings.count()
        wanted = self._source.listings.count() - len(self._passes[-1].lacking)
        if there < wanted:
            # It cannot be; and were it so, nobody would notice later.
            raise ImgSearchError(
                f"{self._target.generation} has {there} pictures where it should have {wanted}, and"
                " is not switched to: run it again."
            )
        self._lock.confirm()
        roots = self._source.info().meta.roots
        self._target.generations.update_meta(lambda meta: replace(meta, roots=roots))
        # From here on the old one lacks what is written to the new one.
        checkpoint = CopyCheckpoint(
            str(self._target.generation), self._target.rewrites.checkpoints()
        )
        self._source.generations.update_meta(lambda meta: replace(meta, copy_checkpoint=checkpoint))
        self._store.switching.switch_to(str(self._target.generation), described_fields())

    def _may_switch(self) -> bool:
        lacking = len(self._passes[-1].lacking)
        return lacking <= self._max_missing_share * max(1, self._source.listings.count())

    def _may_switch_soon(self) -> bool:
        """`_may_switch`, after more passes where that only takes a daemon's next deletions."""
        for wait_seconds in _SETTLING_WAITS_SECONDS:
            if self._may_switch() or not self._is_settling():
                break
            time.sleep(wait_seconds)
            self._pass()
        return self._may_switch()

    def _is_settling(self) -> bool:
        """Whether nothing lacks but a few files that went or changed, in folders that are watched.

        Until the daemon has noted it, such a picture of the source cannot be had any more; of less
        than 100 pictures a single one is too many.
        """
        lacking = self._passes[-1].lacking.values()
        if len(lacking) > _FEW or any(reason not in {GONE, CHANGED} for _, reason in lacking):
            return False
        roots = {root for root, _ in lacking}
        return roots == watched_roots(self._store, sorted(roots))

    def _outcome(self, compared: Agreement | None, *, switched: bool) -> ReindexResult:
        serving, kept = (
            str(self._source.generation),
            str(self._target.generation),
        )
        if switched:
            serving, kept = kept, serving
        by_reason = self._passes[-1].lacking_by_reason
        return ReindexResult(
            switched=switched,
            serving=serving,
            kept=kept,
            pictures=self._target.listings.count(),
            carried=sum(each.carried for each in self._passes),
            embedded=self._carrier.pictures_embedded,
            removed=sum(each.removed for each in self._passes),
            missing=tuple((*place, number) for place, number in sorted(by_reason.items())),
            agreement=compared,
            held_back_seconds=self._held_back_seconds,
            seconds=time.monotonic() - self._started,
        )
