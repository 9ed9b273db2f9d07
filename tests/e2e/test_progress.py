"""What `sync` shows while it works: a bar on a terminal, lines elsewhere, nothing across them."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from es_imgsearch.cli import main
from es_imgsearch.cli.printing import progress
from es_imgsearch.manage.status import index_status
from tests.support.house import House

COMMAND = [sys.executable, "-m", "es_imgsearch.cli"]
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(code: str, columns: int) -> str:
    """Run Python code with a terminal as standard error; return what came, without escapes."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=environment)
    os.close(theirs)
    received = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # of a terminal whose other end is closed
            break
        if not part:
            break
        received += part
    os.close(ours)
    assert process.wait() == 0
    return _ESCAPES.sub("", received.decode())


_BAR = """
import logging, sys, threading, warnings
from es_imgsearch.cli.printing import progress
from es_imgsearch.manage.status import index_status
from es_imgsearch.cli.printing.logs import set_up_logging

set_up_logging(verbose=False)
shown = threading.Event()
words = progress.in_words

def in_words(*given):
    shown.set()
    return words(*given)

progress.in_words, progress._STEP_SECONDS = in_words, 0.01
with progress.progress_bar("files", 5000) as advance:
    advance(1234)
    shown.wait()
    logging.getLogger("es_imgsearch").warning("Ours.")
    logging.getLogger("PIL").warning("Of a library.")
    warnings.warn("Deprecated.")
    print("Printed.", file=sys.stderr)
    for _ in range(3):
        shown.clear()
        shown.wait()
print("After.", file=sys.stderr)
"""


@pytest.mark.process
@pytest.mark.parametrize("columns", [80, 200, 0])
def test_messages_come_above_the_bar(columns: int):
    """Of a terminal that does not tell its width (0) as well."""
    said = on_terminal(_BAR, columns)
    lines = [line.rstrip() for each in said.splitlines() for line in each.split("\r")]
    assert any("1,234 of 5,000 files" in line for line in lines)
    (ours,) = [line for line in lines if "Ours." in line]
    assert re.fullmatch(r"[-\d]+ [:,\d]+ WARNING Ours\.", ours)
    assert "Printed." in lines
    assert lines[-1] == "After." or lines[-2] == "After."
    assert "library" not in said
    assert "Deprecated" not in said


def test_lines_where_there_is_no_terminal(house: House, monkeypatch: pytest.MonkeyPatch):
    """The total stands from the first line on."""
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.01)
    house.pictures(30)
    given = ["--index", house.settings.index, "--es-url", house.settings.es_url]
    environment = {"ES_IMGSEARCH_QUEUE_SIZE": "4", "ES_IMGSEARCH_SETTLE_SECONDS": "0"}
    result = CliRunner(env=environment).invoke(main, ["sync", str(house.folder), *given])
    lines = result.stderr.splitlines()
    assert result.exit_code == 0
    counted = [line for line in lines if " of " in line and " files" in line]
    assert counted
    assert all(re.match(r"\d+ of 30 files", line) for line in counted), counted
    assert any(f"in {house.folder}." in line for line in counted)
    assert "\r" not in result.stderr
    assert "30 embedded, 0 reused in" in result.stderr


def test_costs_are_in_status(house: House):
    house.pictures(3)
    given = ["--index", house.settings.index, "--es-url", house.settings.es_url]
    runner = CliRunner()
    assert runner.invoke(main, ["sync", str(house.folder), *given]).exit_code == 0
    costs = index_status(house.store)["roots"]["r"]["costs"]
    assert costs["pictures"] == 3
    assert 0 < sum(costs["describer_seconds"].values()) < costs["reading_seconds"]
    assert {"colours", "exif", "hashes"} <= costs["describer_seconds"].keys()
    assert "reading took" in runner.invoke(main, ["status", *given]).stdout


def test_what_takes_most_of_the_time_is_said_with_how_to_leave_it_out(
    house: House, photographs: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(progress, "WORTH_SECONDS", 0.1)
    folder = str(house.folder)
    for n in range(3):
        shutil.copy(photographs / "text.png", house.folder)
        Image.open(photographs / "text.png").crop((0, n, 400, 170)).save(house.folder / f"{n}.png")
    given = ["--index", house.settings.index, "--es-url", house.settings.es_url]
    runner = CliRunner(env={"ES_IMGSEARCH_DESCRIBERS": ""})
    said = runner.invoke(main, ["sync", folder, "--describers=+text_in_image", *given]).stderr
    (line,) = [each for each in said.splitlines() if each.startswith("Reading 4 pictures took")]
    assert "of it text_in_image " in line
    (option,) = re.findall(r"`(--describers=.*?)`", line)
    house.picture("new.png", 1)
    said = runner.invoke(main, ["sync", folder, option, *given]).stderr
    assert "1 embedded" in said
    assert "text_in_image" not in said
