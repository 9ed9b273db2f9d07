"""Decide what becomes of a file that cannot be read, and when it is tried again.

    the file is            its error                          what happens
    not in the index       any                                a failure document
    in the index           permission, I/O, timeout           its document stays
    in the index           crash, memory or `rejected`, its   its document stays
                           state is that of its document
    in the index           any other                          its document is deleted, if the guard
                                                              permits, then it is read once more and
                                                              is a failure document

An error of the environment is tried again at comparisons, waiting longer each time: by `attempts`
and `failed_at` of a failure, and by what the process remembers of a file whose document stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from es_imgsearch.elastic.listings import IndexedFile
from es_imgsearch.records import FileState

# Errors that say nothing about the file's content.
UNKNOWN_CLASSES: Final = frozenset({"permission_denied", "io_error", "timeout"})
# Errors that may be of the environment: of a machine or a server that is short of memory, or of an
# index whose mapping refused a document, for example.
ENVIRONMENT_CLASSES: Final = UNKNOWN_CLASSES | {"out_of_memory", "crashed", "rejected"}

_FIRST_WAIT_SECONDS: Final = 300.0
_LONGEST_WAIT_SECONDS: Final = 86_400.0


def wait_seconds(attempts: int) -> float:
    """Return how long to wait after so many attempts: 5 minutes, doubled up to a day."""
    return min(_FIRST_WAIT_SECONDS * 2.0 ** min(attempts - 1, 30), _LONGEST_WAIT_SECONDS)


def keeps_document(error_class: str, state: FileState, stored: FileState) -> bool:
    """Return True if a stored file with this error may be as its document says."""
    if error_class in UNKNOWN_CLASSES:
        return True
    return error_class in ENVIRONMENT_CLASSES and state == stored


def with_retries(failures: Iterable[Mapping[str, Any]], now: float) -> Iterator[IndexedFile]:
    """List failures for a comparison at `now` (`time.time()`).

    One that is due again has the state of no file.  One of the environment carries the time of its
    failure: a later ctime of its file, as by `chmod`, has it read again.
    """
    for failure in failures:
        state, failed_at_ns = FileState.stored(failure), None
        if failure.get("error_class") in ENVIRONMENT_CLASSES and "failed_at" in failure:
            failed_at = _timestamp(failure["failed_at"])
            failed_at_ns = round(failed_at * 1e9)
            # A clock that was set back must not delay it.
            if not failed_at <= now < failed_at + wait_seconds(failure.get("attempts", 1)):
                state = FileState.stored({})
        yield IndexedFile(failure["relative_path"], state, failed_at_ns=failed_at_ns)


def _timestamp(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
