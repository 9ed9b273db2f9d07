"""Vega panels in headless Chromium, drawn by the libraries and under the rules that Kibana has."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Response, sync_playwright

_FOLDER = Path(__file__).resolve().parents[1] / "browser"
_PACKAGES = _FOLDER / "node_modules"
_FILES = {
    "/": (_FOLDER / "panel.html", "text/html"),
    "/panel.js": (_FOLDER / "panel.js", "text/javascript"),
    "/vega.js": (_PACKAGES / "vega" / "build" / "vega.min.js", "text/javascript"),
    "/vega-interpreter.js": (
        _PACKAGES / "vega-interpreter" / "build" / "vega-interpreter.min.js",
        "text/javascript",
    ),
}
# Kibana's own by default (csp_directives.ts): pictures from anywhere, no code made from text.
_POLICY = (
    "script-src 'report-sample' 'self'; worker-src 'report-sample' 'self' blob:;"
    " style-src 'report-sample' 'self' 'unsafe-inline'"
)
_LOADED_MS = 15_000

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something drawn; its place is in pixels of the page."""

    type: str
    name: str | None
    left: float
    top: float
    right: float
    bottom: float
    text: str | None
    url: str | None
    link: str | None
    is_loaded: bool | None
    datum: Mapping[str, Any] | None

    @property
    def middle(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def overlaps(self, other: Mark) -> bool:
        # Lines and letters have borders of half a pixel.
        return (
            min(self.right, other.right) - max(self.left, other.left) > 1
            and min(self.bottom, other.bottom) - max(self.top, other.top) > 1
        )


@dataclass
class Panel:
    """A panel on the page.  `complaints` are of Vega, of the browser, and requests that failed."""

    page: Page
    size: Size
    complaints: list[str]
    answers: list[Response] = field(default_factory=list)

    def marks(self, kind: str) -> list[Mark]:
        return [Mark(**each) for each in self.page.evaluate("marks()") if each["type"] == kind]

    def told(self, name: str) -> Any:
        return self.page.evaluate(f"told.{name}")

    def wait(self) -> None:
        """Until every picture is there and drawn; those that never come are for `marks` to tell."""
        self.page.evaluate("milliseconds => settle(milliseconds)", _LOADED_MS)
        self.complaints += self.told("complaints")
        self.page.evaluate("told.complaints.length = 0")

    def resize(self, size: Size) -> None:
        self.size = size
        self.page.set_viewport_size({"width": size[0], "height": size[1]})
        self.page.evaluate("size => byItself(resize, ...size)", list(size))
        self.wait()

    def screenshot(self) -> bytes:
        return self.page.screenshot()


class Browser:
    """One page, on which panels are drawn one after the other."""

    def __init__(self, page: Page, address: str) -> None:
        self._page = page
        self._address = address
        self._panel: Panel | None = None
        page.on("console", self._console)
        page.on("pageerror", lambda error: self._complain(f"page: {error}"))
        page.on("requestfailed", lambda each: self._complain(f"{each.url}: {each.failure}"))
        page.on("response", self._response)

    def draw(self, spec: Mapping[str, Any], size: Size) -> Panel:
        """The specification with the answers of its queries in it, as large as Kibana's panel."""
        self._panel = panel = Panel(self._page, size, [])
        self._page.set_viewport_size({"width": size[0], "height": size[1]})
        self._page.goto(self._address)
        self._page.evaluate("given => byItself(draw, ...given)", [spec, *size])
        panel.wait()
        return panel

    def _console(self, message: Any) -> None:
        # A picture opened by itself has Chromium look for an icon of the service.
        is_of_icon = message.location.get("url", "").endswith("/favicon.ico")
        if message.type in {"error", "warning"} and not is_of_icon:
            self._complain(f"console: {message.text}")

    def _response(self, response: Response) -> None:
        if self._panel is not None and not response.url.startswith(self._address):
            self._panel.answers.append(response)

    def _complain(self, words: str) -> None:
        if self._panel is not None:
            self._panel.complaints.append(words)


def chromium_path() -> str | None:
    """Where Debian's Chromium is; None if it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def _missing() -> list[str]:
    missing = []
    if chromium_path() is None:
        missing.append("Chromium (Debian and Ubuntu: apt install chromium)")
    if not all(path.is_file() for path, _ in _FILES.values()):
        missing.append("the Vega library (`make browser`, which needs npm)")
    return missing


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Chromium with an empty page; the test is skipped if something is missing."""
    if missing := _missing():
        pytest.skip(f"Vega panels are drawn in a browser; missing: {' and '.join(missing)}")
    with _served() as address, sync_playwright() as playwright:
        # As root it starts without its sandbox only, which is the default here.
        browser = playwright.chromium.launch(executable_path=chromium_path())
        yield Browser(browser.new_page(), address)
        browser.close()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        found = _FILES.get(self.path)
        content = b"" if found is None else found[0].read_bytes()
        self.send_response(404 if found is None else 200)
        if found is not None:
            self.send_header("content-type", f"{found[1]}; charset=utf-8")
        self.send_header("content-length", str(len(content)))
        self.send_header("content-security-policy", _POLICY)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def _served() -> Iterator[str]:
    """The page's address: another origin than that of the thumbnails, as Kibana's is."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
