"""Claim a daemon's roots, and store its state for `status`.

The state is its queue length and its last comparisons.  The claims are documents in Elasticsearch,
so `status` finds a daemon on any host.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from es_imgsearch.elastic.leases import Lease, holder, is_running, seconds_left
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.state import Document, comparison_id, daemon_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import AlreadyRunning
from es_imgsearch.pipeline.jobs import RootComparison
from es_imgsearch.records import Root


def save_comparisons(
    store: Store, comparisons: Mapping[str, RootComparison], encoder_plan: Mapping[str, Any] | None
) -> None:
    """Store the last comparison of each root, and how the encoder ran."""
    for name, each in comparisons.items():
        body = {**each.to_dict(), "encoder_plan": encoder_plan}
        document: Document = {"kind": "comparison", "root": name, "body": body}
        store.state.update(comparison_id(name), partial(_replace, document))


def _replace(document: Document, _stored: Document | None) -> Document:
    return document


def watched_roots(store: Store, names: Sequence[str]) -> set[str]:
    """Return the roots, of these names, that a running daemon watches."""
    leases = store.state.read_many([daemon_id(name) for name in names])
    return {lease["root"] for lease in leases.values() if is_running(lease)}


def check_excludes(store: Store, roots: Sequence[Root], exclude: Sequence[str]) -> None:
    """Raise AlreadyRunning if a daemon watches a root with other excludes.

    It would delete what this process adds and add what this one deletes, in turn.
    """
    leases = store.state.read_many([daemon_id(root.name) for root in roots])
    for lease in leases.values():
        # A daemon of an earlier version does not store its excludes.
        theirs = lease["body"].get("exclude")
        if theirs is None or _in_order(theirs) == _in_order(exclude) or not is_running(lease):
            continue
        raise AlreadyRunning(
            f"{holder(lease)} is watching {lease['root']!r} with {_as_options(theirs)}, and this"
            f" run has {_as_options(exclude)}: they would add and delete the same pictures in turn."
            f" Run it with {_as_options(theirs)}, or stop the other process first (if it was"
            f" killed, wait for {seconds_left(lease):.0f} s)."
        )


def _as_options(exclude: Sequence[str]) -> str:
    options = [f"--exclude {shlex.quote(pattern)}" for pattern in _in_order(exclude)]
    return " ".join(options) or "no --exclude"


def _in_order(exclude: Sequence[str]) -> list[str]:
    """Return patterns in an order of their own, unless theirs has a meaning."""
    is_ordered = any(pattern.startswith("!") for pattern in exclude)
    return list(exclude) if is_ordered else sorted(set(exclude))


class Heartbeat:
    """Hold the claim on a daemon's roots until it is released.

    The claim is renewed from a thread of its own.  It bears the `exclude` patterns, see
    `check_excludes`.  `queue` returns the number of files in flight, `hung` the roots whose disks
    do not answer, with the seconds since then; `comparisons` has the last comparison of each whole
    root.  A write that fails is skipped: a running daemon never waits for it.
    """

    def __init__(
        self,
        store: Store,
        roots: Sequence[Root],
        host: str,
        *,
        exclude: Sequence[str],
        queue: Callable[[], int],
        hung: Callable[[], Mapping[str, float]] = dict,
        comparisons: Mapping[str, RootComparison],
        encoder_plan: Callable[[], Mapping[str, Any] | None] = lambda: None,
        lease_seconds: float,
        closing: threading.Event,
        outage: Outage,
    ) -> None:
        self._store = store
        self._comparisons = comparisons
        self._encoder_plan = encoder_plan
        self._saved: Mapping[str, RootComparison] = {}
        self._closing = closing
        self._outage = outage
        names = ", ".join(repr(root.name) for root in roots)
        self._lease = Lease(
            store.state,
            {daemon_id(root.name): {"kind": "daemon", "root": root.name} for root in roots},
            host,
            f"watching {names} into index {store.index!r}",
            lease_seconds=lease_seconds,
            body=lambda: {
                "queue": queue(),
                "exclude": list(exclude),
                "hung_seconds": {name: round(each) for name, each in hung().items()},
            },
            renewed=self._save_news,
        )

    def start(self) -> None:
        """Claim the roots; waits up to `lease_seconds` after a daemon was killed.

        Raises AlreadyRunning if another daemon watches one of them, Stopped if `closing` is set
        meanwhile.
        """
        persist(lambda: self._lease.acquire(self._closing), self._closing, self._outage)

    def renew_soon(self) -> None:
        """Write the state soon, for example because a comparison ended."""
        self._lease.renew_soon()

    def check(self) -> None:
        """Raise AlreadyRunning if another daemon has taken over a root."""
        self._lease.check()

    def release(self) -> None:
        """Begin to release the roots."""
        self._lease.release()

    def join(self, seconds: float) -> None:
        """Wait until the roots are released, at most for this time."""
        self._lease.join(seconds)

    def _save_news(self) -> None:
        # A copy: comparisons end in another thread.
        comparisons = dict(self._comparisons)
        news = {name: each for name, each in comparisons.items() if self._saved.get(name) != each}
        save_comparisons(self._store, news, self._encoder_plan())
        self._saved = {**self._saved, **news}
