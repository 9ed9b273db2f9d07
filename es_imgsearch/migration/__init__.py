"""`reindex`: another encoder or profile for an index, built behind its alias while it serves.

    images ──▶ images-000001    searched, and kept like the folders by the daemon, all the time
                    │ carrying: fields, and vectors embedded anew or carried, pass after pass
                    ▼
    images-next ▶ images-000002 ── compared ── writes held back, the last pass ── images ▶ 000002

Only the carrying process runs the new encoder: a daemon that wrote to both generations would need
two models in its memory, on every host, and what it missed would have to be reconciled all the
same.  So it goes on as ever, and each pass carries what it wrote meanwhile.  When little is left,
writing is held back on the server, which daemons take for a short outage; the last pass then ends
with two generations that hold the same, and the aliases are exchanged at one moment.  Whoever
still writes to the old one is refused from then on, looks, and begins again with the new.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from es_imgsearch.backoff import Outage, persist
from es_imgsearch.building import Building, check_not_built
from es_imgsearch.coding import complete_codes
from es_imgsearch.errors import AlreadyRunning, ImgSearchError, UsageError
from es_imgsearch.generations import Carried
from es_imgsearch.kept_reduction import load_reduction
from es_imgsearch.migration.agreement import Agreement, agreement
from es_imgsearch.migration.carrying import Carrier, Pass, keeps_vectors
from es_imgsearch.migration.next_generation import Wanted, begin_next, check_begun, described_fields
from es_imgsearch.sealing import writing_encoder
from es_imgsearch.settings import Settings
from es_imgsearch.store import Roles, Store

logger = logging.getLogger(__name__)

DEFAULT_MAX_MISSING_SHARE = 0.01

# Writing is held back when a pass found no more than this to carry: with a slow encoder, a minute.
_FEW = 50
# A daemon that writes faster than can be carried would never let it become few.
_MOST_PASSES = 20


@dataclass(frozen=True, slots=True)
class Migrated:
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


def _quiet(*_: object) -> None:
    pass


def reindex(
    store: Store,
    settings: Settings,
    wanted: Wanted | None = None,
    *,
    max_missing_share: float = DEFAULT_MAX_MISSING_SHARE,
    on_progress: Callable[[int, int], None] = _quiet,
    note: Callable[[str], None] = _quiet,
) -> Migrated:
    """Build the next generation with the encoder of the settings, and switch to it.

    One that was begun before is gone on with.  `on_progress` hears how many of how many pictures
    it has.  It is not switched to when more than `max_missing_share` of the pictures could not be
    carried; what is there stays, and the same call goes on with it.

    Raises UsageError where there is nothing to change or what is asked for does not fit together,
    AlreadyRunning where another process does this already, IndexMissing, ModelUnavailable.
    """
    source, roles = store.pinned(), store.roles()
    check_not_built(store)
    if source.info().is_loading:
        raise UsageError(
            f"An import into {store.index!r} has not ended: run it again, then reindex."
        )
    with Building(settings.host) as building:
        if roles.next is None:
            target = begin_next(store, settings, wanted or Wanted(), building.builder, note)
        else:
            target = store.at(roles.next)
            check_begun(target, settings, wanted or Wanted())
            note(f"Going on with {roles.next}.")
        building.hold(target)
        _check_unchanged(store, roles._replace(next=target.generation))
        return _Migration(
            store, source, target, settings, building, max_missing_share, on_progress, note
        )()


def go_back(
    store: Store,
    settings: Settings,
    *,
    max_missing_share: float = DEFAULT_MAX_MISSING_SHARE,
    on_progress: Callable[[int, int], None] = _quiet,
    note: Callable[[str], None] = _quiet,
) -> Migrated:
    """Return to the generation that served before, brought up to date with what came since.

    Raises UsageError where there is none, AlreadyRunning where another process builds one.
    """
    source, roles = store.pinned(), store.roles()
    check_not_built(store)
    if roles.before is None:
        raise UsageError(f"Index {store.index!r} has no generation to go back to.")
    target = store.at(roles.before)
    # It knows its encoder; the settings may name that of the present one.
    as_sealed = settings.model_copy(update={"encoder": None})
    with Building(settings.host) as building:
        building.hold(target)
        _check_unchanged(store, roles)
        target.allow_writes()
        kept = target.info().meta
        note(
            f"Bringing {roles.before} (encoder {kept.seal.name}, profile {kept.profile}) up to"
            " date."
        )
        return _Migration(
            store, source, target, as_sealed, building, max_missing_share, on_progress, note
        )()


def drop_before(store: Store) -> str:
    """Delete the generation that served before; its name.

    Raises UsageError where none is kept, AlreadyRunning where a process goes back to it.
    """
    check_not_built(store)
    before = store.roles().before
    if before is None:
        raise UsageError(f"Index {store.index!r} keeps no generation from before.")
    store.drop(before)
    return before


def cancel(store: Store) -> str | None:
    """Give up what an unfinished `reindex` built, and let writing go on; what was deleted.

    Raises AlreadyRunning where it has not ended.
    """
    check_not_built(store)
    roles = store.roles()
    if roles.next is not None:
        store.drop(roles.next)
    store.pinned().allow_writes()
    return roles.next


def _check_unchanged(store: Store, roles: Roles) -> None:
    """Raise AlreadyRunning where another process switched before this one held its mark."""
    if store.roles() != roles:
        raise AlreadyRunning(
            f"The generations of index {store.index!r} were changed at this moment: see"
            f" `es-imgsearch status --index {store.index}`, and run it again if need be."
        )


class _Migration:
    """Source to target until they hold the same, then the switch."""

    def __init__(
        self,
        store: Store,
        source: Store,
        target: Store,
        settings: Settings,
        building: Building,
        max_missing_share: float,
        on_progress: Callable[[int, int], None],
        note: Callable[[str], None],
    ) -> None:
        self._store, self._source, self._target = store, source, target
        self._building = building
        self._max_missing_share = max_missing_share
        self._note = note
        self._passes: list[Pass] = []
        self._started = time.monotonic()
        self._held_back_seconds = 0.0
        info = target.info()
        reduction = load_reduction(store, info.meta)
        encoder = None
        if not keeps_vectors(source.info().meta, info.meta):
            encoder = writing_encoder(target, info, settings)
        self._carrier = Carrier(
            source,
            target,
            settings,
            encoder=encoder,
            reduction=reduction,
            on_progress=self._on_progress(on_progress),
        )

    def _on_progress(self, tell: Callable[[int, int], None]) -> Callable[[int, int], None]:
        def told(done: int, total: int) -> None:
            self._building.check()
            tell(done, total)

        return told

    def __call__(self) -> Migrated:
        try:
            return self._migrate()
        finally:
            self._carrier.close()

    def _migrate(self) -> Migrated:
        # One that was killed while writing was held back left it so.
        self._source.allow_writes()
        for _ in range(_MOST_PASSES):
            if self._pass().changes <= _FEW:
                break
        if not self._may_switch():
            return self._outcome(None, switched=False)
        if self._carrier.coder is not None:
            complete_codes(self._target, self._carrier.coder)
        compared = agreement(self._source, self._target)
        self._note(
            f"{self._target.count()} of {self._source.count()} pictures are in"
            f" {self._target.generation}. {_agreement_words(compared)}"
        )
        # What came meanwhile: the way back may load its model for that, which took 22 s on a busy
        # machine, while writing would have been held back.
        self._pass()
        self._building.confirm()
        held_back_since = time.monotonic()
        is_ours = True
        try:
            self._source.block_writes()
            self._pass()
            if not self._may_switch():
                return self._outcome(compared, switched=False)
            self._exchange()
        except AlreadyRunning:
            # Whoever took over may hold writing back by now.
            is_ours = False
            raise
        finally:
            # Also after Ctrl-C; the old generation stays closed only once it is the old one.
            if is_ours and self._store.roles().serving == self._source.generation:
                self._source.allow_writes()
            self._held_back_seconds = time.monotonic() - held_back_since
        return self._outcome(compared, switched=True)

    def _pass(self) -> Pass:
        done = persist(self._carrier, threading.Event(), Outage())
        self._passes.append(done)
        logger.debug("A pass carried %d and removed %d.", done.carried, done.removed)
        return done

    def _exchange(self) -> None:
        """The switch itself; nothing is written to either generation now."""
        there = self._target.count()
        wanted = self._source.count() - len(self._passes[-1].lacking)
        if there < wanted:
            # It cannot be; and were it so, nobody would notice later.
            raise ImgSearchError(
                f"{self._target.generation} has {there} pictures where it should have {wanted}, and"
                " is not switched to: run it again."
            )
        self._building.confirm()
        roots = self._source.info().meta.roots
        self._target.update_meta(lambda meta: replace(meta, roots=roots))
        # From here on the old one lacks what is written to the new one.
        carried = Carried(str(self._target.generation), self._target.checkpoints())
        self._source.update_meta(lambda meta: replace(meta, carried=carried))
        self._store.switch_to(str(self._target.generation), described_fields())

    def _may_switch(self) -> bool:
        lacking = len(self._passes[-1].lacking)
        return lacking <= self._max_missing_share * max(1, self._source.count())

    def _outcome(self, compared: Agreement | None, *, switched: bool) -> Migrated:
        serving, kept = str(self._source.generation), str(self._target.generation)
        if switched:
            serving, kept = kept, serving
        by_reason = self._passes[-1].lacking_by_reason
        return Migrated(
            switched=switched,
            serving=serving,
            kept=kept,
            pictures=self._target.count(),
            carried=sum(each.carried for each in self._passes),
            embedded=self._carrier.pictures_embedded,
            removed=sum(each.removed for each in self._passes),
            missing=tuple((*place, number) for place, number in sorted(by_reason.items())),
            agreement=compared,
            held_back_seconds=self._held_back_seconds,
            seconds=time.monotonic() - self._started,
        )


def _agreement_words(found: Agreement) -> str:
    if found.overlap is None:
        return "There are too few pictures to compare what both find."
    return (
        f"Of the {found.k} nearest of {found.queries} pictures, both generations name"
        f" {found.overlap:.0%} (by chance {found.by_chance:.1%})."
    )
