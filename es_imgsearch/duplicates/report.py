"""Groups of duplicates in words: what each frees, and the evidence for each file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from es_imgsearch.duplicates.groups import DuplicateGroup, IndexedPicture
from es_imgsearch.errors import counted, escaped, readable_bytes

_EVIDENCE: Final = {
    "bytes": "same bytes", "pixels": "same picture", "corners": "in part", "cosine": "unconfirmed"
}  # fmt: skip


def summary(groups: Sequence[DuplicateGroup]) -> str:
    """Count groups and files, and what all would free."""
    if not groups:
        return "No duplicates."
    files = sum(len(group.pictures) for group in groups)
    if all(group.level == "similar" for group in groups):
        return f"{counted(len(groups), 'group')}, {files:,} pictures."
    freed = readable_bytes(sum(group.reclaimable_bytes for group in groups))
    return f"{counted(len(groups), 'group')}, {files:,} pictures, {freed} to free."


def headline(number: int, group: DuplicateGroup) -> str:
    """Name a group, the number of its files, and what it would free."""
    if group.level == "similar":
        return f"Group {number}: {len(group.pictures)} pictures like each other"
    freed = readable_bytes(group.reclaimable_bytes)
    return f"Group {number}: {len(group.pictures)} files, {freed} to free"


def group_lines(groups: Sequence[DuplicateGroup], first: int = 1) -> Iterator[str]:
    """Yield every group as lines: what it would free, and a line for each file."""
    for number, group in enumerate(groups, start=first):
        if number > first:
            yield ""
        yield headline(number, group)
        for each in group.pictures:
            yield (
                f"  {evidence(group, each):15}{size_of(each):>13}  {length_of(each):>10}"
                f"  {day_of(each):10}  {place_of(each)}"
            )


def evidence(group: DuplicateGroup, picture: IndexedPicture) -> str:
    """Say why a picture is in its group, `keep` or `first` for the first one."""
    if picture is group.pictures[0]:
        return "keep" if group.is_confirmed else "first"
    pair = next(each for each in group.pairs if picture.image_id in {each.one, each.other})
    if group.level == "similar":
        return f"cosine {pair.cosine:.2f}"
    is_turned = pair.by == "pixels" and pair.turn not in {None, "upright"}
    return str(pair.turn) if is_turned else _EVIDENCE[pair.by]


def size_of(picture: IndexedPicture) -> str:
    """Format the size in pixels."""
    return f"{picture.width} x {picture.height}"


def length_of(picture: IndexedPicture) -> str:
    """Format the size of the file."""
    return readable_bytes(max(0, picture.state.size_bytes))


def day_of(picture: IndexedPicture) -> str:
    """Return the day on which the file was changed last, "" if that is not known."""
    if picture.state.mtime_ns < 0:
        return ""
    return f"{datetime.fromtimestamp(picture.state.mtime_ns / 1e9).astimezone():%Y-%m-%d}"


def place_of(picture: IndexedPicture) -> str:
    """Return the path in one line, if the file is on this host, or else root and path."""
    if picture.path is None:
        return escaped(f"{picture.root}/{picture.relative_path}")
    return shown_bytes(os.fsencode(picture.path))


def shown_bytes(path: bytes) -> str:
    """Format a path that need not be UTF-8 in one line."""
    return escaped(path.decode("utf-8", "backslashreplace"))
