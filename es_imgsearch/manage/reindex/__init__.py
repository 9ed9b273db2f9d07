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

from collections.abc import Callable

from es_imgsearch.elastic.generations import Roles
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import AlreadyRunning, UsageError
from es_imgsearch.manage.reindex.lock import ReindexLock
from es_imgsearch.manage.reindex.run import ReindexResult, ReindexRun
from es_imgsearch.manage.reindex.target import ReindexOptions, begin_next, check_begun
from es_imgsearch.manage.upgrade import upgrade
from es_imgsearch.settings import Settings

__all__ = [
    "DEFAULT_MAX_MISSING_SHARE",
    "ReindexResult",
    "cancel",
    "drop_before",
    "go_back",
    "reindex",
]

DEFAULT_MAX_MISSING_SHARE = 0.01


def _quiet(*_: object) -> None:
    pass


def reindex(
    store: Store,
    settings: Settings,
    wanted: ReindexOptions | None = None,
    *,
    max_missing_share: float = DEFAULT_MAX_MISSING_SHARE,
    on_progress: Callable[[int, int], None] = _quiet,
    note: Callable[[str], None] = _quiet,
) -> ReindexResult:
    """Build the next generation with the encoder of the settings, and switch to it.

    One that was begun before is gone on with.  `on_progress` hears how many of how many pictures
    it has.  It is not switched to when more than `max_missing_share` of the pictures could not be
    carried; what is there stays, and the same call goes on with it.  For a few whose files went or
    changed under a daemon it waits until that has noted it, 15 s at most each time.

    Raises UsageError where there is nothing to change or what is asked for does not fit together,
    AlreadyRunning where another process does this already, IndexMissing, ModelUnavailable.
    """
    upgrade(store)
    source, roles = store.pinned(), store.generations.roles()
    if source.info().is_loading:
        raise UsageError(
            f"An import into {store.index!r} has not ended: run it again, then reindex."
        )
    with ReindexLock(store, settings.host, lease_seconds=settings.lease_seconds) as lock:
        _check_unchanged(store, roles)
        if roles.next is None:
            target = begin_next(store, settings, wanted or ReindexOptions(), note)
        else:
            target = store.at(roles.next)
            check_begun(target, settings, wanted or ReindexOptions())
            note(f"Going on with {roles.next}.")
        lock.note_generation(str(target.generation))
        return ReindexRun(
            store, source, target, settings, lock, max_missing_share, on_progress, note
        ).run()


def go_back(
    store: Store,
    settings: Settings,
    *,
    max_missing_share: float = DEFAULT_MAX_MISSING_SHARE,
    on_progress: Callable[[int, int], None] = _quiet,
    note: Callable[[str], None] = _quiet,
) -> ReindexResult:
    """Return to the generation that served before, brought up to date with what came since.

    Raises UsageError where there is none, AlreadyRunning where another process builds one.
    """
    upgrade(store)
    source, roles = store.pinned(), store.generations.roles()
    if roles.before is None:
        raise UsageError(f"Index {store.index!r} has no generation to go back to.")
    target = store.at(roles.before)
    # It knows its encoder; the settings may name that of the present one.
    as_sealed = settings.model_copy(update={"encoder": None})
    with ReindexLock(store, settings.host, lease_seconds=settings.lease_seconds) as lock:
        _check_unchanged(store, roles)
        lock.note_generation(roles.before)
        target.switching.allow_writes()
        kept = target.info().meta
        note(
            f"Bringing {roles.before} (encoder {kept.seal.name}, profile {kept.profile}) up to"
            " date."
        )
        return ReindexRun(
            store, source, target, as_sealed, lock, max_missing_share, on_progress, note
        ).run()


def drop_before(store: Store) -> str:
    """Delete the generation that served before; its name.

    Raises UsageError where none is kept, AlreadyRunning where a process goes back to it.
    """
    upgrade(store)
    with ReindexLock(store):
        before = store.generations.roles().before
        if before is None:
            raise UsageError(f"Index {store.index!r} keeps no generation from before.")
        store.generations.drop(before)
    return before


def cancel(store: Store) -> str | None:
    """Give up what an unfinished `reindex` built, and let writing go on; what was deleted.

    Raises AlreadyRunning where it has not ended.
    """
    upgrade(store)
    with ReindexLock(store):
        roles = store.generations.roles()
        if roles.next is not None:
            store.generations.drop(roles.next)
        store.pinned().switching.allow_writes()
    return roles.next


def _check_unchanged(store: Store, roles: Roles) -> None:
    """Raise AlreadyRunning where another process changed them before this one had the lock."""
    if store.generations.roles() != roles:
        raise AlreadyRunning(
            f"The generations of index {store.index!r} were changed at this moment: see"
            f" `es-imgsearch status --index {store.index}`, and run it again if need be."
        )
