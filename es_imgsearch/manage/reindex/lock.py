"""One process at a time builds a generation: a mark in that generation's `_meta` says which.

    reindex, reindex --back ──▶ mark: process, host, since; seen_at every half a minute
    a second one, --drop-old, --cancel ──▶ refused while the process runs
    the same after a crash ──▶ at once where the process is known to be gone, else when the mark
                               is stale

Elasticsearch changes `_meta` without comparing it, so two processes that take over the same
left-behind mark within the same milliseconds may both go on for a second; the one whose mark was
overwritten ends then.  Until then both would write the same documents.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.meta_entries import Builder
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import AlreadyRunning, ImgSearchError

logger = logging.getLogger(__name__)

# The first time soon, to find out who else took over; then as often as changes of the cluster's
# state are worth.
_FIRST_BEAT_SECONDS = 1.0
_BEAT_SECONDS = 30.0
# Of a process of another machine, or a hidden one, it is not known whether it runs; six beats that
# are missing say so, clocks that differ by a minute or two do not.
STALE_SECONDS = 180.0
# What an answer that does not come may hold up the end.
_LAST_SECONDS = 5.0

# Tokens of what is built by this process.
_built_here: set[str] = set()


def is_alive(builder: Builder) -> bool:
    """Whether it still builds, as far as this machine can tell."""
    seen = _seen_alive(builder)
    return _now() < _stale_at(builder) if seen is None else seen


def _seen_alive(builder: Builder) -> bool | None:
    """Whether its process is seen to build; None for one that cannot be seen from here."""
    if builder.process_space is None or builder.process_space != process_space():
        return None
    if builder.process_id == os.getpid():
        return builder.token in _built_here
    return runs(builder.process_id, builder.process_start)


def builder_to_dict(builder: Builder | None) -> dict[str, Any] | None:
    """What `status` tells of it."""
    if builder is None:
        return None
    return {
        "host": builder.host,
        "process_id": builder.process_id,
        "since": builder.since,
        "seen_at": builder.seen_at,
        "is_alive": is_alive(builder),
    }


def check_not_built(store: Store) -> None:
    """Raise AlreadyRunning where a process that runs builds a generation of this index."""
    roles = store.generations.roles()
    for name in (roles.next, roles.before):
        if name is not None:
            _check(store.at(name).info().meta, store.index, name)


class Building:
    """Holds the mark while it is entered; a thread of its own says that the process runs."""

    def __init__(self, host: str) -> None:
        now = _iso(_now())
        process_id = os.getpid()
        self.builder = Builder(
            host=host,
            process_id=process_id,
            process_space=process_space(),
            process_start=process_start(process_id),
            token=uuid.uuid4().hex,
            since=now,
            seen_at=now,
        )
        self._target: Store | None = None
        self._taken_over_by: Builder | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._beat_loop, name="building", daemon=True)

    def __enter__(self) -> Self:
        _built_here.add(self.builder.token)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        # A mark that is left behind is known to be that of nobody from here on.
        _built_here.discard(self.builder.token)
        self._ending.set()
        if self._target is None:
            return
        self._thread.join(_LAST_SECONDS)
        try:
            self._target.generations.update_meta(self._without_mark)
        except ImgSearchError as error:
            logger.debug("The mark of this reindex is left: %s", error)

    def hold(self, target: Store) -> None:
        """Mark the generation that `target` is held to as built by this process.

        Raises AlreadyRunning where another one builds it.
        """

        def marked(meta: Meta) -> Meta:
            if meta.builder is None or meta.builder.token != self.builder.token:
                _check(meta, target.index, str(target.generation))
            return replace(meta, builder=self.builder)

        target.generations.update_meta(marked)
        self._target = target
        self._thread.start()

    def check(self) -> None:
        """Raise AlreadyRunning once another process has taken over."""
        if (other := self._taken_over_by) is not None:
            raise AlreadyRunning(
                f"This reindex was taken over by process {other.process_id} on {other.host}, which"
                f" goes on with it since {other.since}."
            )

    def confirm(self) -> None:
        """`check`, with a look at what the mark says now."""
        if self._target is not None:
            self._look(self._target.info().meta)
        self.check()

    def _beat_loop(self) -> None:
        wait_seconds = _FIRST_BEAT_SECONDS
        while not self._ending.wait(wait_seconds):
            wait_seconds = _BEAT_SECONDS
            try:
                self._beat()
            except ImgSearchError as error:
                logger.debug("That this reindex goes on was not told: %s", error)

    def _beat(self) -> None:
        if self._target is None:
            return

        def beaten(meta: Meta) -> Meta:
            self._look(meta)
            if self._taken_over_by is not None:
                return meta
            return replace(meta, builder=replace(self.builder, seen_at=now))

        now = _iso(_now())
        self._target.generations.update_meta(beaten)

    def _look(self, meta: Meta) -> None:
        if meta.builder is not None and meta.builder.token != self.builder.token:
            self._taken_over_by = meta.builder

    def _without_mark(self, meta: Meta) -> Meta:
        is_ours = meta.builder is not None and meta.builder.token == self.builder.token
        return replace(meta, builder=None) if is_ours else meta


def _check(meta: Meta, index: str, generation: str) -> None:
    builder = meta.builder
    if builder is None or not is_alive(builder):
        return
    if_killed = (
        ""
        if _seen_alive(builder)
        else f" If it was killed, this can be run from {_iso(_stale_at(builder))} on."
    )
    raise AlreadyRunning(
        f"Process {builder.process_id} on {builder.host} has been at work on {generation} of index"
        f" {index!r} since {builder.since}, and said so last at {builder.seen_at}: wait for it, or"
        f" stop it.{if_killed}"
    )


def _stale_at(builder: Builder) -> datetime:
    return datetime.fromisoformat(builder.seen_at) + timedelta(seconds=STALE_SECONDS)


def _now() -> datetime:
    return datetime.now(tz=UTC)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


# Which process of which machine, so that another one can tell whether it still runs.
#
# A number alone does not do: it is given anew after the process has ended, and in every container
# it counts from 1.  Linux only; elsewhere nothing can be told.

_PROC = Path("/proc")

# Of the fields of /proc/PID/stat behind the name, see proc_pid_stat(5).
_STATE, _START_TIME = 0, 19
# Ended; its parent has not asked yet what became of it.
_ENDED = {"Z", "X", "x"}


def process_space() -> str | None:
    """Where process numbers mean the same: this start of the system, this container.

    None where that cannot be told.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def process_start(process_id: int) -> int | None:
    """When it began, in clock ticks since the system did; None where none is seen that runs."""
    fields = _told_of(process_id)
    return None if fields is None or fields[_STATE] in _ENDED else int(fields[_START_TIME])


def runs(process_id: int, start: int | None) -> bool | None:
    """Whether the process that began then still runs.

    None where that is hidden: a /proc mounted with ``hidepid`` shows a user none of another's
    processes, see proc(5), and a signal tells only whether any process has the number.
    """
    if (fields := _told_of(process_id)) is not None:
        return fields[_STATE] not in _ENDED and int(fields[_START_TIME]) == start
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return None


def _told_of(process_id: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the name; None where it cannot be read."""
    try:
        told = (_PROC / str(process_id) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # The name in front may hold blanks and parentheses.
    return told.rpartition(")")[2].split()
