"""End a server within the time it is given, even while threads wait for an answer."""

from __future__ import annotations

import os
import threading
from types import FrameType

import click
import uvicorn

from es_imgsearch.errors import EXIT_DIFFERENCE


class EndingServer(uvicorn.Server):
    """A server that answers what is in progress after a signal, and then ends.

    uvicorn's own bound would cancel requests with a traceback each, and wait for their threads all
    the same; one that waits for Elasticsearch may do so for minutes.
    """

    def __init__(self, config: uvicorn.Config, *, shutdown_seconds: float) -> None:
        super().__init__(config)
        self._shutdown_seconds = shutdown_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; the first signal sets the time."""
        if not self.should_exit:
            timer = threading.Timer(self._shutdown_seconds, self._give_up)
            timer.daemon = True
            timer.start()
        super().handle_exit(sig, frame)

    def _give_up(self) -> None:
        click.echo(
            f"Requests in progress were not answered within {self._shutdown_seconds:g} s"
            " (shutdown_seconds), and are given up.",
            err=True,
        )
        # The reading processes end by themselves.
        os._exit(EXIT_DIFFERENCE)
