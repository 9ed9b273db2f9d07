"""Log on standard error: our own messages, and other libraries' errors only."""

from __future__ import annotations

import io
import logging
import os
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TextIO

_OURS = "es_imgsearch"
_FOREIGN = ("elastic_transport", "urllib3", "PIL", "asyncio", "sentence_transformers",
            "transformers", "huggingface_hub", "py.warnings")  # fmt: skip


def set_up_logging(*, verbose: bool) -> None:
    """Log our warnings, with `verbose` everything of ours; errors of libraries."""
    stamped = "%(levelname)s" if is_stamped(sys.stderr) else "%(asctime)s %(levelname)s"
    logging.basicConfig(stream=sys.stderr, format=f"{stamped} %(message)s", level=logging.WARNING)
    # What libraries say of deprecated calls is for programmers.
    logging.captureWarnings(True)
    for foreign in _FOREIGN:
        logging.getLogger(foreign).setLevel(logging.ERROR)
    if verbose:
        log_more()


def log_more() -> None:
    """Log everything of ours, a line a file and more."""
    logging.getLogger(_OURS).setLevel(logging.DEBUG)


def log_at_least(level: int) -> None:
    """Log our messages of this level, or of a lower one if that was asked for."""
    ours = logging.getLogger(_OURS)
    ours.setLevel(min(level, ours.getEffectiveLevel()))


def is_stamped(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Return True if the reader of the stream stamps each line, as the journal does.

    JOURNAL_STREAM names the journal's stream, and also programs started from a service have it,
    such as a shell in a desktop's terminal: it counts if it is this stream (systemd.exec(5)).
    Without it a service (INVOCATION_ID) writes to a supervisor's pipe, a file, or a terminal.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    if journal := environment.get("JOURNAL_STREAM"):
        return journal == f"{status.st_dev}:{status.st_ino}"
    is_pipe = stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)
    return is_pipe and bool(environment.get("INVOCATION_ID"))


class _StandardError(io.TextIOWrapper):
    """Standard error that drops what cannot be written, as onto a full disk."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def outlive_standard_error() -> None:
    """Go on, and end as otherwise, while the log cannot be written."""
    if sys.stderr is not None and sys.stderr is sys.__stderr__:
        sys.stderr = _StandardError(
            sys.stderr.buffer, sys.stderr.encoding, "backslashreplace", line_buffering=True
        )
