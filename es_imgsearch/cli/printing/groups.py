"""Groups of duplicates as lines, a shell script or a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.printing.lines import print_line
from es_imgsearch.cli.printing.sheets import write_sheet

if TYPE_CHECKING:
    from es_imgsearch.duplicates.groups import DuplicateGroup, IndexedPicture

# A band of a sheet is 232 pixels high: 100 are a picture of 80 MB in memory.
_MAX_BANDS = 100


def print_groups(groups: Sequence[DuplicateGroup]) -> None:
    """Print every group: what it would free, and a line for each file."""
    from es_imgsearch.duplicates.report import group_lines

    for line in group_lines(groups):
        print_line(line)


def print_script(groups: Sequence[DuplicateGroup]) -> None:
    """Print the shell script, as bytes: a name need not be UTF-8."""
    from es_imgsearch.duplicates.script import removal_script

    for line in removal_script(groups):
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
        from es_imgsearch.duplicates.report import headline

        self.queries = (headline(number, group),)
        self._group = group

    def __len__(self) -> int:
        return len(self._group.pictures)

    def __getitem__(self, position: slice, /) -> list[_Cell]:
        return [self._cell(each) for each in self._group.pictures[position]]

    def _cell(self, each: IndexedPicture) -> _Cell:
        from es_imgsearch.duplicates.report import length_of, size_of

        is_kept = each is self._group.pictures[0]
        caption = f"{'keep, ' * is_kept}{size_of(each)}, {length_of(each)}"
        name = each.relative_path.rpartition("/")[2]
        return _Cell(each.path, name, each.root, each.relative_path, caption)
