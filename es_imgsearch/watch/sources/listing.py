"""List a root that is a URL as the comparison takes it, and look at its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from es_imgsearch.records import Root, stored_path
from es_imgsearch.watch.places import FileOnDisk, Prunes, Unknown, why_left_out
from es_imgsearch.watch.sources.fsspec_source import SourceError
from es_imgsearch.watch.sources.registry import source_of

# Reason why a listing leaves out a key: no path of a file system is like it.
NO_PATH: Final = "no path"


def list_root(
    root: Root,
    left_out: Prunes,
    folder: str = "",
    on_left_out: Callable[[str], None] = lambda _reason: None,
) -> Iterator[FileOnDisk | Unknown]:
    """Yield every file below a folder of a URL, sorted by stored path.

    All of it is unknown if it cannot be listed, and the rest if that fails on the way: the merge
    with the index then takes nothing for lost.
    """
    before = ""
    try:
        for key, state in source_of(str(root.path)).files(folder):
            if {"", ".", ".."} & set(key.split("/")) or "\0" in key:
                on_left_out(NO_PATH)
                continue
            stored = stored_path(key)
            if stored <= before:
                raise SourceError(f"it lists {stored!r} after {before!r}, which is no order")
            before = stored
            if reason := why_left_out(left_out, key):
                on_left_out(reason)
                continue
            yield FileOnDisk(stored, state)
    except OSError as error:
        yield Unknown(stored_path(folder), error.strerror or str(error))


def is_empty(root: Root, left_out: Prunes) -> bool:
    """Return True if the source lists no file.  Raises OSError if it cannot be listed."""
    source = source_of(str(root.path))
    source.check()
    return not any(not why_left_out(left_out, key) for key, _ in source.files())
