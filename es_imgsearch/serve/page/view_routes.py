"""Routes of the pages around the search: a picture, duplicates, status, files."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from es_imgsearch.serve.page.downloads import download
from es_imgsearch.serve.page.duplicates_page import as_script, as_text, duplicates_page
from es_imgsearch.serve.page.exports import as_csv, as_json, as_kibana, as_paths
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
        add_get(app, "/export.csv", self.export_csv, **hidden)
        add_get(app, "/export.json", self.export_json, **hidden)
        add_get(app, "/export.txt", self.export_paths, **hidden)
        add_get(app, "/export.ndjson", self.export_kibana, **hidden)
        add_get(app, "/duplicates", self.duplicates, **hidden)
        add_get(app, "/duplicates.txt", self.duplicate_list, **hidden)
        add_get(app, "/duplicates.sh", self.duplicate_script, **hidden)

    def status(self, request: Request) -> Response:
        """Show what is indexed, and what to do next."""
        return page(request, "status.html", lambda address: status_page(self._service, address))

    def export_csv(self, request: Request) -> Response:
        """Return the hits as a table."""
        return download(request, "pictures.csv", lambda address: as_csv(self._service, address))

    def export_json(self, request: Request) -> Response:
        """Return the hits as `search --json` prints them."""
        return download(request, "pictures.json", lambda address: as_json(self._service, address))

    def export_paths(self, request: Request) -> Response:
        """Return the paths of the hits."""
        return download(request, "pictures.txt", lambda address: as_paths(self._service, address))

    def export_kibana(self, request: Request) -> Response:
        """Return the search as objects that Kibana imports."""
        return download(
            request, "kibana-search.ndjson", lambda address: as_kibana(self._service, address)
        )

    def duplicates(self, request: Request) -> Response:
        """Show groups of files that show the same picture."""
        return page(
            request, "duplicates.html", lambda address: duplicates_page(self._service, address)
        )

    def duplicate_list(self, request: Request) -> Response:
        """Return the groups as text."""
        return download(request, "duplicates.txt", lambda address: as_text(self._service, address))

    def duplicate_script(self, request: Request) -> Response:
        """Return a shell script that keeps the first file of each group, to be read first."""
        return download(
            request, "remove-duplicates.sh", lambda address: as_script(self._service, address)
        )

    def picture(self, request: Request, image_id: str) -> Response:
        """Show one picture with all that is stored of it."""
        return page(
            request,
            "picture.html",
            lambda address: picture_page(self._service, self._pictures, address, image_id),
        )
