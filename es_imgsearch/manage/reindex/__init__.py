"""Change the encoder or profile of an index while it serves (`reindex`).

    images ──▶ images-000001    searched, and updated by the daemon, all the time
                    │ copy passes: fields, and vectors copied or embedded again
                    ▼
    images-next ▶ images-000002 ── compared ── writes blocked, the last pass ── images ▶ 000002

Only this process runs the new encoder: a daemon that wrote to both generations would need two
models in memory on every host, and what it missed would have to be reconciled even so.  So the
daemon keeps writing to the old generation, and each pass copies what it wrote meanwhile.  When
little is left, writes are blocked on the server, which daemons treat as a short outage; after the
last pass both generations hold the same, and the aliases are switched atomically.  Late writes to
the old generation are refused, and their writers start again with the new one.
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


def _ignore(*_: object) -> None:
    pass


def reindex(
    store: Store,
    settings: Settings,
    options: ReindexOptions | None = None,
    *,
    max_missing_share: float = DEFAULT_MAX_MISSING_SHARE,
    on_progress: Callable[[int, int], None] = _ignore,
    note: Callable[[str], None] = _ignore,
) -> ReindexResult:
    """Build the next generation with the encoder of the settings, and switch to it.

    An interrupted run is continued.  `on_progress` gets the number of copied and of all pictures.
    There is no switch if more than `max_missing_share` of the pictures could not be copied; the
    copied ones stay, and the same call continues.  For a few files that were deleted or changed
    under a daemon it waits until the daemon has noticed, 15 s at most each time.

    Raises UsageError if nothing would change or the options do not go together, AlreadyRunning if
    another process does this already, IndexMissing, ModelUnavailable.
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
            target = begin_next(store, settings, options or ReindexOptions(), note)
        else:
            target = store.at(roles.next)
            check_begun(target, settings, options or ReindexOptions())
            note(f"Continuing with {roles.next}.")
        lock.note_generation(str(target.generation))
        return ReindexRun(
            store, source, target, settings, lock, max_missing_share, on_progress, note
        ).run()


def go_back(
    store: Store,
    settings: Settings,
    *,
    max_missing_share: float = DEFAULT_MAX_MISSING_SHARE,
    on_progress: Callable[[int, int], None] = _ignore,
    note: Callable[[str], None] = _ignore,
) -> ReindexResult:
    """Return to the generation that served before, after bringing it up to date.

    Raises UsageError if there is none, AlreadyRunning if another process builds one.
    """
    upgrade(store)
    source, roles = store.pinned(), store.generations.roles()
    if roles.before is None:
        raise UsageError(f"Index {store.index!r} has no generation to go back to.")
    target = store.at(roles.before)
    # Its seal names its encoder; the settings may name the encoder of the serving generation.
    as_sealed = settings.model_copy(update={"encoder": None})
    with ReindexLock(store, settings.host, lease_seconds=settings.lease_seconds) as lock:
        _check_unchanged(store, roles)
        lock.note_generation(roles.before)
        target.switching.allow_writes()
        meta = target.info().meta
        note(
            f"Bringing {roles.before} (encoder {meta.seal.name}, profile {meta.profile}) up to"
            " date."
        )
        return ReindexRun(
            store, source, target, as_sealed, lock, max_missing_share, on_progress, note
        ).run()


def drop_before(store: Store) -> str:
    """Delete the generation that served before; return its name.

    Raises UsageError if there is none, AlreadyRunning if a process returns to it.
    """
    upgrade(store)
    with ReindexLock(store):
        before = store.generations.roles().before
        if before is None:
            raise UsageError(f"Index {store.index!r} keeps no generation from before.")
        store.generations.drop(before)
    return before


def cancel(store: Store) -> str | None:
    """Delete the generation that an interrupted `reindex` built, and allow writes.

    Returns the deleted name.  Raises AlreadyRunning if it is still running.
    """
    upgrade(store)
    with ReindexLock(store):
        roles = store.generations.roles()
        if roles.next is not None:
            store.generations.drop(roles.next)
        store.pinned().switching.allow_writes()
    return roles.next


def _check_unchanged(store: Store, roles: Roles) -> None:
    """Raise AlreadyRunning if another process has changed the generations.

    It may have done so before this process had the lock.
    """
    if store.generations.roles() != roles:
        raise AlreadyRunning(
            f"The generations of index {store.index!r} have just been changed by another process:"
            f" see `es-imgsearch status --index {store.index}`, then run it again if needed."
        )
