"""Group pictures that are the same, with the evidence for each pair."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from es_imgsearch.records import FileState, is_url, iso_timestamp, stored_path

Level = Literal["same", "near", "similar"]
Keep = Literal["largest", "oldest", "newest"]
LEVELS: tuple[Level, ...] = ("same", "near", "similar")


@dataclass(frozen=True, slots=True)
class IndexedPicture:
    """The fields of an indexed picture that are needed to compare it; sides in pixels.

    `path` is the absolute path, None for a picture of another host.
    """

    image_id: str
    root: str
    relative_path: str
    content_id: str
    state: FileState
    width: int
    height: int
    path: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, as `duplicates --json` prints them."""
        return {
            "image_id": self.image_id,
            "path": None if self.path is None else stored_path(os.fspath(self.path)),
            "root": self.root,
            "relative_path": self.relative_path,
            "content_id": self.content_id,
            "size_bytes": self.state.size_bytes,
            "width": self.width,
            "height": self.height,
            "modified_at": None
            if self.state.mtime_ns < 0
            else iso_timestamp(datetime.fromtimestamp(self.state.mtime_ns / 1e9, UTC)),
        }


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two pictures that are the same, with the evidence; None if not compared.

    `by`
        the decisive evidence: ``bytes``, ``pixels`` (of the originals), ``corners`` (local features
        that agree) or ``cosine``.
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
    by: Literal["bytes", "pixels", "corners", "cosine"]
    hash_distance: int | None = None
    turn: str | None = None
    corners: int | None = None
    cosine: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, without None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Pictures that are the same at a level, the original first.

    `pairs` connect all pictures: one fewer than there are pictures.
    """

    level: Level
    pictures: tuple[IndexedPicture, ...]
    pairs: tuple[DuplicatePair, ...]

    @property
    def reclaimable_bytes(self) -> int:
        """Size of all files but the first; hard links of one file count once."""
        kept, *others = self.pictures
        files = {_file(each): max(0, each.state.size_bytes) for each in others}
        files.pop(_file(kept), None)
        return sum(files.values())

    @property
    def is_confirmed(self) -> bool:
        """True if bytes or pixels of the files agree."""
        return all(each.by in {"bytes", "pixels"} for each in self.pairs)

    def keeping(self, keep: Keep, folder: str = "") -> DuplicateGroup:
        """Return the group with the picture to keep first.

        Of those on this host, files in the folder come first: ROOT, ROOT/FOLDER, or a path.
        """

        def order(each: IndexedPicture) -> tuple[object, ...]:
            is_elsewhere = bool(folder) and not _is_in(each, folder)
            return each.path is None, is_elsewhere, *ORDERS[keep](each)

        return replace(self, pictures=tuple(sorted(self.pictures, key=order)))

    def has_in(self, folder: str) -> bool:
        """Whether a picture lies in the folder: ROOT, ROOT/FOLDER, or a path."""
        return any(_is_in(each, folder) for each in self.pictures)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, as `duplicates --json` prints them."""
        return {
            "level": self.level,
            "reclaimable_bytes": self.reclaimable_bytes,
            "pictures": [each.to_dict() for each in self.pictures],
            "pairs": [each.to_dict() for each in self.pairs],
        }


def largest_first(each: IndexedPicture) -> tuple[int | str, ...]:
    """Sort files of this host first, by pixels, then by bytes, then by age."""
    return (*_by_pixels(each), -each.state.size_bytes, *_by_age(each))


def oldest_first(each: IndexedPicture) -> tuple[int | str, ...]:
    """Sort files of this host first, by pixels, then by the time of modification."""
    # By age alone, a small copy that kept an old date would come before its original.
    return (*_by_pixels(each), each.state.mtime_ns, *largest_first(each))


def newest_first(each: IndexedPicture) -> tuple[int | str, ...]:
    """Sort files of this host first, by pixels, then by the last time of modification."""
    return (*_by_pixels(each), -each.state.mtime_ns, *largest_first(each))


ORDERS: dict[Keep, Callable[[IndexedPicture], tuple[int | str, ...]]] = {
    "largest": largest_first,
    "oldest": oldest_first,
    "newest": newest_first,
}


def sorted_group(
    level: Level,
    pictures: Iterable[IndexedPicture],
    pairs: Iterable[DuplicatePair],
    keep: Keep = "largest",
) -> DuplicateGroup:
    """Make a group, the picture to keep first."""
    return DuplicateGroup(level, tuple(sorted(pictures, key=ORDERS[keep])), tuple(pairs))


def has_equal_content(one: IndexedPicture, other: IndexedPicture) -> bool:
    """Return whether the bytes of two pictures were equal when they were indexed."""
    # Imported pictures may have no content_id; that two have none is no evidence.
    return bool(one.content_id) and one.content_id == other.content_id


def why_left(picture: IndexedPicture) -> str | None:
    """Return why a file must not be removed, None if it may be."""
    if picture.path is None:
        return "not on this host"
    if is_url(picture.path):
        return "at a URL, where this program removes nothing"
    try:
        # Of a link, the index has the state of the file behind it.
        state = FileState.of(os.stat(picture.path))
    except OSError:
        return "gone"
    return None if state == picture.state else "changed since it was indexed"


def is_outdated(picture: IndexedPicture) -> bool:
    """Return whether a file of this host is gone, or changed since it was indexed."""
    is_here = picture.path is not None and not is_url(picture.path)
    return is_here and why_left(picture) is not None


def _is_in(each: IndexedPicture, folder: str) -> bool:
    """Return whether a picture lies in a folder, given by its root or its path."""
    wanted = f"{folder.rstrip('/')}/"
    path = "" if each.path is None else os.fspath(each.path)
    return f"{each.root}/{each.relative_path}".startswith(wanted) or path.startswith(wanted)


def _by_pixels(each: IndexedPicture) -> tuple[int, int]:
    return each.path is None, -each.width * each.height


def _by_age(each: IndexedPicture) -> tuple[int | str, ...]:
    # A link comes after the file behind it, whose size and time it has.
    is_link = each.path is not None and each.path.is_symlink()
    return is_link, each.state.mtime_ns, each.root, each.relative_path


def _file(each: IndexedPicture) -> object:
    """Identify the file of a picture: two names may be links to one."""
    try:
        status = os.stat(each.path) if each.path is not None else None
    except OSError:
        status = None
    return each.image_id if status is None else (status.st_dev, status.st_ino)


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
