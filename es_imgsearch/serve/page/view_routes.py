"""Routes of the pages around the search: one picture, duplicates, status, results as files."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from es_imgsearch.serve.page.picture_page import picture_page
from es_imgsearch.serve.page.rendering import page
from es_imgsearch.serve.page.status_page import status_page
from es_imgsearch.serve.routes import add_get
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles


class ViewRoutes:
    """The pages around the search; all of them work without JavaScript."""

    def __init__(self, service: SearchService, pictures: PictureFiles) -> None:
        self._service = service
        self._pictures = pictures

    def add_to(self, app: FastAPI) -> None:
        """Register the routes; none is in the description of the API."""
        hidden: dict[str, Any] = {"include_in_schema": False, "response_class": HTMLResponse}
        add_get(app, "/pictures/{image_id}", self.picture, **hidden)
        add_get(app, "/status", self.status, **hidden)

    def status(self, request: Request) -> Response:
        """Show what is indexed, and what to do next."""
        return page(request, "status.html", lambda address: status_page(self._service, address))

    def picture(self, request: Request, image_id: str) -> Response:
        """Show one picture with all that is stored of it."""
        return page(
            request,
            "picture.html",
            lambda address: picture_page(self._service, self._pictures, address, image_id),
        )
