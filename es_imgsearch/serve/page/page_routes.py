"""Routes of the gallery's pages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.staticfiles import StaticFiles

from es_imgsearch.errors import ImgSearchError, UsageError
from es_imgsearch.serve.page.address import Address
from es_imgsearch.serve.page.search_page import search_page
from es_imgsearch.serve.problems import status_of
from es_imgsearch.serve.query_pictures import Upload
from es_imgsearch.serve.routes import add_get
from es_imgsearch.serve.service import SearchService

_STATIC: Final = Path(__file__).with_name("static")
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "img-src 'self' blob:",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "referrer-policy": "same-origin",
    "cache-control": "private, no-cache",
}
_FOREVER: Final = "public, max-age=31536000, immutable"


class _Files(StaticFiles):
    """Files under an address that has their digest, so that it never changes its content."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = _FOREVER
        return response


class PageRoutes:
    """The pages; all of them work without JavaScript."""

    def __init__(self, service: SearchService) -> None:
        self._service = service
        self._templates = Environment(
            loader=PackageLoader("es_imgsearch.serve.page"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        self._digest = _digest_of(_STATIC)

    def add_to(self, app: FastAPI) -> None:
        """Register the routes; none is in the description of the API."""
        files = _Files(directory=_STATIC)
        app.mount(f"/static/{self._digest}", files, name="static")
        hidden: dict[str, Any] = {"include_in_schema": False, "response_class": HTMLResponse}
        add_get(app, "/", self.search, **hidden)
        add_get(app, "/queries/{key}", self.query_picture, **hidden)
        app.post("/queries", **hidden)(self.send_picture)

    def search(self, request: Request) -> Response:
        """Show a search, or the newest pictures."""
        return self._page(
            request, "search.html", lambda address: search_page(self._service, address)
        )

    def query_picture(self, key: str) -> Response:
        """Return a picture that was sent, as JPEG."""
        return Response(
            self._service.query_picture(key).jpeg(),
            media_type="image/jpeg",
            headers={"cache-control": "private, max-age=3600"},
        )

    async def send_picture(self, request: Request) -> Response:
        """Keep a picture that was dropped, pasted or chosen; go on to its search."""
        async with request.form(max_files=1, max_fields=200) as form:
            file = form.get("image")
            if file is None or isinstance(file, str):
                return self._failed(request, UsageError("Choose a picture first."))
            upload = Upload(await file.read(), file.filename or "")
            others = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        try:
            key = await run_in_threadpool(self._service.keep_picture, upload)
        except ImgSearchError as error:
            return self._failed(request, error)
        address = Address.parse("/", others).dropping("image").setting("image", key)
        return self._redirected(request, address)

    def _page(
        self, request: Request, template: str, build: Callable[[Address], dict[str, Any]]
    ) -> Response:
        """Render a page; a form that sent empty fields is sent on to the short address."""
        path = request.scope["path"].removeprefix(request.scope.get("root_path", "")) or "/"
        given = request.query_params.multi_items()
        address = Address.parse(path, given)
        if address.pairs != tuple(given):
            return self._redirected(request, address)
        try:
            shown = build(address)
        except ImgSearchError as error:
            return self._failed(request, error, address)
        return self._rendered(request, template, {"address": address, **shown})

    def _redirected(self, request: Request, address: Address) -> Response:
        root = request.scope.get("root_path", "")
        return RedirectResponse(f"{root}{address}", HTTPStatus.SEE_OTHER, _HEADERS)

    def _failed(
        self, request: Request, error: ImgSearchError, address: Address | None = None
    ) -> Response:
        status = status_of(error)
        shown = {
            "address": address or Address("/", ()),
            "message": str(error),
            "is_passing": status == HTTPStatus.SERVICE_UNAVAILABLE,
        }
        return self._rendered(request, "error.html", shown, status)

    def _rendered(
        self, request: Request, template: str, shown: dict[str, Any], status: int = 200
    ) -> Response:
        root = request.scope.get("root_path", "")
        text = self._templates.get_template(template).render(
            root=root, static=f"{root}/static/{self._digest}", **shown
        )
        headers = dict(_HEADERS)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers["retry-after"] = "5"
        return HTMLResponse(text, status, headers)


def _digest_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]
