"""Routes of the gallery's pages."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from es_imgsearch.errors import ImgSearchError, UsageError
from es_imgsearch.records import is_text
from es_imgsearch.serve.page.address import Address
from es_imgsearch.serve.page.rendering import (
    STATIC_PATH,
    error_page,
    failed,
    load_templates,
    page,
    redirected,
    static_files,
)
from es_imgsearch.serve.page.search_page import search_page
from es_imgsearch.serve.page.suggestions import suggestions
from es_imgsearch.serve.problems import problem, status_of
from es_imgsearch.serve.query_pictures import Upload
from es_imgsearch.serve.routes import add_get, url
from es_imgsearch.serve.service import SearchService


class PageRoutes:
    """The pages; all of them work without JavaScript."""

    def __init__(self, service: SearchService) -> None:
        self._service = service

    def add_to(self, app: FastAPI) -> None:
        """Register the routes; none is in the description of the API."""
        load_templates()
        app.mount(STATIC_PATH, static_files())
        app.state.error_page = error_page
        hidden: dict[str, Any] = {"include_in_schema": False, "response_class": HTMLResponse}
        add_get(app, "/", self.search, **hidden)
        add_get(app, "/queries/{key}", self.query_picture, **hidden)
        app.post("/queries", **hidden)(self.send_picture)

    def search(self, request: Request) -> Response:
        """Show a search, or the newest pictures."""

        def build(address: Address) -> dict[str, Any]:
            shown = search_page(self._service, address)
            offered = () if shown["tiles"] else suggestions(self._service, address)
            return {**shown, "suggestions": offered}

        return page(request, "search.html", build)

    def query_picture(self, key: str) -> Response:
        """Return a picture that was sent, as JPEG."""
        return Response(
            self._service.query_picture(key).jpeg(),
            media_type="image/jpeg",
            headers={"cache-control": "private, max-age=3600"},
        )

    async def send_picture(self, request: Request) -> Response:
        """Keep a picture that was dropped, pasted or chosen; go on to its search.

        The form has the search that it is sent from, with the picture before.
        """
        is_script = "application/json" in request.headers.get("accept", "")
        async with request.form(max_files=1, max_fields=200) as form:
            others = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
            files = [each for each in form.getlist("image") if not isinstance(each, str)]
            uploads = [Upload(await each.read(), each.filename or "") for each in files]
        search = Address("/", ())
        try:
            if not all(is_text(each) for pair in others for each in pair):
                raise UsageError("A field of the form is not valid Unicode.")
            search = Address.parse("/", others).dropping("page")
            if not uploads:
                raise UsageError("Choose a picture first.")
            key = await run_in_threadpool(self._service.keep_picture, uploads[0])
        except ImgSearchError as error:
            if is_script:
                return problem(status_of(error), str(error))
            return failed(request, error, search, is_sent=True)
        found = search.dropping("image").dropping("box").setting("image", key)
        if not is_script:
            return redirected(request, found)
        where = url(request, str(found))
        return JSONResponse({"location": where}, HTTPStatus.CREATED, {"location": where})
