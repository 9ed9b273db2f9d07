"""Whether a file can be written, asked before the work that makes its content."""

from __future__ import annotations

import os
from pathlib import Path

from es_imgsearch.errors import UsageError


def check_can_write(file: Path) -> None:
    """For a file that is written where it is.

    Raises UsageError where there is no folder for it, where it is a folder, or where this user may
    not write it.
    """
    folder = _folder_of(file)
    _check_access(file, file if file.exists() else folder)


def check_can_replace(file: Path) -> None:
    """For a file that is written beside its place and moved there: its folder has to be writable.

    Raises UsageError as `check_can_write` does.
    """
    _check_access(file, _folder_of(file))


def _folder_of(file: Path) -> Path:
    folder = file.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"There is no folder {str(folder)!r} to write into.")
    if file.is_dir():
        raise UsageError(f"{str(file)!r} is a folder: give a file to write.")
    return folder


def _check_access(file: Path, changed: Path) -> None:
    """`changed` is what this user has to be allowed to write, so that the file can be."""
    if not os.access(changed, os.W_OK):
        why = "" if changed == file else f" into folder {str(changed)!r}"
        raise UsageError(f"{str(file)!r} may not be written{why} by this user: give another file.")
