"""The tutorial, from the first command to the last: what it shows is what is printed."""

from __future__ import annotations

import os
import runpy
import shutil
import sys
import uuid
from pathlib import Path

import pytest

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index
from tests.support import CHECKOUT
from tests.support.console import Terminal, comparable, environment_of

PAGE = CHECKOUT / "docs" / "tutorial" / "the-first-ten-minutes.md"
WRITES = "IMGSEARCH_TEST_WRITE_PAGES"


@pytest.mark.es
@pytest.mark.process
@pytest.mark.timeout(600)
def test_the_tutorial_prints_what_it_shows(es_url: str, tmp_path: Path) -> None:
    home = tmp_path / "ada"
    runpy.run_path(str(CHECKOUT / "dev" / "sample_pictures.py"))["fill"](home / "Pictures")
    (home / "Downloads").mkdir()
    shutil.move(home / "Pictures" / "astronaut.png", home / "Downloads")
    index = f"tutorial-{uuid.uuid4().hex[:8]}"
    environment = environment_of(es_url, Path(sys.executable).parent)
    written = PAGE.read_text("utf-8")
    try:
        terminal = Terminal(home, {**environment, "ES_IMGSEARCH_INDEX": index})
        printed = (
            terminal.run_page(written)
            .replace(index, "images")
            .replace(es_url, "http://127.0.0.1:9200")
        )
    finally:
        remove_index(Store(connect(load_settings({"es_url": es_url})), index))
    if os.environ.get(WRITES):
        PAGE.write_text(printed, "utf-8")
    assert comparable(printed) == comparable(written)
