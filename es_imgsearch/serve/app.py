"""Define the HTTP routes: pictures by id only, never by a path from a request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

from fastapi import FastAPI, Header, Request, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse, JSONResponse

from es_imgsearch.errors import ImageMissing, ImgSearchError, IndexMissing, ReadError
from es_imgsearch.serve.thumbnails import PictureFiles

# A picture changes when its file does; a browser asks again after this time and gets a short 304
# response if nothing changed.
_FRESH_SECONDS: Final = 300
_ImageId = Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$")]
_IfNoneMatch = Annotated[str | None, Header()]


def create_app(pictures: PictureFiles) -> FastAPI:
    """Create the application; it closes `pictures` at shutdown."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        pictures.close()

    app = FastAPI(title="es-imgsearch", lifespan=lifespan)

    @app.exception_handler(ImgSearchError)
    async def problem(_: Request, error: ImgSearchError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=_status(error))

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/thumbnails/{image_id}", response_class=Response)
    def thumbnail(image_id: _ImageId, if_none_match: _IfNoneMatch = None) -> Response:
        picture = pictures.thumbnail(image_id)
        headers = (
            _headers(picture.content_id) if picture.is_current else {"cache-control": "no-store"}
        )
        if picture.is_current and if_none_match == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(picture.content, media_type="image/jpeg", headers=headers)

    @app.get("/images/{image_id}", response_class=Response)
    def image(image_id: _ImageId, if_none_match: _IfNoneMatch = None) -> Response:
        original = pictures.original(image_id)
        if not original.path.is_file():
            raise ImageMissing(
                f"The original of {image_id!r} is gone: run `es-imgsearch sync` on its folder."
            )
        headers = _headers(original.content_id) | {"x-content-type-options": "nosniff"}
        if if_none_match == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return FileResponse(
            original.path,
            headers=headers,
            filename=original.name,
            content_disposition_type="inline",
        )

    return app


def _headers(content_id: str) -> dict[str, str]:
    return {"etag": f'"{content_id}"', "cache-control": f"private, max-age={_FRESH_SECONDS}"}


def _status(error: ImgSearchError) -> int:
    if isinstance(error, ImageMissing | IndexMissing):
        return 404
    if isinstance(error, ReadError):
        # The original exists, but is not a picture that can be shown.
        return 422
    return 503 if error.transient else 500
