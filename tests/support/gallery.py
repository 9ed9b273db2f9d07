"""The gallery in headless Chromium: a running `serve`, pages, and what the browser complains of."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from es_imgsearch.serve.traffic.connections import BOUNDS
from tests.support.browser import chromium_path
from tests.support.house import until

_AXE: Final = Path(__file__).resolve().parents[1] / "browser/node_modules/axe-core/axe.min.js"
DESKTOP: Final = {"width": 1280, "height": 900}
PHONE: Final = {"width": 390, "height": 844}
# The console has them as well, but only of pages that are still there.
_HEAR_VIOLATIONS: Final = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`refused by ${event.effectiveDirective}: ${event.blockedURI}`);
});
"""
_LOADED_MS: Final = 20_000


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """Debian's Chromium; the test is skipped if it or axe-core is missing."""
    missing = []
    if chromium_path() is None:
        missing.append("Chromium (Debian and Ubuntu: apt install chromium)")
    if not _AXE.is_file():
        missing.append("axe-core (`make browser`, which needs npm)")
    if missing:
        pytest.skip(f"The gallery is looked at in a browser; missing: {' and '.join(missing)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path())
        yield browser
        browser.close()


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address of a server for this application, in a thread."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, **BOUNDS)
        )
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)


class Gallery:
    """Pages of a site, each as in a fresh browser.  `complaints` must be empty in the end.

    They are messages of the console (a policy that is broken, a file that is missing), errors of
    scripts, and requests to other hosts.
    """

    def __init__(self, browser: Browser, site: str) -> None:
        self.site = site
        self.complaints: list[str] = []
        self._browser = browser
        self._contexts: list[BrowserContext] = []

    def open(self, path: str = "/", *, scripts: bool = True, **options: Any) -> Page:
        """A page in a browser of its own; options are those of Playwright's `new_context`."""
        given = {"viewport": DESKTOP, "reduced_motion": "reduce", **options}
        context = self._browser.new_context(java_script_enabled=scripts, **given)
        self._contexts.append(context)
        context.set_default_timeout(_LOADED_MS)
        context.on("console", self._hear)
        context.on("weberror", lambda each: self.complaints.append(f"script: {each.error}"))
        context.on("request", lambda each: self._requested(each.url))
        if scripts:
            context.add_init_script(_HEAR_VIOLATIONS)
        page = context.new_page()
        page.goto(self.site + path)
        return page

    def phone(self, path: str = "/", **options: Any) -> Page:
        """A page as wide as a phone, which has touch."""
        return self.open(path, viewport=PHONE, has_touch=True, is_mobile=True, **options)

    def close(self) -> None:
        for context in self._contexts:
            context.close()

    def _hear(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"console: {message.text} ({message.location.get('url')})")

    def _requested(self, url: str) -> None:
        if not url.startswith((self.site + "/", "blob:", "data:", "about:")):
            self.complaints.append(f"another host: {url}")


def obstacles(page: Page, within: str | None = None) -> list[str]:
    """What axe-core calls serious or critical on a page, or in a part of it."""
    page.evaluate(_AXE.read_text("utf-8"))
    found = page.evaluate(
        "within => axe.run(within ?? document, {resultTypes: ['violations']})", within
    )
    return [
        f"{each['id']}: {each['help']}: {json.dumps([node['html'] for node in each['nodes'][:3]])}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
    ]


def address(page: Page) -> str:
    """Path and parameters of the page, without the site."""
    parts = urlsplit(page.url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def hit_names(page: Page) -> list[str]:
    """The file names of the hits, in their order."""
    return [path.rsplit("/", 1)[1] for path in hit_paths(page)]


def hit_paths(page: Page) -> list[str]:
    """The paths of the hits, in their order."""
    paths = page.locator("#hits > .hit").evaluate_all("hits => hits.map(hit => hit.dataset.path)")
    return [str(each) for each in paths]


def scrolls_sideways(page: Page) -> bool:
    """Whether something is wider than the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def broken_images(page: Page) -> list[str]:
    """Pictures that came to the window and could not be drawn."""
    return list(
        page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth && i.src)"
                      ".map(i => i.src)")
    )  # fmt: skip


def drop(page: Page, target: str, file: Path, kind: str = "image/png") -> None:
    """Drop a file from outside of the browser onto the page."""
    _transfer(page, file, kind, f"""transfer => {{
        const on = document.querySelector({json.dumps(target)});
        for (const type of ["dragenter", "dragover", "drop"])
          on.dispatchEvent(new DragEvent(type,
            {{bubbles: true, cancelable: true, dataTransfer: transfer}}));
    }}""")  # fmt: skip


def paste(page: Page, file: Path, kind: str = "image/png") -> None:
    """Paste a file, where the focus is."""
    _transfer(
        page,
        file,
        kind,
        """transfer => document.activeElement.dispatchEvent(
        new ClipboardEvent("paste", {bubbles: true, cancelable: true, clipboardData: transfer}))""",
    )


def _transfer(page: Page, file: Path, kind: str, act: str) -> None:
    handle = page.evaluate_handle(
        """([bytes, name, type]) => {
          const content = Uint8Array.from(atob(bytes), each => each.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([content], name, {type}));
          return transfer;
        }""",
        [base64.b64encode(file.read_bytes()).decode(), file.name, kind],
    )
    handle.evaluate(act)


def number_in(text: str) -> int:
    """The first number in a text."""
    found = re.search(r"\d[\d,]*", text)
    assert found, text
    return int(found[0].replace(",", ""))
