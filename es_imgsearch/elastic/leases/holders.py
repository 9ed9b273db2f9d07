"""Tell who holds a lease, and whether that process is at work, from its document."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from es_imgsearch.elastic.state import Document

# A time stamp older than this many `lease_seconds` has expired without further watching.
SURELY_EXPIRED = 4

# Tokens of all leases of this process, and of the held ones: released ones never block it.
made_here: set[str] = set()
held_here: set[str] = set()


def is_alive(lease: Document) -> bool:
    """Check by its time stamp that a lease was renewed lately."""
    return seconds_left(lease) > 0


def seconds_left(lease: Document) -> float:
    """Return the time until a lease that is not renewed any more counts as expired."""
    longest: float = SURELY_EXPIRED * lease["lease_seconds"]
    return longest - seconds_since(lease)


def seconds_since(lease: Document) -> float:
    """Return the age of the last renewal, by this machine's clock."""
    return (datetime.now(tz=UTC) - datetime.fromisoformat(lease["seen_at"])).total_seconds()


def is_running(lease: Document) -> bool:
    """Check that a lease was renewed lately, by a process that has not ended.

    Whether it has ended shows on the same machine only.  Its lease is waited for nevertheless: what
    it sent last may not have been carried out yet.
    """
    return is_alive(lease) and not _has_ended(lease)


def is_at_work(lease: Document) -> bool:
    """Check that a lease is renewed, by the age of its last renewal.

    Of a process of this machine, also in another container, twice `lease_seconds` count, since both
    read the same clock; of others as `is_running`.
    """
    there, here = lease["body"].get("process"), process_of(os.getpid())
    is_on_same_clock = there and here and _boot(there) == _boot(here)
    longest = (2 if is_on_same_clock else SURELY_EXPIRED) * lease["lease_seconds"]
    return seconds_since(lease) < longest and not _has_ended(lease)


def _boot(process: Document) -> str:
    return str(process["machine"]).partition(" ")[0]


def _has_ended(lease: Document) -> bool:
    """Return True if the holder was a process of this machine that is no longer there."""
    there, here = lease["body"].get("process"), process_of(os.getpid())
    if not there or not here or there["machine"] != here["machine"]:
        return False
    try:
        os.kill(lease["process_id"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # another user's
    found = process_of(lease["process_id"])
    return found is not None and found["started"] != there["started"]


def process_of(process_id: int) -> Document | None:
    """Identify a process on this machine; None where /proc does not show it.

    `machine` is the boot and the namespace of process ids; each container has its own namespace.
    `started` is in clock ticks since the boot: a later process with the same id has another value.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = f"{boot} {os.readlink('/proc/self/ns/pid')}"
        state, *fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return {"machine": machine, "started": None if state in "ZX" else int(fields[18])}


def is_of_this_process(lease: Document) -> bool:
    """Check that this process made a lease."""
    return lease["token"] in made_here


def holder(lease: Document) -> str:
    """Describe the process that holds a lease."""
    return f"Process {lease['process_id']} on {lease['host']}"


def now_iso() -> str:
    """Format the present time (UTC) to the millisecond."""
    return datetime.now(tz=UTC).isoformat(timespec="milliseconds")
