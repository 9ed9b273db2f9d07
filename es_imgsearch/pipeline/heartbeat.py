"""Claim a daemon's roots, and store its state for `status`.

The state is its queue length and its last comparisons.  The claims are documents in Elasticsearch,
so `status` finds a daemon on any host.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from es_imgsearch.elastic.leases import Lease, holder, is_running, seconds_left
from es_imgsearch.elastic.leases.division import (
    check_division,
    claims_of,
    daemon_leases,
    divide,
    keys_by_root,
)
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.state import Document, comparison_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import AlreadyRunning
from es_imgsearch.pipeline.jobs import RootComparison
from es_imgsearch.records import Root
from es_imgsearch.settings import Settings
from es_imgsearch.write.activity import Activity
from es_imgsearch.write.unstored import UnstoredFiles


def save_comparisons(
    store: Store,
    comparisons: Mapping[str, RootComparison],
    encoder_plan: Mapping[str, Any] | None,
    activity: Activity,
    keys: Mapping[str, str] | None = None,
) -> None:
    """Store each root's last comparison, how the encoder ran, what describers cost.

    `keys` has the names of roots' partitions, by the root's name.
    """
    for name, each in comparisons.items():
        costs = activity.costs(name)
        body = {**each.to_dict(), "encoder_plan": encoder_plan, "costs": costs.to_dict()}
        document: Document = {"kind": "comparison", "root": name, "body": body}
        key = (keys or {}).get(name, name)
        store.state.update(comparison_id(key), partial(_replace, document))


def _replace(document: Document, _stored: Document | None) -> Document:
    return document


def watched_roots(store: Store, names: Sequence[str]) -> set[str]:
    """Return the roots, of these names, that running daemons watch as a whole."""
    leases = daemon_leases(store.state, names)
    running = {key for key, lease in leases.items() if is_running(lease)}
    keys = keys_by_root(store.state, names)
    return {name for name in names if running.issuperset(keys[name])}


def check_excludes(store: Store, roots: Sequence[Root], settings: Settings) -> None:
    """Raise AlreadyRunning if a daemon watches other files of a root.

    That is, with other `exclude` or `follow_links`.

    It would delete what this process adds and add what this one deletes, in turn.
    """
    exclude, follow_links = settings.exclude, settings.follow_links
    for lease in daemon_leases(store.state, [root.name for root in roots]).values():
        # A daemon of an earlier version does not store its excludes.
        theirs = lease["body"].get("exclude")
        they_follow = lease["body"].get("follow_links", False)
        is_same = theirs is None or _in_order(theirs) == _in_order(exclude)
        if (is_same and they_follow == follow_links) or not is_running(lease):
            continue
        links = (they_follow, follow_links)
        options = _as_options(exclude if theirs is None else theirs, they_follow, links)
        raise AlreadyRunning(
            f"{holder(lease)} is watching {lease['root']!r} with {options}, and this run has"
            f" {_as_options(exclude, follow_links, links)}: they would add and delete the same"
            f" pictures in turn. Run it with {options}, or stop the other process first (if it was"
            f" killed, wait for {seconds_left(lease):.0f} s)."
        )


def _as_options(exclude: Sequence[str], follows: bool, either_follows: Sequence[bool]) -> str:
    options = " ".join(f"--exclude {shlex.quote(pattern)}" for pattern in _in_order(exclude))
    options = options or "no --exclude"
    if not any(either_follows):
        return options
    return f"{options} and {'' if follows else 'no '}--follow-links"


def _in_order(exclude: Sequence[str]) -> list[str]:
    """Return patterns in an order of their own, unless theirs has a meaning."""
    is_ordered = any(pattern.startswith("!") for pattern in exclude)
    return list(exclude) if is_ordered else sorted(set(exclude))


class Heartbeat:
    """Hold the claim on a daemon's roots until it is released.

    The claim is renewed from a thread of its own.  It bears the `exclude` patterns, see
    `check_excludes`.  `queue` returns the number of files in flight, `hung` the roots whose disks
    do not answer, with the seconds since then; `absent` has the names of those whose folders are
    missing, `comparisons` the last comparison of each whole root, `unstored` the files that cannot
    be stored.  A write that fails is skipped: a running daemon never waits for it.

    A `lease` on the partitions of the roots was acquired before.  What the daemon writes then asks
    it first, since another worker takes over what it loses.
    """

    def __init__(
        self,
        store: Store,
        roots: Sequence[Root],
        host: str,
        *,
        exclude: Sequence[str],
        follow_links: bool = False,
        queue: Callable[[], int],
        hung: Callable[[], Mapping[str, float]] = dict,
        absent: Collection[str] = (),
        comparisons: Mapping[str, RootComparison],
        unstored: UnstoredFiles | None = None,
        encoder_plan: Callable[[], Mapping[str, Any] | None] = lambda: None,
        activity: Activity,
        lease_seconds: float,
        closing: threading.Event,
        outage: Outage,
        lease: Lease | None = None,
    ) -> None:
        self._store = store
        self._names = [root.name for root in roots]
        self._keys = {root.name: root.key for root in roots}
        self._host = host
        self._lease_seconds = lease_seconds
        self._comparisons = comparisons
        self._unstored = unstored or UnstoredFiles()
        self._encoder_plan = encoder_plan
        self._activity = activity
        self._saved: Mapping[str, Document] = {}
        self._closing = closing
        self._outage = outage
        names = ", ".join(repr(root.name) for root in roots)

        def body() -> Mapping[str, Any]:
            return {
                "queue": queue(),
                "exclude": list(exclude),
                "follow_links": follow_links,
                "absent": sorted(absent),
                "hung_seconds": {name: round(each) for name, each in hung().items()},
            }

        self._is_acquired = lease is not None
        if lease is not None:
            lease.tell(body, self._save_news)
            store.documents.before_write = lease.check_valid
        self._lease = lease or Lease(
            store.state,
            claims_of(self._names, {}),
            host,
            f"watching {names} into index {store.index!r}",
            lease_seconds=lease_seconds,
            body=body,
            renewed=self._save_news,
        )

    def start(self) -> None:
        """Claim the roots; waits up to `lease_seconds` after a daemon was killed.

        Raises AlreadyRunning if another daemon watches one of them, Stopped if `closing` is set
        meanwhile.
        """
        if not self._is_acquired:
            persist(self._acquire, self._closing, self._outage)

    def _acquire(self) -> None:
        state = self._store.state
        for name in self._names:
            divide(
                state, name, 1, self._host,
                lease_seconds=self._lease_seconds, stopping=self._closing,
            )  # fmt: skip
        self._lease.acquire(self._closing)
        try:
            for name in self._names:
                check_division(state, name, 1)
        except AlreadyRunning:
            self._lease.release()
            raise

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
        found = {name: each.to_dict() for name, each in comparisons.items()}
        news = {name: comparisons[name] for name in found if self._saved.get(name) != found[name]}
        save_comparisons(self._store, news, self._encoder_plan(), self._activity, self._keys)
        self._saved = found
        self._unstored.save()
