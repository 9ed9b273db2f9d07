"""Every wrong request is answered in one form, with a sentence that says what to send."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Header, HTTPException, Query
from fastapi.testclient import TestClient
from pydantic import BaseModel

from es_imgsearch.errors import FilterInvalid, ImageMissing, StoreUnreachable, UsageError
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.problems import MEDIA_TYPE, add_problems

RAW = ("loc", "type_error", "Input should", "Field required", "Not Found", "pattern", "ctx", "url")
ID = "0" * 32


class Body(BaseModel):
    model_config = {"extra": "forbid"}
    text: str
    k: int = 10
    boxes: list[int] = []


def routes() -> FastAPI:
    """The routes of the service with a search of every kind of parameter added."""
    app = create_app(Pictures())  # type: ignore[arg-type]

    @app.get("/search")
    def search(
        q: str,
        k: Annotated[int, Query(ge=1, le=10000)] = 10,
        min_relevance: Annotated[float, Query(ge=0, le=1)] = 0,
        exact: bool = False,
        since: date | None = None,
        x_page: Annotated[int | None, Header()] = None,
    ) -> str:
        return q

    @app.post("/search")
    def post(body: Body) -> str:
        return body.text

    @app.get("/raise/{what}")
    def fail(what: str) -> None:
        raise {
            "filter": FilterInvalid("There is no field 'fromat' to filter by."),
            "usage": UsageError("since is a date such as 2024-05-31."),
            "missing": ImageMissing("No picture has this id."),
            "away": StoreUnreachable("Elasticsearch does not answer."),
            "large": HTTPException(413, "The body has more than 20 MB: send a smaller picture"),
            "bug": RuntimeError("secret"),
        }[what]

    return app


class Pictures:
    def close(self) -> None:
        """Nothing is open."""

    def thumbnail(self, image_id: str) -> Any:
        raise ImageMissing(f"No picture has the image_id {image_id!r}.")

    original = thumbnail


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(
        routes(), raise_server_exceptions=False, base_url="http://127.0.0.1:8080"
    ) as client:
        yield client


def json_body(text: str) -> dict[str, Any]:
    return {"content": text, "headers": {"content-type": "application/json"}}


@pytest.mark.parametrize(
    ("method", "path", "given", "status", "said"),
    [
        ("GET", "/nowhere", {}, 404, "'/nowhere'"),
        ("GET", "/thumbnails", {}, 404, "/thumbnails/{image_id}"),
        ("GET", "/thumbnails/", {}, 404, "/images/{image_id}"),
        ("GET", "/api/v2/search", {}, 404, "There is nothing at '/api/v2/search'"),
        ("GET", f"/thumbnails/{ID}", {}, 404, "No picture has the image_id"),
        ("GET", f"/images/{ID}", {}, 404, "No picture has the image_id"),
        ("GET", "/thumbnails/abc", {}, 422, "'abc' is no image_id: send its 32 hexadecimal digits"),
        ("GET", f"/images/{'F' * 32}", {}, 422, "is no image_id"),
        ("GET", f"/images/{'a' * 5000}", {}, 422, "is no image_id"),
        ("GET", "/images/%F0%9F%90%A7", {}, 422, "is no image_id"),
        ("POST", f"/images/{ID}", {}, 405, "does not take POST: send GET or HEAD."),
        ("DELETE", f"/thumbnails/{ID}", {}, 405, "does not take DELETE"),
        ("PUT", "/healthz", {}, 405, "'/healthz' does not take PUT"),
        ("PATCH", "/search", {}, 405, "'/search' does not take PATCH: send GET or POST."),
        ("GET", "/search", {}, 422, "The parameter 'q' is missing"),
        ("GET", "/search?q=cat&k=many", {}, 422, "'k' is a whole number, not 'many'."),
        ("GET", "/search?q=cat&k=0", {}, 422, "'k' is a whole number, at least 1, not '0'."),
        ("GET", "/search?q=cat&k=99999", {}, 422, "of at most 10000, not '99999'."),
        ("GET", "/search?q=cat&k=1.5", {}, 422, "'k' is a whole number, not '1.5'."),
        ("GET", "/search?q=cat&min_relevance=2", {}, 422, "a number of at most 1, not '2'."),
        ("GET", "/search?q=cat&min_relevance=high", {}, 422, "is a number, not 'high'."),
        ("GET", "/search?q=cat&exact=perhaps", {}, 422, "'exact' is true or false, not 'perhaps'."),
        ("GET", "/search?q=cat&since=yesterday", {}, 422, "is a date such as 2024-05-31"),
        ("GET", "/search?q=cat&since=2024-02-31", {}, 422, "is a date such as 2024-05-31"),
        ("GET", "/search?q=cat", {"headers": {"x-page": "x"}}, 422, "The header 'x-page'"),
        ("POST", "/search", json_body("{"), 422, "The body is no JSON"),
        ("POST", "/search", json_body(""), 422, "The body is missing"),
        ("POST", "/search", json_body("[]"), 422, "The body is an object, not []."),
        ("POST", "/search", json_body("{}"), 422, "The field 'text' is missing"),
        ("POST", "/search", json_body('{"text": 5}'), 422, "'text' is a text, not 5."),
        ("POST", "/search", json_body('{"text": "a", "k": "x"}'), 422, "'k' is a whole number"),
        (
            "POST",
            "/search",
            json_body('{"text": "a", "boxes": 1}'),
            422,
            "'boxes' is a list, not",
        ),
        ("POST", "/search", json_body('{"text": "a", "boxes": ["b"]}'), 422, "'boxes.0'"),
        ("POST", "/search", json_body('{"text": "a", "kk": 1}'), 422, "'kk' is not known"),
        ("GET", "/raise/filter", {}, 400, "There is no field 'fromat'"),
        ("GET", "/raise/usage", {}, 400, "since is a date"),
        ("GET", "/raise/missing", {}, 404, "No picture has this id."),
        ("GET", "/raise/away", {}, 503, "does not answer"),
        ("GET", "/raise/large", {}, 413, "send a smaller picture."),
        ("GET", "/raise/bug", {}, 500, "its log says why"),
    ],
)
def test_a_wrong_request_is_told_in_one_form(
    client: TestClient, method: str, path: str, given: dict, status: int, said: str
):
    answer = client.request(method, path, **given)
    assert answer.status_code == status
    assert answer.headers["content-type"] == MEDIA_TYPE
    body = answer.json()
    assert body.keys() == {"type", "title", "status", "detail"}
    assert body["status"] == status
    assert body["title"]
    assert said in body["detail"]
    assert body["detail"].endswith(".")
    assert not any(f"'{raw}'" in body["detail"] or f"{raw}:" in body["detail"] for raw in RAW)
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_allowed_methods_stand_in_the_header_too(client: TestClient):
    answer = client.post("/healthz")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_a_head_request_has_the_status_of_the_get(client: TestClient):
    assert client.head(f"/thumbnails/{ID}").status_code == 404
    assert client.head("/thumbnails/abc").status_code == 422


def test_every_application_can_have_it():
    app = FastAPI()
    add_problems(app)
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        assert client.get("/").headers["content-type"] == MEDIA_TYPE
