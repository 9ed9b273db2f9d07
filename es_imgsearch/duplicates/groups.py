"""Group pictures that are the same, with the evidence for each pair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from es_imgsearch.records import FileState

Level = Literal["same", "near", "similar"]
LEVELS: tuple[Level, ...] = ("same", "near", "similar")


@dataclass(frozen=True, slots=True)
class IndexedPicture:
    """The fields of an indexed picture that are needed to compare it; sides in pixels."""

    image_id: str
    root: str
    relative_path: str
    content_id: str
    state: FileState
    width: int
    height: int

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, as `duplicates --json` prints them."""
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
class DuplicatePair:
    """Two pictures that are the same, with the evidence; None if not compared.

    `by`
        the decisive evidence: ``bytes``, ``corners`` (local features that agree) or ``cosine``.
    `hash_distance`
        bits of 64 in which the perceptual hashes differ, after `turn` was undone.
    `turn`
        how one has to be turned to become the other: ``upright``, ``mirrored``, ``turned by 90°``…
    `corners`
        number of local features that match under one homography.
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
        """Convert to plain values, without None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Pictures that are the same at a level, largest (in pixels, then bytes) first.

    `pairs` connect all pictures: one fewer than there are pictures.
    """

    level: Level
    pictures: tuple[IndexedPicture, ...]
    pairs: tuple[DuplicatePair, ...]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, as `duplicates --json` prints them."""
        return {
            "level": self.level,
            "pictures": [each.to_dict() for each in self.pictures],
            "pairs": [each.to_dict() for each in self.pairs],
        }


def sorted_group(
    level: Level, pictures: Iterable[IndexedPicture], pairs: Iterable[DuplicatePair]
) -> DuplicateGroup:
    """Make a group with its pictures in order."""

    def rank(each: IndexedPicture) -> tuple[int, int, str, str]:
        return -each.width * each.height, -each.state.size_bytes, each.root, each.relative_path

    return DuplicateGroup(level, tuple(sorted(pictures, key=rank)), tuple(pairs))


class DisjointSets:
    """Connected components of pictures by pairs (union by size, Tarjan 1975).

    Stores only pictures that are in some pair, and only pairs that merged two components.
    """

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._pairs: list[DuplicatePair] = []

    def are_connected(self, one: str, other: str) -> bool:
        return (
            one in self._parents and other in self._parents and self._root(one) == self._root(other)
        )

    def merge(self, pair: DuplicatePair) -> bool:
        """Merge the components of a pair; return False if it was one already."""
        large, small = self._root(pair.one), self._root(pair.other)
        if large == small:
            return False
        if self._sizes[large] < self._sizes[small]:
            large, small = small, large
        self._parents[small] = large
        self._sizes[large] += self._sizes.pop(small)
        self._pairs.append(pair)
        return True

    def components(self) -> Iterator[tuple[list[str], list[DuplicatePair]]]:
        """Yield members and pairs of every component, in the order of their first pair."""
        members: dict[str, list[str]] = {}
        for each in self._parents:
            members.setdefault(self._root(each), []).append(each)
        pairs: dict[str, list[DuplicatePair]] = {}
        for pair in self._pairs:
            pairs.setdefault(self._root(pair.one), []).append(pair)
        for root, image_ids in members.items():
            yield image_ids, pairs[root]

    def _root(self, each: str) -> str:
        if each not in self._parents:
            self._parents[each] = each
            self._sizes[each] = 1
        while (parent := self._parents[each]) != each:
            self._parents[each] = each = self._parents[parent]
        return each


def parse_picture(fields: Mapping[str, Any]) -> IndexedPicture:
    """Convert a document's fields; sides are 0 if it has none."""
    return IndexedPicture(
        image_id=fields["image_id"],
        root=fields["root"],
        relative_path=fields["relative_path"],
        content_id=fields.get("content_id", ""),
        state=FileState(fields.get("size_bytes", -1), fields.get("mtime_ns", -1)),
        width=fields.get("width", 0),
        height=fields.get("height", 0),
    )
