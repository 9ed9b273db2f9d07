"""Measure every request, for the metrics and the access log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from prometheus_client import Gauge
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from es_imgsearch.serve.traffic.root_path import route_path
from es_imgsearch.serve.traffic.stages import stage_seconds

# As nginx writes it: the client went before there was an answer.
_CLIENT_LEFT: Final = 499


class Observed(NamedTuple):
    """One request and its answer; `route` is the template of its path, or ""."""

    client: str
    method: str
    path: str
    query: bytes
    route: str
    status: int
    seconds: float
    sent_bytes: int
    stages: Mapping[str, float]


class Observe:
    """Tell observers of each request once its answer is sent."""

    def __init__(
        self, app: ASGIApp, *, in_progress: Gauge, observers: Sequence[Callable[[Observed], None]]
    ) -> None:
        self._app = app
        self._in_progress = in_progress
        self._observers = observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, sent_bytes = _CLIENT_LEFT, 0
        started = time.perf_counter()

        async def send_on(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
            elif scope["method"] != "HEAD":
                # The server sends no body of it.
                sent_bytes += len(message.get("body", b""))
            await send(message)

        with self._in_progress.track_inprogress(), stage_seconds() as stages:
            try:
                await self._app(scope, receive, send_on)
            except Exception:
                # Answered by what is around all middleware.
                status = 500
                raise
            finally:
                observed = Observed(
                    str((scope.get("client") or ("-",))[0]),
                    scope["method"],
                    route_path(scope) or "/",
                    scope.get("query_string", b""),
                    str(getattr(scope.get("route"), "path", "")),
                    status,
                    time.perf_counter() - started,
                    sent_bytes,
                    stages,
                )
                for each in self._observers:
                    each(observed)
