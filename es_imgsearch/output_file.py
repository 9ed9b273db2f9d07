"""Whether a file can be written, asked before the work that makes its content."""

from __future__ import annotations

import os
from pathlib import Path

from es_imgsearch.errors import UsageError


def check_output_file(file: Path) -> None:
    """Raises UsageError where there is no folder to write it into, or none that may be."""
    folder = file.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"There is no folder {str(folder)!r} to write into.")
    if file.is_dir():
        raise UsageError(f"{str(file)!r} is a folder: give a file to write.")
    if not any(os.access(each, os.W_OK) for each in (folder, file)):
        raise UsageError(f"{str(file)!r} may not be written by this user: give another file.")
