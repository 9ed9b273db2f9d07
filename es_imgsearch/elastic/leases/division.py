"""Into how many partitions a root is divided, and who may change that.

    division:NAME ──▶ a number; without a document the root is whole, watched by one daemon
    daemon:KEY    ──▶ the lease of each partition; KEY is NAME of a whole root, else NAME/I/N

Whoever works on a partition has first taken its lease and then read the number.  Whoever changes
the number has first taken the leases of all partitions of the present division.  So two workers
whose partitions have files in common never work at once, whatever number each was given.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from es_imgsearch.elastic.leases.lease import Lease
from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.elastic.state import Document, State, daemon_id, division_id
from es_imgsearch.errors import AlreadyRunning
from es_imgsearch.records.partition import partitions

_POLLS = 40


def keys_of(name: str, count: int) -> list[str]:
    """Return the names of the partitions of a root, in ids of state documents."""
    return [name] if count == 1 else [f"{name}/{each}" for each in partitions(count)]


def division_of(state: State, name: str) -> int:
    """Return into how many partitions a root is divided."""
    read = state.read(division_id(name))
    return 1 if read is None else int(read.document["body"]["partitions"])


def divisions(state: State, names: Sequence[str]) -> dict[str, int]:
    """Return into how many partitions each root is divided."""
    stored = state.read_many([division_id(name) for name in names])
    counts = {each["root"]: int(each["body"]["partitions"]) for each in stored.values()}
    return {name: counts.get(name, 1) for name in names}


def keys_by_root(state: State, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of the present partitions of each root."""
    return {name: keys_of(name, count) for name, count in divisions(state, names).items()}


def daemon_leases(state: State, names: Sequence[str]) -> dict[str, Document]:
    """Return the leases of all daemons of these roots, by the name of their partition."""
    keys = [key for each in keys_by_root(state, names).values() for key in each]
    leases = state.read_many([daemon_id(key) for key in keys])
    return {key: leases[daemon_id(key)] for key in keys if daemon_id(key) in leases}


def claims_of(names: Sequence[str], counts: Mapping[str, int]) -> dict[str, Document]:
    """Return what a lease on all partitions of these roots claims."""
    return {
        daemon_id(key): {"kind": "daemon", "root": name}
        for name in names
        for key in keys_of(name, counts.get(name, 1))
    }


def check_division(state: State, name: str, count: int) -> None:
    """Raise AlreadyRunning if a root is divided otherwise.

    To be called after the lease of a partition was taken.
    """
    if (now := division_of(state, name)) != count:
        raise AlreadyRunning(
            f"{name!r} was divided by {now} meanwhile, and this worker is one of {count}: start it"
            f" as one of {now}, or stop the others first."
        )


def divide(
    state: State,
    name: str,
    count: int,
    host: str,
    *,
    lease_seconds: float,
    stopping: threading.Event,
) -> None:
    """Divide a root into so many partitions, once nobody works on one of the present.

    Waits until the leases of killed processes have expired.  Raises AlreadyRunning if one is at
    work, Stopped once `stopping` is set.
    """
    if division_of(state, name) == count:
        return
    given: dict[str, Any] = {"lease_seconds": lease_seconds}
    lock = {f"lock:{division_id(name)}": {"kind": "lock", "root": name}}
    changing = Lease(state, lock, host, f"dividing {name!r}", trusts_clocks=False, **given)
    try:
        while not changing.try_acquire():
            # Several workers begin at once: the first divides.
            if stopping.wait(lease_seconds / _POLLS):
                raise Stopped
        before = divisions(state, [name])
        if before[name] == count:
            return
        work = f"working on {name!r} {_in_words(before[name])} (this one: {_in_words(count)})"
        present = Lease(state, claims_of([name], before), host, work, trusts_clocks=False, **given)
        try:
            present.acquire(stopping)
            changing.confirm()
            present.confirm()
            present.check_valid()
            document = {"kind": "division", "root": name, "body": {"partitions": count}}
            state.update(division_id(name), lambda _stored: document)
        finally:
            present.release()
            present.join(lease_seconds)
    finally:
        changing.release()
        changing.join(lease_seconds)


def _in_words(count: int) -> str:
    return "as a whole" if count == 1 else f"as one of {count} workers"
