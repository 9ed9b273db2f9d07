"""Sign in with a token: a browser keeps it in a cookie."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from es_imgsearch.records import is_text
from es_imgsearch.serve.page.address import Address
from es_imgsearch.serve.page.rendering import redirected, rendered
from es_imgsearch.serve.routes import add_get, url
from es_imgsearch.serve.tokens import COOKIE, LOGIN_PATH, KnownTokens

# A month, after which the token is asked for again.
_KEPT_SECONDS: Final = 30 * 24 * 3600


class LoginRoutes:
    """The page to sign in at, and to sign out."""

    def __init__(self, tokens: KnownTokens) -> None:
        self._tokens = tokens

    def add_to(self, app: FastAPI) -> None:
        """Register the routes."""
        hidden: dict[str, Any] = {"include_in_schema": False, "response_class": HTMLResponse}
        add_get(app, LOGIN_PATH, self.ask, **hidden)
        app.post(LOGIN_PATH, **hidden)(self.sign_in)
        app.post("/logout", **hidden)(self.sign_out)

    def ask(self, request: Request) -> Response:
        """Ask for a token."""
        return _form(request, request.query_params.get("next", "/"))

    async def sign_in(self, request: Request) -> Response:
        """Set the cookie, and go on to the page that was asked for."""
        async with request.form(max_files=0, max_fields=2) as form:
            token, after = str(form.get("token", "")), str(form.get("next", "/"))
        if not (is_text(token) and is_text(after) and self._tokens.has(token)):
            return _form(request, after, is_wrong=True)
        # Only a page of this service: `//host` and `/\\host` lead to another one.
        is_own = after.startswith("/") and not after.startswith(("//", "/\\"))
        response = redirected(request, Address(after if is_own else "/", ()))
        response.set_cookie(
            COOKIE,
            token.strip(),
            max_age=_KEPT_SECONDS,
            path=url(request, "") or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    def sign_out(self, request: Request) -> Response:
        """Remove the cookie."""
        response = redirected(request, Address(LOGIN_PATH, ()))
        response.delete_cookie(COOKIE, path=url(request, "") or "/")
        return response


def _form(request: Request, after: str, *, is_wrong: bool = False) -> Response:
    status = HTTPStatus.UNAUTHORIZED if is_wrong else HTTPStatus.OK
    after = after if is_text(after) else "/"
    return rendered(request, "login.html", {"after": after, "is_wrong": is_wrong}, status)
