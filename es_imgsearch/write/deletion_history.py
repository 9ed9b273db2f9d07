"""Remember what a root held when it was last whole, and what was deleted lately.

    document deletions:NAME, body
        pictures    documents of the root at the end of the last comparison that was not paused
        whole_at    when that was; documents of later files are none of them
        deleted     of two days: [when, number of pictures, number of them that stood then]
        paused_at   when the share paused deletions; the two days end there, so that time alone
                    ends no pause
        noted       id of the last deletion in `deleted`

Times are seconds since 1970.  In Elasticsearch, so that it holds for all processes: a `sync` that
cron starts every hour must not delete a fifth every hour.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from es_imgsearch.elastic.state import Document, State, deletions_id
from es_imgsearch.records import Root

# A `sync` once a day counts what its last run deleted, though it begins some minutes later.
WINDOW_SECONDS = 48 * 3600.0

# A share of a folder of five pictures means nothing.
SHARE_COUNTS_FROM = 20

# Deletions of one such time are one entry, so that a document has at most 288.
_ENTRY_SECONDS = 600.0


def share_counts_from(root: Root) -> int:
    """Return from how many pictures on a share means something.

    Each partition is judged by itself: what no partition loses more of, the root does not lose more
    of either, in whatever order the partitions' workers come.
    """
    partition = root.partition
    return SHARE_COUNTS_FROM if partition is None else partition.share(SHARE_COUNTS_FROM)


@dataclass(frozen=True, slots=True)
class Deleted:
    """Pictures deleted about one time; the last whole root `held` some of them."""

    at: float
    pictures: int
    held: int


@dataclass(frozen=True, slots=True)
class RootHistory:
    """What a root held when last whole, and what was deleted within two days."""

    pictures: int
    whole_at: float
    deleted: tuple[Deleted, ...] = ()
    paused_at: float | None = None
    # Id of the last note: the same one comes twice if the answer to the first was lost.
    noted: str | None = None

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """Read the document."""
        body = document["body"]
        deleted = tuple(Deleted(*each) for each in body["deleted"])
        return cls(body["pictures"], body["whole_at"], deleted, body["paused_at"], body["noted"])

    def to_document(self, root: Root) -> dict[str, Any]:
        """Return the document to store."""
        body: Mapping[str, Any] = {
            "pictures": self.pictures,
            "whole_at": self.whole_at,
            "deleted": [[each.at, each.pictures, each.held] for each in self.deleted],
            "paused_at": self.paused_at,
            "noted": self.noted,
        }
        return {"kind": "deletions", "root": root.name, "body": body}

    @property
    def recent(self) -> int:
        """Number of pictures deleted within two days."""
        return sum(each.pictures for each in self.deleted)

    @property
    def recent_held(self) -> int:
        """Number of those that stood in the root when it was last whole."""
        return sum(each.held for each in self.deleted)

    @property
    def held(self) -> int:
        """Number of pictures that the root held, including those deleted before."""
        return self.pictures + sum(each.held for each in self.deleted if each.at < self.whole_at)

    def until(self, now: float) -> RootHistory:
        """Forget what was deleted more than two days ago, or before a pause that goes on."""
        since = (now if self.paused_at is None else min(now, self.paused_at)) - WINDOW_SECONDS
        # A clock that was set back must not make an entry last for ever.
        kept = (replace(each, at=min(each.at, now)) for each in self.deleted if each.at > since)
        return replace(self, deleted=tuple(kept))

    def plus(self, deleted: Deleted) -> RootHistory:
        """Add a deletion."""
        entries = list(self.deleted)
        last = entries[-1] if entries else None
        # Not into an entry of before the last whole state, which counts otherwise.
        if last and deleted.at - last.at < _ENTRY_SECONDS and last.at >= self.whole_at:
            entries[-1] = Deleted(
                last.at, last.pictures + deleted.pictures, last.held + deleted.held
            )
        else:
            entries.append(deleted)
        return replace(self, deleted=tuple(entries))


class DeletionHistory:
    """The histories of roots, as all processes share them.  Raises the store's errors."""

    def __init__(self, state: State, clock: Callable[[], float]) -> None:
        self._state = state
        self._clock = clock

    def read(self, root: Root, pictures: Callable[[], int]) -> RootHistory:
        """Read a root's history; it begins with the pictures that the root holds now."""
        name = deletions_id(root.key)
        read = self._state.read(name)
        if read is None:
            first = RootHistory(pictures(), self._clock())
            self._state.update(name, lambda stored: stored or first.to_document(root))
            return first
        return RootHistory.from_document(read.document).until(self._clock())

    def begin(self, root: Root, pictures: int) -> None:
        """Enter what a root holds before a comparison, if so far it held too few.

        A first run that was ended stored pictures after the history began; another disk with many
        pictures would make them a small share.
        """
        now = self._clock()

        def begun(history: RootHistory | None) -> RootHistory | None:
            if history is None or history.paused_at is not None:
                return history
            if history.pictures >= share_counts_from(root) or pictures <= history.pictures:
                return history
            return replace(history.until(now), pictures=pictures, whole_at=now)

        self._update(root, begun)

    def note_whole(
        self, root: Root, pictures: int, *, compared_at: float, is_permitted: bool
    ) -> None:
        """Note that all missing files of a comparison were deleted.

        What was permitted counts no more; what paused since the comparison began goes on.
        """
        now = self._clock()

        def whole(history: RootHistory | None) -> RootHistory:
            if history is None or is_permitted:
                return RootHistory(pictures, now)
            is_later = history.paused_at is not None and history.paused_at > compared_at
            paused_at = history.paused_at if is_later else None
            return replace(history.until(now), pictures=pictures, whole_at=now, paused_at=paused_at)

        self._update(root, whole)

    def note_deleted(self, root: Root, pictures: int, held: int) -> None:
        """Note that pictures were deleted."""
        now, note = self._clock(), uuid.uuid4().hex

        def noted(history: RootHistory | None) -> RootHistory | None:
            if history is None or history.noted == note:
                return history
            return replace(history.until(now).plus(Deleted(now, pictures, held)), noted=note)

        self._update(root, noted)

    def note_paused(self, root: Root) -> None:
        """Note that the share of missing files pauses the deletions."""
        now = self._clock()
        self._update(
            root,
            lambda history: history and replace(history, paused_at=history.paused_at or now),
        )

    def permit(self, root: Root) -> None:
        """Forget what was deleted: it was permitted."""
        self._update(root, lambda history: history and replace(history, deleted=(), paused_at=None))

    def _update(
        self, root: Root, change: Callable[[RootHistory | None], RootHistory | None]
    ) -> None:
        def changed(document: Document | None) -> Document | None:
            before = None if document is None else RootHistory.from_document(document)
            after = change(before)
            return None if after is None else after.to_document(root)

        self._state.update(deletions_id(root.key), changed)
