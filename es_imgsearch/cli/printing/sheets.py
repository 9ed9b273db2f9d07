"""Write a contact sheet; refuse a place for it before the work is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from es_imgsearch.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")


def check_sheet(sheet: Path) -> None:
    """Raise UsageError for a file that no sheet can be written to."""
    if sheet.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--sheet {str(sheet)!r} names no kind of picture: end it in .png.")
    if not sheet.parent.is_dir():
        raise UsageError(f"--sheet {str(sheet)!r}: there is no folder {str(sheet.parent)!r}.")


def write_sheet(drawn: Image, sheet: Path, remark: str = "") -> None:
    """Write a drawn sheet; say so, and which letters no font had."""
    from es_imgsearch.files.whole import replace_whole
    from es_imgsearch.search.sheet import MISSING_LETTERS

    try:
        replace_whole(sheet, drawn.save)
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"The sheet {str(sheet)!r} cannot be written: {why}.") from error
    if note := drawn.info.get(MISSING_LETTERS):
        click.echo(note, err=True)
    click.echo(f"Wrote {sheet}{remark}.", err=True)
