"""Refuse who asks too often: by token, else by address."""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.types import ASGIApp, Receive, Scope, Send

from es_imgsearch.errors import UsageError, shown_value
from es_imgsearch.serve.problems import problem
from es_imgsearch.serve.traffic.root_path import route_path

DEFAULT_RATE: Final = "600/minute"
_NONE: Final = frozenset({"", "0", "none", "off"})
# A search shows as many thumbnails.
_PICTURES_PER_REQUEST: Final = 60
_PICTURES: Final = ("/thumbnails/", "/images/", "/queries/")
# What a monitor asks for, and files of the page.
_FREE: Final = ("/healthz", "/readyz", "/metrics", "/static/")


def parse_rate(text: str) -> list[RateLimitItem]:
    """Parse rates such as 600/minute with `;` between; `none` and 0 are none.

    Raises UsageError.
    """
    if text.strip().lower() in _NONE:
        return []
    try:
        rates = parse_many(text)
    except ValueError:
        raise UsageError(
            f"--rate-limit cannot be {shown_value(text)}: write a number of requests and a time,"
            " such as 600/minute or '10/second; 5000/day', or none."
        ) from None
    return [each for each in rates if each.amount > 0]


class RateLimit:
    """Count requests of each token or address in fixed windows of time."""

    def __init__(
        self, app: ASGIApp, *, rates: Sequence[RateLimitItem], local_is_free: bool
    ) -> None:
        """`local_is_free` leaves programs of this machine that send no token uncounted."""
        self._app = app
        self._rates = tuple(rates)
        self._of_pictures = tuple(
            type(each)(each.amount * _PICTURES_PER_REQUEST, each.multiples) for each in rates
        )
        self._local_is_free = local_is_free
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (seconds := self._seconds_to_wait(scope)):
            refusal = problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"More than {' and '.join(map(str, self._rates))} were asked for: ask again in"
                f" {seconds} s.",
                {"retry-after": str(seconds)},
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _seconds_to_wait(self, scope: Scope) -> int:
        """Count a request; return after how many seconds to ask again, 0 if it may pass."""
        path = route_path(scope)
        if path.startswith(_FREE):
            return 0
        who = self._who(scope)
        if who is None:
            return 0
        is_picture = scope["method"] in {"GET", "HEAD"} and path.startswith(_PICTURES)
        what = "pictures" if is_picture else "requests"
        waits = [0]
        for rate in self._of_pictures if is_picture else self._rates:
            if not self._limiter.hit(rate, what, who):
                resets_at = self._limiter.get_window_stats(rate, what, who).reset_time
                waits.append(max(1, math.ceil(resets_at - time.time())))
        return max(waits)

    def _who(self, scope: Scope) -> str | None:
        """Return whose requests are counted together; None if they are not."""
        if token := scope.get("token"):
            return str(token)
        host = (scope.get("client") or ("",))[0]
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host
        # A socket for both families has 192.0.2.1 as ::ffff:192.0.2.1.
        address = getattr(address, "ipv4_mapped", None) or address
        if self._local_is_free and address.is_loopback:
            return None
        if isinstance(address, ipaddress.IPv4Address):
            return str(address)
        # One subscriber has all addresses of a /64.
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
