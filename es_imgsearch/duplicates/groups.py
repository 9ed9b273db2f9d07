"""Groups of pictures that are the same, and the evidence for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from es_imgsearch.records import FileState

Level = Literal["same", "near", "similar"]
LEVELS: tuple[Level, ...] = ("same", "near", "similar")


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored picture, as far as a decision about duplicates needs it; sides in pixels."""

    image_id: str
    root: str
    relative_path: str
    content_id: str
    state: FileState
    width: int
    height: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `duplicates --json` prints them."""
        return {
            "image_id": self.image_id,
            "root": self.root,
            "relative_path": self.relative_path,
            "content_id": self.content_id,
            "size_bytes": self.state.size_bytes,
            "width": self.width,
            "height": self.height,
        }


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures held to be the same, and why; what was not compared is None.

    `by`
        what decided: ``bytes``, ``corners`` (local features that agree) or ``cosine``.
    `hash_distance`
        bits of 64 by which the perceptual hashes differ, after `turn` was undone.
    `turn`
        how one has to be turned to be the other: ``upright``, ``mirrored``, ``turned by 90°``…
    `corners`
        local features that match and lie alike under one homography.
    `cosine`
        of the stored embeddings.
    """

    one: str
    other: str
    by: Literal["bytes", "corners", "cosine"]
    hash_distance: int | None = None
    turn: str | None = None
    corners: int | None = None
    cosine: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Without what was not compared."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures that are the same at a level, the largest (in pixels, then bytes) first.

    `pairs` hold the group together: one fewer than there are pictures.
    """

    level: Level
    pictures: tuple[Stored, ...]
    pairs: tuple[Pair, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `duplicates --json` prints them."""
        return {
            "level": self.level,
            "pictures": [each.to_dict() for each in self.pictures],
            "pairs": [each.to_dict() for each in self.pairs],
        }


def group_of(level: Level, pictures: Iterable[Stored], pairs: Iterable[Pair]) -> Group:
    """A group in its order, which depends on nothing but its pictures."""

    def place(each: Stored) -> tuple[int, int, str, str]:
        return -each.width * each.height, -each.state.size_bytes, each.root, each.relative_path

    return Group(level, tuple(sorted(pictures, key=place)), tuple(pairs))


class Unions:
    """Which pictures hang together, by the pairs that were found (union by size, Tarjan 1975).

    Holds only pictures that are in some pair, and only pairs that joined two groups.
    """

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._pairs: list[Pair] = []

    def are_joined(self, one: str, other: str) -> bool:
        return (
            one in self._parents and other in self._parents and self._top(one) == self._top(other)
        )

    def join(self, pair: Pair) -> bool:
        """Whether the pair joined what was apart."""
        large, small = self._top(pair.one), self._top(pair.other)
        if large == small:
            return False
        if self._sizes[large] < self._sizes[small]:
            large, small = small, large
        self._parents[small] = large
        self._sizes[large] += self._sizes.pop(small)
        self._pairs.append(pair)
        return True

    def groups(self) -> Iterator[tuple[list[str], list[Pair]]]:
        """Members and pairs of every group, in the order in which they were first seen."""
        members: dict[str, list[str]] = {}
        for each in self._parents:
            members.setdefault(self._top(each), []).append(each)
        pairs: dict[str, list[Pair]] = {}
        for pair in self._pairs:
            pairs.setdefault(self._top(pair.one), []).append(pair)
        for top, together in members.items():
            yield together, pairs[top]

    def _top(self, each: str) -> str:
        if each not in self._parents:
            self._parents[each] = each
            self._sizes[each] = 1
        while (parent := self._parents[each]) != each:
            self._parents[each] = each = self._parents[parent]
        return each


def stored_of(fields: Mapping[str, Any]) -> Stored:
    """From a document's fields; sides are 0 where the document has none."""
    return Stored(
        image_id=fields["image_id"],
        root=fields["root"],
        relative_path=fields["relative_path"],
        content_id=fields.get("content_id", ""),
        state=FileState(fields.get("size_bytes", -1), fields.get("mtime_ns", -1)),
        width=fields.get("width", 0),
        height=fields.get("height", 0),
    )
