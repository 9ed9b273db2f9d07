"""The source of local folders."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from es_imgsearch.records import FileState, open_at_once, stored_path
from es_imgsearch.watch.sources.protocol import OpenedFile, SourceFile


class FolderSource:
    """A local folder.

    `sync` and `watch` list theirs by `watch.walk`, which knows links, mount points and excludes.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def files(self, folder: str = "") -> Iterator[SourceFile]:
        with os.scandir(self._path(folder)) as entries:
            found = sorted(
                (f"{stored_path(each.name)}{'/' * each.is_dir(follow_symlinks=False)}", each.name)
                for each in entries
            )
        for sort_key, name in found:
            key = f"{folder}/{name}" if folder else name
            if sort_key.endswith("/"):
                yield from self.files(key)
            elif stat.S_ISREG((status := self.status(key)).st_mode):
                yield SourceFile(key, FileState.of(status))

    def status(self, key: str) -> os.stat_result:
        return os.stat(self._path(key))

    @contextmanager
    def open(self, key: str, *, only_bytes: int = 0) -> Iterator[OpenedFile]:  # noqa: ARG002
        descriptor = open_at_once(self._path(key))
        with os.fdopen(descriptor, "rb") as file:
            yield OpenedFile(file, os.fstat(descriptor))

    def check(self) -> int:
        os.scandir(self._folder).close()
        return os.stat(self._folder).st_dev

    def _path(self, key: str) -> str:
        return os.path.join(self._folder, key) if key else self._folder
