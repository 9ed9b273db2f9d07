"""Bound what a connection may cost around the application's answer.

uvicorn alone waits for the rest of a request's head for ever, answers one that it cannot read in
plain text, and reads the rest of a body that was refused to its end, if it has one.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from es_imgsearch.serve.problems import MEDIA_TYPE, problem_of

# 50 texts of 2,000 letters are sent as JSON; an address with more than this is no search's.
LARGEST_HEAD_BYTES: Final = 65_536


class BoundedProtocol(H11Protocol):
    """One connection of HTTP/1.1; times are in seconds."""

    # From the begin of a connection, or of a further request, to the end of the request's head.
    head_seconds = 15.0
    # For which the rest of a request is still read after its answer, so that its sender gets that.
    linger_seconds = 5.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._arm(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data on, or discard it after a refusal."""
        if not self._is_refused:
            super().data_received(data)
            self._bound_what_follows()

    def _bound_what_follows(self) -> None:
        if self._is_refused:
            return
        if self.conn.their_state is h11.IDLE:
            self._arm(self.head_seconds)
        elif self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY:
            self._arm(self.linger_seconds)
        else:
            self._disarm()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse what is no request, or has too large a head, in the form of all errors."""
        status = HTTPStatus(getattr(sys.exception(), "error_status_hint", HTTPStatus.BAD_REQUEST))
        detail = (
            f"The address and headers are larger than {LARGEST_HEAD_BYTES // 1024} KB: send long"
            " searches as JSON by POST."
            if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            else "This is no request of HTTP/1.1 that can be read."
        )
        body = json.dumps(problem_of(status, detail)).encode()
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"connection", b"close"),
        ]
        send: Callable[[Any], bytes | None] = self.conn.send
        answer = h11.Response(status_code=status, headers=headers, reason=status.phrase.encode())
        parts = [send(each) for each in (answer, h11.Data(data=body), h11.EndOfMessage())]
        self.transport.write(b"".join(each or b"" for each in parts))
        # Closed at once, with data unread, it would be reset before the answer is read.
        self._is_refused = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._disarm()
        self._arm(self.linger_seconds)

    def _arm(self, seconds: float) -> None:
        if self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(seconds, self.transport.close)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


# Options of `uvicorn.Config`.
BOUNDS: Final[dict[str, Any]] = {
    "http": BoundedProtocol,
    "ws": "none",
    "h11_max_incomplete_event_size": LARGEST_HEAD_BYTES,
}
