"""Serve under a path of a reverse proxy (`--root-path`), which it strips or not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from es_imgsearch.errors import UsageError, shown_value

_PATH: Final = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)+")


def checked_root_path(path: str) -> str:
    """Return a path as `/a/b`, or "" for none.  Raises UsageError."""
    trimmed = path.rstrip("/")
    if not trimmed:
        return ""
    if not _PATH.fullmatch(trimmed):
        raise UsageError(
            f"--root-path cannot be {shown_value(path)}: write the path under which the proxy"
            " serves, such as /pictures, of letters, digits and . _ ~ -"
        )
    return trimmed


def check_apart(root_path: str, routes: Sequence[BaseRoute]) -> None:
    """Refuse a root path under which one of our paths may be two.

    Under `/api/v1`, `/api/v1/status` is `/status`, or itself, stripped.  Raises UsageError.
    """
    paths = {getattr(each, "path", "") for each in routes}
    if twice := sorted(each for each in paths if each and f"{root_path}{each}" in paths):
        raise UsageError(
            f"--root-path cannot be {root_path!r}: {root_path}{twice[0]} is an address of this"
            " service; choose another, such as /pictures."
        )


def route_path(scope: Scope) -> str:
    """Return the path without the root path."""
    path: str = scope["path"]
    # A mounted application has a root path of its own.
    root_path: str = scope.get("app_root_path", scope.get("root_path", ""))
    return path.removeprefix(root_path)


class RootPath:
    """Set ASGI's `root_path`, and `path` to the whole path that the browser asked for."""

    def __init__(self, app: ASGIApp, *, root_path: str, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._root_path = root_path
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            whole = path if self._is_whole(path, scope) else self._root_path + path
            # In place: the router notes the route in it, which `Observe` reads.
            scope.update(root_path=self._root_path, path=whole)
        await self._app(scope, receive, send)

    def _is_whole(self, path: str, scope: Scope) -> bool:
        """Return True if the proxy left the root path in.

        Under `/pictures`, `/pictures/ID` may be our own path, with the root path stripped: so what
        is left must be one of our paths.
        """
        rest = path.removeprefix(self._root_path)
        if rest == path or rest[:1] not in {"", "/"}:
            return False
        return self._is_ours(rest, scope) or not self._is_ours(path, scope)

    def _is_ours(self, path: str, scope: Scope) -> bool:
        """Return True for a path of a route, or one with a slash too much (redirected)."""
        asked = {**scope, "path": path.rstrip("/") or "/", "root_path": ""}
        return any(route.matches(asked)[0] is not Match.NONE for route in self._routes)
