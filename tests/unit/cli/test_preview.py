"""Pictures in a terminal, also in one that answers no question about itself."""

from __future__ import annotations

import os
import pty
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = """
import logging, sys
from pathlib import Path
from es_imgsearch.cli.printing.preview import preview
logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
preview()(Path(sys.argv[1]))
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("size", "has_input"),
    [((24, 80), True), ((0, 0), True), ((24, 80), False)],
    ids=["mute", "no size", "no input"],
)
def test_a_terminal_that_answers_nothing_gets_blocks_and_no_warning(
    tmp_path: Path, size: tuple[int, int], has_input: bool
) -> None:
    Image.new("RGB", (40, 30), (200, 0, 0)).save(tmp_path / "red.png")
    child, terminal = pty.fork()
    if child == 0:
        termios.tcsetwinsize(0, size)
        if not has_input:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        arguments = [sys.executable, "-c", SCRIPT, str(tmp_path / "red.png")]
        os.execve(sys.executable, arguments, environment)
    output = b""
    with suppress(OSError):  # the end of the output of a terminal
        while part := os.read(terminal, 1 << 16):
            output += part
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, output
    shown = output.decode()
    assert "▀" in shown
    assert "48;2;200;0;0" in shown
    assert "Traceback" not in shown
    assert "WARNING" not in shown
