"""Groups of duplicates as lines, a shell script or a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.printing.lines import print_line, shown_file
from es_imgsearch.cli.printing.sheets import write_sheet
from es_imgsearch.errors import escaped, readable_bytes

if TYPE_CHECKING:
    from es_imgsearch.duplicates.groups import DuplicateGroup, IndexedPicture

# A band of a sheet is 232 pixels high: 100 are a picture of 80 MB in memory.
_MAX_BANDS = 100
_EVIDENCE = {
    "bytes": "same bytes", "pixels": "same picture", "corners": "in part", "cosine": "unconfirmed"
}  # fmt: skip


def print_groups(groups: Sequence[DuplicateGroup]) -> None:
    """Print every group: what it would free, and a line for each file."""
    for number, group in enumerate(groups, start=1):
        if number > 1:
            print_line("")
        print_line(_headline(number, group))
        for each in group.pictures:
            size = f"{each.width} x {each.height}"
            place = shown_file(each.path, each.root, each.relative_path)
            length = readable_bytes(max(0, each.state.size_bytes))
            print_line(
                f"  {_evidence(group, each):15}{size:>13}  {length:>10}  {_day(each):10}  {place}"
            )


def print_script(groups: Sequence[DuplicateGroup]) -> None:
    """Print the shell script, as bytes: a name need not be UTF-8."""
    from es_imgsearch.duplicates.script import removal_script

    def shown(path: bytes) -> str:
        return escaped(path.decode("utf-8", "backslashreplace"))

    for line in removal_script(groups, shown, readable_bytes):
        click.echo(line, nl=False)


def write_group_sheet(groups: Sequence[DuplicateGroup], sheet: Path) -> None:
    """Write a picture with a band for each group, the first file of it on the left."""
    from es_imgsearch.search.sheet import draw_sheet

    drawn = draw_sheet([_Band(n, each) for n, each in enumerate(groups[:_MAX_BANDS], start=1)])
    more = f", with the first {_MAX_BANDS} groups" if len(groups) > _MAX_BANDS else ""
    write_sheet(drawn, sheet, more)


@dataclass(frozen=True, slots=True)
class _Cell:
    path: Path | None
    image_name: str
    root: str
    relative_path: str
    caption: str
    score: float = 1.0


class _Band:
    """A group as a row of the sheet."""

    def __init__(self, number: int, group: DuplicateGroup) -> None:
        self.queries = (_headline(number, group),)
        self._group = group

    def __len__(self) -> int:
        return len(self._group.pictures)

    def __getitem__(self, position: slice, /) -> list[_Cell]:
        return [self._cell(each) for each in self._group.pictures[position]]

    def _cell(self, each: IndexedPicture) -> _Cell:
        is_kept = each is self._group.pictures[0]
        length = readable_bytes(max(0, each.state.size_bytes))
        caption = f"{'keep, ' * is_kept}{each.width} x {each.height}, {length}"
        name = each.relative_path.rpartition("/")[2]
        return _Cell(each.path, name, each.root, each.relative_path, caption)


def _headline(number: int, group: DuplicateGroup) -> str:
    freed = readable_bytes(group.reclaimable_bytes)
    return f"Group {number}: {len(group.pictures)} files, {freed} to free"


def _evidence(group: DuplicateGroup, picture: IndexedPicture) -> str:
    if picture is group.pictures[0]:
        return "keep" if group.is_confirmed else "first"
    pair = next(each for each in group.pairs if picture.image_id in {each.one, each.other})
    if group.level == "similar":
        return f"cosine {pair.cosine:.2f}"
    is_turned = pair.by == "pixels" and pair.turn not in {None, "upright"}
    return str(pair.turn) if is_turned else _EVIDENCE[pair.by]


def _day(each: IndexedPicture) -> str:
    if each.state.mtime_ns < 0:
        return ""
    return f"{datetime.fromtimestamp(each.state.mtime_ns / 1e9).astimezone():%Y-%m-%d}"
