"""Reading processes for which the opening of pictures fails, as the test wants it.

Root may read everything, so no mode of a file keeps the tests' readers from it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from es_imgsearch.read import worker_process

_FILE = "IMGSEARCH_TEST_OPEN_ERRNO"
_work = worker_process._work
_open = os.open


class OpenErrors:
    """The error with which readers fail to open every picture, by its number; None for none."""

    def __init__(self, monkeypatch: Any, folder: Path) -> None:
        self._file = folder / "open-errno"
        self.set(None)
        monkeypatch.setenv(_FILE, str(self._file))
        monkeypatch.setattr(worker_process, "_work", work)

    def set(self, number: int | None) -> None:
        self._file.write_text("" if number is None else str(number))

    @property
    def tries(self) -> int:
        """How many times opening failed."""
        log = self._file.with_suffix(".tries")
        return len(log.read_bytes()) if log.exists() else 0


def work(*arguments: Any) -> None:
    """Read in a process whose `os.open` fails for pictures while the file has a number."""
    os.open = _open_or_fail  # type: ignore[assignment]
    _work(*arguments)


def _open_or_fail(path: Any, *arguments: Any, **options: Any) -> int:
    file = Path(os.environ[_FILE])
    if str(path).endswith(".png") and (text := file.read_text()):
        with file.with_suffix(".tries").open("ab") as log:
            log.write(b".")
        raise OSError(int(text), os.strerror(int(text)))
    return _open(path, *arguments, **options)
