"""Whether the service is ready, looked up once for all probes that come meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import anyio.to_thread
from anyio import CapacityLimiter

from es_imgsearch.errors import StoreBusy

# While Elasticsearch hangs, a request to it lasts 30 s: a probe is answered before.
_MOST_SECONDS: Final = 5.0


class Readiness:
    """Look in one thread of its own, however many ask: the others are for searches.

    For one event loop.
    """

    def __init__(
        self, is_ready: Callable[[], bool], *, most_seconds: float = _MOST_SECONDS
    ) -> None:
        """`is_ready` blocks; an error of it is the answer as well."""
        self._is_ready = is_ready
        self._most_seconds = most_seconds
        self._looking: asyncio.Task[bool] | None = None

    async def __call__(self) -> bool:
        """Return whether it is ready.  Raises what `is_ready` raises, and StoreBusy."""
        looking = self._looking
        if looking is None or looking.done():
            looking = self._looking = asyncio.create_task(self._look())
        # It goes on, for those who ask next.
        done, _ = await asyncio.wait([looking], timeout=self._most_seconds)
        if not done:
            raise StoreBusy(
                f"Elasticsearch has not answered for {self._most_seconds:g} s: ask again later."
            )
        return looking.result()

    async def _look(self) -> bool:
        return await anyio.to_thread.run_sync(
            self._is_ready, limiter=CapacityLimiter(1), abandon_on_cancel=True
        )
