"""The application: middleware, health, pictures, and the API."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, Response
from starlette.datastructures import MutableHeaders
from starlette.formparsers import MultiPartParser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from es_imgsearch.errors import StoreBusy
from es_imgsearch.serve.api import Api
from es_imgsearch.serve.examples import ExampleRoutes
from es_imgsearch.serve.guard import Guard
from es_imgsearch.serve.openapi.description import describe
from es_imgsearch.serve.page.login_routes import LoginRoutes
from es_imgsearch.serve.page.page_routes import PageRoutes
from es_imgsearch.serve.page.view_routes import ViewRoutes
from es_imgsearch.serve.picture_routes import PictureRoutes
from es_imgsearch.serve.problems import add_problems
from es_imgsearch.serve.routes import add_get
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.serve.tokens import KnownTokens, TokenGuard
from es_imgsearch.serve.traffic.access_log import AccessLog
from es_imgsearch.serve.traffic.metrics import ServiceMetrics
from es_imgsearch.serve.traffic.observe import Observe
from es_imgsearch.serve.traffic.rate_limit import (
    DEFAULT_RATE,
    RateLimit,
    RefusedTokens,
    parse_rate,
)
from es_imgsearch.serve.traffic.readiness import Readiness
from es_imgsearch.serve.traffic.root_path import (
    RootPath,
    check_apart,
    checked_root_path,
    route_path,
)

# A browser believes the media type, and runs and loads nothing, whatever a file has in it.  Its own
# page around a picture has styles.
_SAFE: Final = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    # Cookies let a browser in: no proxy keeps what it got.
    "cache-control": "private, no-cache",
    "cross-origin-resource-policy": "same-origin",
}
# Kibana's panels show them from an address of their own.
_EMBEDDED: Final = ("/thumbnails/", "/previews/", "/images/")

_THREADS: Final = 100


class _SafeHeaders:
    """Add the headers of `_SAFE` to every response that lacks them, errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if route_path(scope).startswith(_EMBEDDED):
                    headers.setdefault("cross-origin-resource-policy", "cross-origin")
                for name, value in _SAFE.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_safely)


def create_app(
    pictures: PictureFiles,
    service: SearchService | None = None,
    *,
    hosts: Collection[str] = (),
    token_hashes: Collection[str] = (),
    token_file: Path | None = None,
    max_body_mb: int = 20,
    rate_limit: str | None = None,
    root_path: str = "",
    access_log: AccessLog | None = None,
    index: str = "images",
) -> FastAPI:
    """Create the application; it closes `pictures` and `service` at shutdown.

    Without a service it has pictures and no API.  `hosts` are further names under which it is
    asked; with `token_hashes`, or those of a `token_file` as it is at the time, every request but
    those for its health needs one of the tokens.
    `rate_limit` is one such as 600/minute, or none; by default the one of `rate_limit.py`, which
    leaves this machine's own programs uncounted.  `root_path` is the path of a reverse proxy.
    `index` is named where Elasticsearch refuses the key.
    """
    # A form is in memory, as any body, and needs no temporary folder; the guard bounds its size.
    MultiPartParser.spool_max_size = max_body_mb * 1_000_000
    metrics = ServiceMetrics(None if service is None else service.shared_encoder)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # More than may wait for the model, so that these are refused and do not wait for a thread.
        current_default_thread_limiter().total_tokens = _THREADS
        if service is not None:
            threading.Thread(target=service.warm_up, name="warm up", daemon=True).start()
        yield
        pictures.close()
        if service is not None:
            service.close()

    # FastAPI's pages about the routes load scripts from a public network.
    app = FastAPI(title="es-imgsearch", lifespan=lifespan, docs_url=None, redoc_url=None)
    # Pages say it before a picture is sent.
    app.state.max_body_bytes = max_body_mb * 1_000_000
    tokens, refused = KnownTokens(token_hashes, token_file), RefusedTokens()
    # Each is around those before it.
    if rates := parse_rate(rate_limit or DEFAULT_RATE):
        app.add_middleware(RateLimit, rates=rates, local_is_free=rate_limit is None)
    if tokens:
        app.add_middleware(TokenGuard, tokens=tokens, refused=refused)
    app.add_middleware(Guard, hosts=hosts, max_body_bytes=app.state.max_body_bytes)
    app.add_middleware(_SafeHeaders)
    if root_path := checked_root_path(root_path):
        app.add_middleware(RootPath, root_path=root_path, routes=app.routes)
    logs = [] if access_log is None else [access_log.observe]
    app.add_middleware(Observe, in_progress=metrics.in_progress, observers=[metrics.observe, *logs])
    add_problems(app, index)
    describe(app, needs_token=bool(tokens))
    _add_health(app, service)
    PictureRoutes(pictures).add_to(app)
    if service is not None:
        Api(service).add_to(app)
        ExampleRoutes(service).add_to(app)
        # Only where who asks is known: on this machine, or by a token.
        add_get(app, "/metrics", metrics.answer, response_class=Response)
        PageRoutes(service).add_to(app)
        ViewRoutes(service, pictures).add_to(app)
        if tokens:
            LoginRoutes(tokens, refused).add_to(app)
    if root_path:
        check_apart(root_path, app.routes)
    return app


def _add_health(app: FastAPI, service: SearchService | None) -> None:
    is_ready = None if service is None else Readiness(lambda: service.is_ready())

    async def healthz() -> dict[str, str]:
        """Answer as long as this process lives, though all threads are busy."""
        return {"status": "ok"}

    async def readyz() -> dict[str, str]:
        """Answer 200 once Elasticsearch answers and the model is loaded.

        All who ask within a second get the same answer.
        """
        if is_ready is not None and not await is_ready():
            raise StoreBusy("The model is being loaded; if that lasts, the log says why.")
        return {"status": "ok"}

    add_get(app, "/healthz", healthz)
    add_get(app, "/readyz", readyz)
