"""A folder on a file system that ignores case, as those of Windows, macOS and many cameras."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def ignore_case(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have looks at paths below a folder find names in any case; listings tell the true ones."""

    def found(path: str) -> str:
        if not Path(path).is_relative_to(folder):
            return path
        at = os.fspath(folder)
        for part in Path(path).relative_to(folder).parts:
            try:
                names = os.listdir(at)
            except OSError:
                names = []
            at = os.path.join(at, next((n for n in names if n.lower() == part.lower()), part))
        return at

    def ignoring(real):
        def look(path, *arguments, **options):
            if isinstance(path, str | os.PathLike):
                path = found(os.fspath(path))
            return real(path, *arguments, **options)

        return look

    for name in ("stat", "lstat", "scandir"):
        monkeypatch.setattr(os, name, ignoring(getattr(os, name)))
