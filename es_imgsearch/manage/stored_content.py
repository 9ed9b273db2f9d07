"""Read files of a root; compare their bytes with the content ids of the index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

from es_imgsearch.elastic.listings import StoredContent
from es_imgsearch.read.file import hash_file
from es_imgsearch.read.workers import Outcome, ReadWorkers
from es_imgsearch.records import Root, disk_path
from es_imgsearch.watch.sources.opened import is_readable

# Results of so many files wait for the slowest of them.
_FILES_AT_ONCE = 256

# Starts the reading workers at the first call.
Readers = Callable[[], ReadWorkers]
# Stored path, difference (None for none), detail.
Comparison = tuple[str, str | None, str]


def unequal_contents(
    root: Root, stored: Iterator[StoredContent], threads: int
) -> Iterator[Comparison]:
    """Hash every file that has its document's size and time; yield every result.

    The difference is "other content", or "unknown" for a file that cannot be read.  Any other state
    of the file is a difference that needs no reading.  Hashing releases the interpreter's lock.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="hash") as pool:
        while part := list(islice(stored, _FILES_AT_ONCE)):
            yield from pool.map(partial(_compared, root), part)


def _compared(root: Root, stored: StoredContent) -> Comparison:
    path = stored.stored_path
    file = root.absolute(disk_path(path))
    try:
        found = hash_file(file, only_in=stored.state)
    except OSError as error:
        # What the walk sees is reported already: an absent file, one that may not be opened.
        is_known = isinstance(error, FileNotFoundError) or not is_readable(file)
        return path, None if is_known else "unknown", error.strerror or str(error)
    if found is None or found == stored.content_id:
        return path, None, ""
    return path, "other content", f"content_id {found}, stored {stored.content_id}"


def outcomes_of(
    root: Root, stored_paths: Sequence[str] | Mapping[str, Any], readers: Readers
) -> Iterator[tuple[str, Outcome]]:
    """Read files; yield their stored paths and outcomes in the given order."""
    absolute = {path: root.absolute(disk_path(path)) for path in stored_paths}
    outcomes = dict(readers().read_each(absolute.values())) if absolute else {}
    for path in stored_paths:
        yield path, outcomes[absolute[path]]
