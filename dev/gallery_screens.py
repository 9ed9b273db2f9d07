"""Photograph the views of the gallery for the documentation.

    ES_URL=http://127.0.0.1:9200 .venv/bin/python dev/gallery_screens.py [FOLDER]

Needs Chromium.  The pictures are those of FOLDER, else scikit-image's photographs, in an index that
is dropped at the end; each view becomes docs/images/gallery-NAME.webp.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from sample_pictures import fill

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
COMMAND = Path(sys.executable).with_name("es-imgsearch")
DESKTOP, PHONE = (1280, 900), (390, 844)


def run(*arguments: str) -> None:
    """Run a command; 1 means that a file failed, as one of the samples does."""
    finished = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False)
    if finished.returncode not in {0, 1}:
        sys.exit(finished.stderr)


@contextmanager
def served(index: str) -> Iterator[str]:
    """The address of `serve` on a free port."""
    arguments = [COMMAND, "serve", "--port", "0", "--index", index]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://\S+", line)
        if found is None:
            sys.exit(line)
        yield found[0]
        process.terminate()


def photograph(
    browser: Browser, address: str, name: str, size: tuple[int, int], scheme: str
) -> None:
    """Save what a window of this size shows at an address."""
    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(address, wait_until="networkidle")
    content = page.screenshot()
    context.close()
    file = IMAGES / f"gallery-{name}.webp"
    Image.open(io.BytesIO(content)).save(file, quality=80, method=6)
    print(f"{file.name}: {file.stat().st_size // 1000} kB")


def main() -> None:
    index = f"screens-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        pictures = Path(temporary) / "pictures"
        if len(sys.argv) > 1:
            shutil.copytree(sys.argv[1], pictures)
        else:
            fill(pictures)
        os.chdir(temporary)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        try:
            run("init", "--encoder", "starter", "--index", index)
            run("sync", "pictures", "--index", index)
            with served(index) as site:
                answer = urllib.request.urlopen(f"{site}/api/v1/search?q=cat&k=1")
                first = json.load(answer)["hits"][0]["image_id"]
                for name, path, size, scheme in (
                    ("search", "/?q=cat", DESKTOP, "light"),
                    ("newest", "/", DESKTOP, "dark"),
                    ("phone", "/?q=cat&not=dog", PHONE, "dark"),
                    ("part", f"/?like={first}&box=100,60,250,200", DESKTOP, "light"),
                    ("picture", f"/pictures/{first}?q=cat&n=1", DESKTOP, "light"),
                    ("duplicates", "/duplicates?level=near", DESKTOP, "light"),
                    ("status", "/status", DESKTOP, "light"),
                ):
                    photograph(browser, site + path, name, size, scheme)
        finally:
            run("drop", "--yes", "--index", index)
            browser.close()


if __name__ == "__main__":
    main()
