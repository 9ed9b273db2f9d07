"""Compare the bytes of files with the content ids that the index has of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

from es_imgsearch.elastic.listings import StoredContent
from es_imgsearch.read.file import hash_file
from es_imgsearch.records import Root, disk_path

# Results of so many files wait for the slowest of them.
_FILES_AT_ONCE = 256

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
        is_known = not os.access(file, os.R_OK)
        return path, None if is_known else "unknown", error.strerror or str(error)
    if found is None or found == stored.content_id:
        return path, None, ""
    return path, "other content", f"content_id {found}, stored {stored.content_id}"
