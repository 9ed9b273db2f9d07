"""Divide files into blocks for actors, balanced by bytes."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import Final

from es_imgsearch.pipeline.jobs import Job

# Of 500 photographs an actor of one core has work for 10 to 60 s; each block ends with a batch that
# may be incomplete, and an actor that ends loses at most one block.
MOST_FILES: Final = 500
LEAST_FILES: Final = 16
MOST_BYTES: Final = 512 * 2**20
LEAST_BYTES: Final = 16 * 2**20

# A block is cut once so many files wait for each actor, or nothing more has come for this time.
FILES_AN_ACTOR: Final = 100
QUIET_SECONDS: Final = 0.2


class WaitingFiles:
    """Files that no actor has yet.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        self._bytes = 0
        self._put_at = -math.inf

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> None:
        with self._lock:
            self._jobs.append(job)
            self._bytes += job.signature.state.size_bytes
            self._put_at = time.monotonic()

    def take(self, actors: int) -> list[Job]:
        """Take a block for one of so many actors; empty as long as more may come.

        It is half an actor's share of what waits, by files and by bytes, so that all actors end at
        about the same time ("guided self-scheduling", Polychronopoulos and Kuck 1987).
        """
        with self._lock:
            is_quiet = time.monotonic() - self._put_at >= QUIET_SECONDS
            if len(self._jobs) < FILES_AN_ACTOR * actors and not is_quiet:
                return []
            most_files = _between(LEAST_FILES, len(self._jobs) // (2 * actors), MOST_FILES)
            most_bytes = _between(LEAST_BYTES, self._bytes // (2 * actors), MOST_BYTES)
            taken: list[Job] = []
            size = 0
            while self._jobs and len(taken) < most_files and (not taken or size < most_bytes):
                taken.append(self._jobs.popleft())
                size += taken[-1].signature.state.size_bytes
            self._bytes -= size
            return taken


def _between(least: int, number: int, most: int) -> int:
    return max(least, min(number, most))
