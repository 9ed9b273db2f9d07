"""Note what became of files, for the log of a daemon and for progress."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from es_imgsearch.records import Change, Root
from es_imgsearch.watch.commands import shell_word

logger = logging.getLogger(__name__)

# Of moved files and of failures so many are remembered, of 100 bytes each.
_REMEMBERED = 10_000

# So many new failures are named one by one.
SINGLE_FAILURES = 3


@dataclass(slots=True)
class Tally:
    """Numbers of files by outcome; a moved file is neither stored nor deleted."""

    stored: int = 0
    moved: int = 0
    deleted: int = 0
    failed: int = 0
    # Of the failed ones those that did not fail alike before; path and message of the first.
    new_failures: int = 0
    first_failures: list[tuple[str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.stored or self.moved or self.deleted or self.failed)

    def add(self, other: Tally) -> None:
        """Add what happened later."""
        for name in ("stored", "moved", "deleted", "failed", "new_failures"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.first_failures += other.first_failures[: SINGLE_FAILURES - len(self.first_failures)]


@dataclass(slots=True)
class Costs:
    """Seconds that describers took, of all processes together.

    `reading` has those of reading and describing together, without waiting for a process.
    """

    pictures: int = 0
    reading: float = 0.0
    describers: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """Return the costs as `status` shows them, the most expensive describer first."""
        return {
            "pictures": self.pictures,
            "reading_seconds": round(self.reading, 3),
            "describer_seconds": {
                name: round(seconds, 3) for name, seconds in self.describers.most_common()
            },
        }


class Activity:
    """What happened to files since the start, and since `take`.  Thread-safe.

    Every file is logged, for `-v`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tally = Tally()
        self._costs: dict[str, Costs] = {}
        self._moved_from: OrderedDict[tuple[Root, str], None] = OrderedDict()
        self._failing: OrderedDict[str, str] = OrderedDict()
        self._folder: str | None = None

    def take(self) -> Tally:
        """Return what happened since the last call."""
        with self._lock:
            taken, self._tally = self._tally, Tally()
            return taken

    @property
    def folder(self) -> str | None:
        """The folder of the file that was finished last."""
        return self._folder

    def costs(self, *root_names: str) -> Costs:
        """Return what describers cost for pictures of these roots, by default of all."""
        total = Costs()
        with self._lock:
            for name in root_names or tuple(self._costs):
                if (each := self._costs.get(name)) is not None:
                    total.pictures += each.pictures
                    total.reading += each.reading
                    total.describers.update(each.describers)
        return total

    def take_costs(self) -> dict[str, Costs]:
        """Return the costs by root since the last call, which then count as taken."""
        with self._lock:
            taken, self._costs = self._costs, {}
            return taken

    def add_costs(self, costs: Mapping[str, Costs]) -> None:
        """Add the costs of another process, by root."""
        with self._lock:
            for name, each in costs.items():
                total = self._costs.setdefault(name, Costs())
                total.pictures += each.pictures
                total.reading += each.reading
                total.describers.update(each.describers)

    def note_stored(self, change: Change, moved_from: str | None = None) -> None:
        """Note a stored picture, perhaps moved from another path of its root."""
        path = self._path_of(change)
        with self._lock:
            self._failing.pop(change.image_id, None)
            if moved_from is None:
                self._tally.stored += 1
            else:
                self._tally.moved += 1
                _put(self._moved_from, (change.root, moved_from), None)
        if moved_from is None:
            logger.debug("Stored: %s", path)
        else:
            logger.debug("Moved: %s to %s", _path(change.root, moved_from), path)

    def note_failed(self, change: Change, message: str) -> None:
        """Note a file that cannot be indexed; the same again is no news."""
        path = self._path_of(change)
        with self._lock:
            self._tally.failed += 1
            if self._failing.get(change.image_id) != message:
                _put(self._failing, change.image_id, message)
                self._tally.new_failures += 1
                if len(self._tally.first_failures) < SINGLE_FAILURES:
                    self._tally.first_failures.append((path, message))
        logger.debug("Failed: %s", path)

    def note_other(self, change: Change) -> None:
        """Note a file that leaves no document, or whose document stays as it is."""
        logger.debug("Left as it is: %s", self._path_of(change))

    def note_deleted(self, root: Root, paths: Sequence[str], pictures: int) -> int:
        """Note paths whose documents were deleted, `pictures` of them of pictures.

        Returns the number of those that were not moved.
        """
        with self._lock:
            left = [each for each in paths if (root, each) not in self._moved_from]
            for each in paths:
                self._moved_from.pop((root, each), None)
            removed = max(0, pictures - (len(paths) - len(left)))
            self._tally.deleted += removed
        for each in left:
            logger.debug("Removed from the index: %s", _path(root, each))
        return removed

    def note_seconds(self, root: Root, seconds: Mapping[str, float], *, reading: float) -> None:
        """Add what the describers of one picture cost, and its reading with them."""
        with self._lock:
            costs = self._costs.setdefault(root.name, Costs())
            costs.pictures += 1
            costs.reading += reading
            costs.describers.update(seconds)

    def _path_of(self, change: Change) -> str:
        absolute = change.root.absolute(change.relative_path)
        self._folder = os.path.dirname(absolute)
        return shell_word(absolute)


def _path(root: Root, relative_path: str) -> str:
    return shell_word(root.absolute(relative_path))


def _put(where: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    where[key] = value
    if len(where) > _REMEMBERED:
        where.popitem(last=False)
