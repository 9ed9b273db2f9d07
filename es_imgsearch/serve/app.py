"""Define the HTTP routes: pictures by id only, never by a path from a request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

from fastapi import FastAPI, Header, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from es_imgsearch.records import FileState
from es_imgsearch.serve.originals import disposition, kind_of, state_of
from es_imgsearch.serve.problems import add_problems
from es_imgsearch.serve.thumbnails import PictureFiles

# A picture changes when its file does; a browser asks again after this time and gets a short 304
# response if nothing changed.
_FRESH_SECONDS: Final = 300
_ImageId = Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$")]
_IfNoneMatch = Annotated[str | None, Header()]

_NOT_KEPT: Final = {"cache-control": "no-store"}
# A browser believes the media type, and runs and loads nothing, whatever a file has in it.  Its own
# page around a picture has styles.
_SAFE: Final = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
}


class _SafeHeaders:
    """Add the headers of `_SAFE` to every response that lacks them, errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SAFE.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_safely)


def create_app(pictures: PictureFiles) -> FastAPI:
    """Create the application; it closes `pictures` at shutdown."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        pictures.close()

    # FastAPI's pages about the routes load scripts from a public network.
    app = FastAPI(title="es-imgsearch", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(_SafeHeaders)
    add_problems(app)

    def get(path: str, **options: Any) -> Callable[[Any], Any]:
        """Answer GET, and HEAD."""

        def register(function: Any) -> Any:
            app.head(path, include_in_schema=False, **options)(function)
            return app.get(path, **options)(function)

        return register

    @get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @get("/thumbnails/{image_id}", response_class=Response)
    def thumbnail(image_id: _ImageId, if_none_match: _IfNoneMatch = None) -> Response:
        picture = pictures.thumbnail(image_id)
        headers = _headers(picture.content_id) if picture.is_current else _NOT_KEPT
        if picture.is_current and _is_met(if_none_match, picture.content_id):
            return Response(status_code=304, headers=headers)
        return Response(picture.content, media_type="image/jpeg", headers=headers)

    @get("/images/{image_id}", response_class=Response)
    def image(image_id: _ImageId, if_none_match: _IfNoneMatch = None) -> Response:
        original = pictures.original(image_id)
        state = state_of(original.path, image_id)
        is_current = original.is_current(FileState.of(state))
        headers = _headers(original.content_id) if is_current else _NOT_KEPT
        if is_current and _is_met(if_none_match, original.content_id):
            return Response(status_code=304, headers=headers)
        return FileResponse(
            original.path,
            stat_result=state,
            media_type=kind_of(original.format).media_type,
            headers={
                **headers, "content-disposition": disposition(original.name, original.format)
            },
        )  # fmt: skip

    return app


def _tag(content_id: str) -> str:
    return f'"{content_id}"'


def _headers(content_id: str) -> dict[str, str]:
    return {"etag": _tag(content_id), "cache-control": f"private, max-age={_FRESH_SECONDS}"}


def _is_met(if_none_match: str | None, content_id: str) -> bool:
    """Return True if one of a browser's tags, weak or not, is of this content."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return "*" in tags or _tag(content_id) in tags
