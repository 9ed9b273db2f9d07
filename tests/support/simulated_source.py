"""A source of as many keys as its URL says, registered as any package's: `simulated://10000000`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

from es_imgsearch.records import FileState
from es_imgsearch.watch.sources.protocol import OpenedFile, SourceFile, status_of
from es_imgsearch.watch.sources.ranges import AHEAD_FILES, in_order
from es_imgsearch.watch.sources.registry import source_of

PER_FOLDER = 1000
_ENTRY = """[es_imgsearch.sources]
simulated = tests.support.simulated_source:SimulatedSource
given = tests.support.simulated_source:GivenSource
"""
# What `given://` lists; an error ends it.
GIVEN: list[str | OSError] = []


def key_of(number: int) -> str:
    return f"{number // PER_FOLDER:06}/IMG_{number:09}.jpg"


def state_of(number: int) -> FileState:
    return FileState(1000 + number % 7, 1_700_000_000_000_000_000 + number)


class SimulatedSource:
    """Keys in folders of a thousand, in ranges that are listed at once."""

    def __init__(self, url: str) -> None:
        self._count = int(url.partition("://")[2].partition("/")[0])

    def files(self, folder: str = "") -> Iterator[SourceFile]:
        assert not folder
        starts = range(0, self._count, AHEAD_FILES)
        yield from in_order(
            partial(self._range, start, min(start + AHEAD_FILES, self._count)) for start in starts
        )

    def _range(self, start: int, end: int) -> Iterator[SourceFile]:
        for number in range(start, end):
            yield SourceFile(key_of(number), state_of(number))

    def status(self, key: str):
        number = int(key[-13:-4])
        if number >= self._count or key != key_of(number):
            raise FileNotFoundError(key)
        return status_of(state_of(number))

    def open(self, key: str, *, only_bytes: int = 0) -> AbstractContextManager[OpenedFile]:
        raise PermissionError(key)

    def check(self) -> int:
        return 0


class GivenSource(SimulatedSource):
    """A source that lists what a test gives it."""

    def __init__(self, _url: str) -> None:
        super().__init__("simulated://0")

    def files(self, folder: str = "") -> Iterator[SourceFile]:
        assert not folder
        for each in GIVEN:
            if isinstance(each, OSError):
                raise each
            yield SourceFile(each, FileState(1, 1))


@contextmanager
def registered(folder: Path) -> Iterator[None]:
    """Register the source by an entry point, as an installed package does."""
    metadata = folder / "simulated_source-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: simulated-source\nVersion: 1\n"
    )
    (metadata / "entry_points.txt").write_text(_ENTRY)
    sys.path.append(str(folder))
    source_of.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        source_of.cache_clear()


def first(files: Iterator[SourceFile], number: int) -> list[str]:
    return [each.key for each in islice(files, number)]
