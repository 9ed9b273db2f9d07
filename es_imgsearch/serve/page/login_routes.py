"""Sign in with a token: a browser keeps it in a cookie."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from es_imgsearch.records import is_text
from es_imgsearch.serve.page.address import Address
from es_imgsearch.serve.page.rendering import failed, redirected, rendered
from es_imgsearch.serve.routes import add_get, url
from es_imgsearch.serve.tokens import (
    COOKIE,
    LOGIN_PATH,
    KnownTokens,
    cookie_name,
    cookie_tokens,
)
from es_imgsearch.serve.traffic.rate_limit import RefusedTokens

# A month, after which the token is asked for again.
_KEPT_SECONDS: Final = 30 * 24 * 3600
# With these it sends the cookie, if it has one.  Without https it sends no such header to other
# machines.
_WITH_COOKIES: Final = frozenset({"same-origin", "same-site", "none"})


class LoginRoutes:
    """The page to sign in at, and to sign out."""

    def __init__(self, tokens: KnownTokens, refused: RefusedTokens) -> None:
        self._tokens = tokens
        self._refused = refused

    def add_to(self, app: FastAPI) -> None:
        """Register the routes."""
        hidden: dict[str, Any] = {"include_in_schema": False, "response_class": HTMLResponse}
        add_get(app, LOGIN_PATH, self.ask, **hidden)
        app.post(LOGIN_PATH, **hidden)(self.sign_in)
        app.post("/logout", **hidden)(self.sign_out)

    async def ask(self, request: Request) -> Response:
        """Ask for a token; who has one goes on to the page that was asked for.

        A browser that follows a link of another site sends no cookie, being SameSite=Strict, until
        a page of this service has it ask again: once, which the parameter `again` notes.
        """
        after, is_again = request.query_params.get("next", "/"), "again" in request.query_params
        if is_again and self._tokens.find(*cookie_tokens(request)) is not None:
            return _continued(request, after)
        may_lack_cookie = request.headers.get("sec-fetch-site") not in _WITH_COOKIES
        return _form(request, after, asks_again=may_lack_cookie and not is_again)

    async def sign_in(self, request: Request) -> Response:
        """Set the cookie, and go on to the page that was asked for."""
        async with request.form(max_files=0, max_fields=2) as form:
            token, after = str(form.get("token", "")), str(form.get("next", "/"))
        if not (is_text(token) and is_text(after) and self._tokens.has(token)):
            if too_many := self._refused.count(request.scope):
                return failed(request, too_many, Address(LOGIN_PATH, ()))
            return _form(request, after, is_wrong=True)
        response = _continued(request, after)
        response.set_cookie(
            cookie_name(request),
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
        for name in dict.fromkeys([cookie_name(request), *({COOKIE} & set(request.cookies))]):
            response.delete_cookie(name, path=url(request, "") or "/")
        return response


def _continued(request: Request, after: str) -> Response:
    """Go on to a page of this service: `//host` and `/\\\\host` lead to another one."""
    is_own = after.startswith("/") and not after.startswith(("//", "/\\"))
    return redirected(request, Address(after if is_own else "/", ()))


def _form(
    request: Request, after: str, *, is_wrong: bool = False, asks_again: bool = False
) -> Response:
    """Show the form; with `asks_again` the browser asks once more, from this page."""
    status = HTTPStatus.UNAUTHORIZED if is_wrong else HTTPStatus.OK
    after = after if is_text(after) else "/"
    shown: dict[str, Any] = {"after": after, "is_wrong": is_wrong}
    if not asks_again:
        return rendered(request, "login.html", shown, status)
    shown["again"] = f"{LOGIN_PATH}?{urlencode({'next': after, 'again': '1'})}"
    return rendered(request, "login_again.html", shown, status)
