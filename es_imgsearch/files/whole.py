"""Write files whole or not at all, such as onto a disk that becomes full."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name, then rename it.  Raises OSError with its `filename`."""
    replace_whole(path, lambda unfinished: unfinished.write_bytes(content))


def replace_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` write a new file, which then takes the place of `path`, or of its target.

    The unfinished file ends as `path` does.  A device or a pipe is written to directly.  Raises
    OSError with `path` as its `filename`; an existing file is unchanged then.
    """
    if path.exists() and not path.is_file():
        write(path)
        return
    target = path.resolve()
    unfinished = target.with_name(f".{target.stem[:100]}.{os.getpid()}{target.suffix}")
    try:
        try:
            write(unfinished)
            if target.exists():
                shutil.copymode(target, unfinished)
            unfinished.replace(target)
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(error.errno, os.strerror(error.errno), str(path)) from error
