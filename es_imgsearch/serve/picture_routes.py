"""Routes of thumbnails, previews and originals: by id only, never by a path."""

from __future__ import annotations

import os
from typing import Annotated, Final

from fastapi import FastAPI, Header, HTTPException, Response
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask
from starlette.responses import MalformedRangeHeader, RangeNotSatisfiable

from es_imgsearch.records import FileState, is_url
from es_imgsearch.serve.originals import disposition, kind_of, local_copy, state_of
from es_imgsearch.serve.routes import ImageId, add_get
from es_imgsearch.serve.thumbnails import PictureFiles, Thumbnail

# A picture changes when its file does; a browser asks again after this time and gets a short 304
# response if nothing changed.
_FRESH_SECONDS: Final = 300
_IfNoneMatch = Annotated[str | None, Header()]

_NOT_KEPT: Final = {"cache-control": "no-store"}


class _Original(FileResponse):
    """A file, whose faulty ranges are refused in the form of all errors."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            raise HTTPException(400, "Range is not of the form bytes=FIRST-LAST.") from None
        except RangeNotSatisfiable as error:
            raise HTTPException(
                416,
                f"The file has {error.max_size} bytes: send a Range within them.",
                {"content-range": f"bytes */{error.max_size}"},
            ) from None


class PictureRoutes:
    """The routes of pictures."""

    def __init__(self, pictures: PictureFiles) -> None:
        self._pictures = pictures

    def add_to(self, app: FastAPI) -> None:
        """Register the routes."""
        add_get(app, "/thumbnails/{image_id}", self.thumbnail, response_class=Response)
        add_get(app, "/previews/{image_id}", self.preview, response_class=Response)
        add_get(app, "/images/{image_id}", self.image, response_class=Response)

    def thumbnail(self, image_id: ImageId, if_none_match: _IfNoneMatch = None) -> Response:
        """Return a small JPEG of a picture."""
        return _answer(self._pictures.thumbnail(image_id), if_none_match)

    def preview(self, image_id: ImageId, if_none_match: _IfNoneMatch = None) -> Response:
        """Return a JPEG of at most 1600 pixels, also of formats that browsers do not show."""
        return _answer(self._pictures.preview(image_id), if_none_match)

    def image(self, image_id: ImageId, if_none_match: _IfNoneMatch = None) -> Response:
        """Return the file of a picture."""
        original = self._pictures.original(image_id)
        state = state_of(original.path, image_id)
        is_current = original.is_current(FileState.of(state))
        headers = _headers(original.content_id) if is_current else _NOT_KEPT
        if is_current and _is_met(if_none_match, original.content_id):
            return Response(status_code=304, headers=headers)
        path, after = original.path, None
        if is_url(path):
            path = local_copy(path, image_id)
            state, after = os.stat(path), BackgroundTask(os.unlink, path)
        return _Original(
            path,
            stat_result=state,
            background=after,
            media_type=kind_of(original.format).media_type,
            headers={
                **headers, "content-disposition": disposition(original.name, original.format)
            },
        )  # fmt: skip


def _answer(picture: Thumbnail, if_none_match: str | None) -> Response:
    headers = _headers(picture.content_id) if picture.is_current else _NOT_KEPT
    if picture.is_current and _is_met(if_none_match, picture.content_id):
        return Response(status_code=304, headers=headers)
    return Response(picture.content, media_type="image/jpeg", headers=headers)


def _tag(content_id: str) -> str:
    return f'"{content_id}"'


def _headers(content_id: str) -> dict[str, str]:
    return {"etag": _tag(content_id), "cache-control": f"private, max-age={_FRESH_SECONDS}"}


def _is_met(if_none_match: str | None, content_id: str) -> bool:
    """Return True if one of a browser's tags, weak or not, is of this content."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return "*" in tags or _tag(content_id) in tags
