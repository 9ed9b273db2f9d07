"""Draw the terminal screens of the documentation, from what the commands print.

    ES_URL=http://127.0.0.1:9200 .venv/bin/python dev/screens.py

Each command runs in a terminal of its own, in a home folder with scikit-image's photographs and an
index that is dropped at the end; its last screen becomes docs/images/terminal-NAME.svg.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyte
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.style import Style
from rich.text import Text
from sample_pictures import fill

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
COLUMNS, LINES = 100, 80
HOME = "/home/ada"
# Rich's, without the fonts that it would load from another host.
SVG = re.sub(r"@font-face \{\{.*?\n    \}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


@dataclass(frozen=True)
class Shown:
    """A command, and what is on its screen when it is drawn; else that of its end."""

    name: str
    command: str
    when: str = ""


SCREENS = (
    Shown("progress", "es-imgsearch sync ~/Pictures", when=r"\b([8-9]|[12]\d) of 3\d"),
    Shown("find", 'es-imgsearch find "a cat" ~/Pictures -k 5'),
    Shown("preview", 'es-imgsearch search "a rocket" -k 1 --preview'),
    Shown("status", "es-imgsearch status"),
    Shown("duplicates", "es-imgsearch duplicates"),
    Shown("help", "es-imgsearch --help"),
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "ada"
        fill(home / "Pictures")
        environment = {
            **os.environ,
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "ES_IMGSEARCH_INDEX": f"screens-{uuid.uuid4().hex[:8]}",
        }
        run = ["es-imgsearch", "init", "--encoder", "starter"]
        subprocess.run(run, env=environment, check=True)
        try:
            for each in SCREENS:
                draw(each, environment)
        finally:
            subprocess.run(["es-imgsearch", "drop", "--yes"], env=environment, check=True)


def draw(shown: Shown, environment: Mapping[str, str]) -> None:
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    stream.feed(f"$ {shown.command}\r\n".encode())
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(environment["HOME"])
        os.execvpe("bash", ["bash", "-c", shown.command], dict(environment))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    drawn = None
    with suppress(OSError):  # the end of a terminal's output
        while True:
            if select.select([terminal], [], [], 0.05)[0]:
                stream.feed(as_shown(os.read(terminal, 1 << 16), environment))
            if shown.when and drawn is None and re.search(shown.when, "\n".join(screen.display)):
                drawn = lines_of(screen)
    os.waitpid(child, 0)
    os.close(terminal)
    write_svg(shown, drawn or lines_of(screen))


def as_shown(output: bytes, environment: Mapping[str, str]) -> bytes:
    """Replace the folder and the index of this run; leave out questions to the terminal."""
    for actual, shown in (
        (environment["HOME"], HOME),
        (environment["ES_IMGSEARCH_INDEX"], "images"),
    ):
        output = output.replace(actual.encode(), shown.encode())
    # Progress shows the end of a long path.
    output = re.sub(rb"\xe2\x80\xa6\S*/ada", HOME.encode(), output)
    return re.sub(rb"\x1b_.*?\x1b\\|\x1b\[(?:1[46]t|c)", b"", output, flags=re.DOTALL)


def lines_of(screen: pyte.Screen) -> list[Text]:
    lines = []
    for row in range(screen.lines):
        line = Text()
        for column in range(screen.columns):
            cell = screen.buffer[row][column]
            line.append(
                cell.data, Style(color=colour(cell.fg), bgcolor=colour(cell.bg), bold=cell.bold)
            )
        lines.append(line)
    while lines and not lines[-1].plain.strip():
        lines.pop()
    return lines


def colour(name: str) -> str | None:
    if name == "default":
        return None
    return f"#{name}" if re.fullmatch(r"[0-9a-f]{6}", name) else name


def write_svg(shown: Shown, lines: list[Text]) -> None:
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, legacy_windows=False)
        for line in lines:
            line.rstrip()
            console.print(line, no_wrap=True, crop=True)
        svg = console.export_svg(title=shown.command, code_format=SVG, unique_id=shown.name)
    (IMAGES / f"terminal-{shown.name}.svg").write_text(svg, encoding="utf-8")
    print(IMAGES / f"terminal-{shown.name}.svg", len(svg))


if __name__ == "__main__":
    main()
