"""Refuse requests that pages of other sites send, and bodies that are too large.

A service on 127.0.0.1 is reached by every page in the browser of the same machine: by a name that
resolves to it (DNS rebinding), and by forms and scripts of other sites.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from contextlib import suppress
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from anyio import current_time, move_on_after
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from es_imgsearch.serve.problems import problem

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE: Final = frozenset({"", "same-origin", "none"})
# What a URL has around its host.
_NO_HOST: Final = frozenset("@/?#\\ ")
# Without a byte, and for all of it: 20 MB in 300 s are 0.5 Mbit/s.
BODY_IDLE_SECONDS = 20.0
BODY_SECONDS = 300.0


class _BodyRefused(Exception):
    pass


class _Body:
    """What is received of a body, bounded in bytes and in time."""

    def __init__(self, receive: Receive, most_bytes: int) -> None:
        self.refusal: JSONResponse | None = None
        self._receive = receive
        self._most_bytes = most_bytes
        self._taken = 0
        self._is_whole = False
        self._ends_at = current_time() + BODY_SECONDS

    async def receive(self) -> Message:
        """Receive the next part.  Raises _BodyRefused, with the `refusal` set."""
        if self._is_whole:
            return await self._receive()
        # Whoever sends it byte by byte holds a connection, and memory, for as long.
        with move_on_after(min(BODY_IDLE_SECONDS, self._ends_at - current_time())):
            message = await self._receive()
            self._is_whole = not message.get("more_body", False)
            self._taken += len(message.get("body", b""))
            if self._taken > self._most_bytes:
                self.refusal = _too_large(self._most_bytes)
                raise _BodyRefused
            return message
        self.refusal = problem(
            HTTPStatus.REQUEST_TIMEOUT,
            "The body did not come in time: send it at once, or a smaller one.",
            {"connection": "close"},
        )
        raise _BodyRefused


class Guard:
    """Check Host, Origin, Sec-Fetch-Site and the size of the body."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], max_body_bytes: int) -> None:
        """`hosts` are names under which the service is asked, besides this machine's."""
        self._app = app
        self._hosts = {"localhost", socket.gethostname().lower(), *(each.lower() for each in hosts)}
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if (refusal := self._refusal(scope["method"], headers)) is not None:
            await refusal(scope, receive, send)
            return
        body = _Body(receive, self._max_body_bytes)
        has_begun = False

        async def send_on(message: Message) -> None:
            nonlocal has_begun
            # FastAPI answers itself if a body that it parses cannot be received.
            if has_begun or body.refusal is None:
                has_begun = True
                await send(message)

        with suppress(_BodyRefused):
            await self._app(scope, body.receive, send_on)
        if not has_begun and body.refusal is not None:
            await body.refusal(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
        host = host_name(headers.get("host", ""))
        if host not in self._hosts and not _is_address(host):
            return problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"This service is not asked as {host!r}: start it with --allow-host"
                f" {host or 'NAME'} if that is a name of this machine.",
            )
        if method not in _SAFE_METHODS:
            origin = headers.get("origin")
            # A page without an origin of its own, such as a sandboxed frame, sends "null".
            is_own = origin is None or _place(origin) == headers["host"].lower()
            if not is_own or headers.get("sec-fetch-site", "") not in _OWN_SITE:
                return problem(
                    HTTPStatus.FORBIDDEN,
                    f"A page of {origin or 'another site'} may not send {method} here.",
                )
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            return problem(
                HTTPStatus.BAD_REQUEST, f"Content-Length is a number, not {length[:20]!r}."
            )
        is_too_large = int(length) > self._max_body_bytes
        return _too_large(self._max_body_bytes) if is_too_large else None


def _too_large(most_bytes: int) -> JSONResponse:
    return problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The body is larger than {most_bytes / 1_000_000:g} MB: send a smaller picture, or fewer.",
    )


def _is_address(host: str) -> bool:
    """Whether a host is an address, which no DNS server can point elsewhere."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _place(origin: str) -> str | None:
    """Return host and port of an Origin header, in small letters; None if it has none."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def host_name(host: str) -> str:
    """Return the name in a Host header, in small letters; "" if it is none.

    The port is left out.
    """
    if _NO_HOST & set(host):
        return ""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
