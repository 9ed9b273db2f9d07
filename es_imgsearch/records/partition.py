"""Divide the files of a root among workers.

By the ids of the files, which are hashes of root name and path: partition 2/3 has the second third
of all ids.  So partitions are equally large also in one flat folder, a file's partition never
changes while its path does not, and Elasticsearch lists and counts the documents of one by a range
of `image_id`, without a field for it.  A file that is renamed may come to another partition.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from es_imgsearch.errors import UsageError

_PARTITION = re.compile(r"([0-9]{1,4})/([0-9]{1,4})", re.ASCII)
# More workers than a folder is worth dividing among; each reads every folder's names.
MOST_PARTITIONS = 64
# Ids are 32 hex digits; 16 of them decide.
_DIGITS = 16


@dataclass(frozen=True, order=True, slots=True)
class Partition:
    """Part `number`, from 1 on, of `count` equal ones."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Partition:
        """Parse text like `2/3`.  Raises UsageError."""
        match = _PARTITION.fullmatch(text)
        found = match and cls(int(match[1]), int(match[2]))
        if not found or not 1 <= found.number <= found.count <= MOST_PARTITIONS:
            raise UsageError(
                f"--partition is a number and how many there are, such as 1/3, 2/3 and 3/3, at most"
                f" {MOST_PARTITIONS}, not {text!r}."
            )
        return found

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, image_id: str) -> bool:
        """Return True if a file of this id is of the partition."""
        first, end = self._bounds()
        return first <= image_id and (end is None or image_id < end)

    def clause(self) -> dict[str, Any]:
        """Return the query of the documents of this partition."""
        first, end = self._bounds()
        return {"range": {"image_id": {"gte": first, **({} if end is None else {"lt": end})}}}

    def share(self, number: int) -> int:
        """Return what is this partition's part of a number, rounded up."""
        return -(-number // self.count)

    def others(self) -> Iterator[Partition]:
        """Yield the other partitions of this division."""
        return (each for each in partitions(self.count) if each != self)

    def _bounds(self) -> tuple[str, str | None]:
        """Return the first id, and the first one after; None if there is none."""
        first, end = (
            f"{-(-number * 16**_DIGITS // self.count):0{_DIGITS}x}"
            for number in (self.number - 1, self.number)
        )
        return first, None if self.number == self.count else end


def partitions(count: int) -> list[Partition]:
    """Return all partitions of a division."""
    return [Partition(number, count) for number in range(1, count + 1)]
