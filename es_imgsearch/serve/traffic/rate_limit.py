"""Refuse who asks too often: by token, else by address."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute, parse_many
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.types import ASGIApp, Receive, Scope, Send

from es_imgsearch.errors import UsageError, shown_value
from es_imgsearch.serve.problems import TooManyRequests, problem_of_error
from es_imgsearch.serve.traffic.root_path import route_path

DEFAULT_RATE: Final = "600/minute"
_REQUESTS: Final = "requests"
_LOOPBACK: Final = "this machine"
_NONE: Final = frozenset({"", "0", "none", "off"})
# A search shows as many thumbnails.
_PICTURES_PER_REQUEST: Final = 60
_PICTURES: Final = ("/thumbnails/", "/images/", "/queries/")
# A page whose token was taken back asks for as many thumbnails, and is asked for the token.
_MOST_REFUSED: Final = RateLimitItemPerMinute(100)
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
        self._charging = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self._refusal(scope)):
            await problem_of_error(refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> TooManyRequests | None:
        """Count a request; return the refusal of one that may not pass."""
        path = route_path(scope)
        if path.startswith(_FREE):
            return None
        who = self._who(scope)
        if who is None:
            return None
        is_picture = scope["method"] in {"GET", "HEAD"} and path.startswith(_PICTURES)
        what = "pictures" if is_picture else _REQUESTS
        scope["charge"] = partial(self._charge, who)
        rates = self._of_pictures if is_picture else self._rates
        seconds = [
            _seconds_left(self._limiter, rate, what, who)
            for rate in rates
            if not self._limiter.hit(rate, what, who)
        ]
        if not seconds:
            return None
        return TooManyRequests(
            f"More than {' and '.join(map(str, self._rates))} were asked for: ask again in"
            f" {max(seconds)} s.",
            max(seconds),
        )

    def _charge(self, who: str, queries: int) -> None:
        """Count the queries of a request but the first, all or none.

        Raises TooManyRequests.
        """
        more = queries - 1
        with self._charging:
            full = [
                each
                for each in self._rates
                if not self._limiter.test(each, _REQUESTS, who, cost=more)
            ]
            for each in () if full else self._rates:
                self._limiter.hit(each, _REQUESTS, who, cost=more)
        if not full:
            return
        seconds = max(_seconds_left(self._limiter, each, _REQUESTS, who) for each in full)
        least = min(each.amount for each in full)
        raise TooManyRequests(
            f"The {queries} queries of this request are more than may be asked for at once"
            f" ({' and '.join(map(str, full))}): send at most {least} in a request."
            if queries > least
            else f"The {queries} queries of this request are more than are left of"
            f" {' and '.join(map(str, full))}: ask again in {seconds} s, or send fewer.",
            seconds,
        )

    def _who(self, scope: Scope) -> str | None:
        """Return whose requests are counted together; None if they are not."""
        if token := scope.get("token"):
            return str(token)
        address = counted_address(scope)
        return None if self._local_is_free and address == _LOOPBACK else address


def charge(scope: Scope, queries: int) -> None:
    """Count a request of many queries as that many.  Raises TooManyRequests."""
    # Not of those who may ask as often as they like.
    if queries > 1 and "charge" in scope:
        scope["charge"](queries)


class RefusedTokens:
    """Count by address what is sent as a token and is none, at most 100 a minute."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def count(self, scope: Scope) -> TooManyRequests | None:
        """Count one; return the refusal to answer any more of them."""
        who = counted_address(scope)
        if self._limiter.hit(_MOST_REFUSED, who):
            return None
        seconds = _seconds_left(self._limiter, _MOST_REFUSED, who)
        return TooManyRequests(
            f"More than {_MOST_REFUSED} came without a token of this service: send one, or ask"
            f" again in {seconds} s.",
            seconds,
        )


def _seconds_left(limiter: FixedWindowRateLimiter, rate: RateLimitItem, *key: str) -> int:
    resets_at = limiter.get_window_stats(rate, *key).reset_time
    return max(1, math.ceil(resets_at - time.time()))


def counted_address(scope: Scope) -> str:
    """Return the address that a request is counted by: of IPv6, the /64."""
    host = str((scope.get("client") or ("",))[0])
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    # A socket for both families has 192.0.2.1 as ::ffff:192.0.2.1.
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback:
        return _LOOPBACK
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    # One subscriber has all addresses of a /64.
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
