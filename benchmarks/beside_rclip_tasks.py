"""What is typed for each task in this program and in rclip, and what they print."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import skimage
from PIL import Image

_WAIT_SECONDS = 300.0
_LINE = 96


class Task(NamedTuple):
    what: str
    ours: str
    # Empty where rclip has nothing for it.
    rclip: str


# Typed in the folder of the pictures, as rclip searches where it is started.
TASKS = (
    Task("first search", 'es-imgsearch find "a cat" .', 'rclip "a cat"'),
    Task("again, with what is new", 'es-imgsearch find "a cat" .', 'rclip "a cat"'),
    Task("again, as it was", 'es-imgsearch search "a cat"', 'rclip -n "a cat"'),
    Task("a picture as the query", "es-imgsearch search cat.jpg", "rclip -n ./cat.jpg"),
    Task(
        "a picture and words",
        'es-imgsearch search "in a cup" --image cat.jpg',
        'rclip -n ./cat.jpg + "in a cup"',
    ),
    Task("subtract words", "es-imgsearch search cup --not coffee", "rclip -n cup - coffee"),
    Task("weigh words", "", 'rclip -n "2:cat" + cup'),
    Task("the best three", "es-imgsearch search cat -k 3", "rclip -n cat -t 3"),
    Task("paths only", "es-imgsearch search cat --paths", "rclip -n cat -f"),
    Task("preview", "es-imgsearch search cat --preview", "rclip -n cat -p"),
    Task("a part of a picture", "es-imgsearch search cat.jpg --box 120,80,300,300", ""),
    Task("filter by date", "es-imgsearch search cat --until 2024-12-31", ""),
    Task("keep up to date by itself", "es-imgsearch watch .", ""),
    Task("find duplicates", "es-imgsearch duplicates", ""),
    Task("JSON for programs", "es-imgsearch search cat --json", ""),
)


def printed_rows(
    folder: Path, environments: Mapping[str, Mapping[str, str]], places: Sequence[Path]
) -> list[dict[str, Any]]:
    """Run each task of the programs that are there; return a row a command.

    Paths are shown as if the folder were /home/ada/Pictures.
    """
    _add_dated(folder)
    path = os.pathsep.join([*map(str, places), os.environ["PATH"]])
    rows = []
    for task in TASKS:
        for program, command in (("es-imgsearch", task.ours), ("rclip", task.rclip)):
            if program not in environments:
                continue
            row = {"task": task.what, "command": command or "-", "characters": len(command)}
            environment = {**os.environ, **environments[program], "PATH": path}
            lines = _first_lines(command, folder, environment) if command else []
            rows.append(row | {"printed": lines})
    return rows


def _add_dated(folder: Path) -> None:
    """Add a picture with a date, and a copy: one hit for the filter, one group of duplicates."""
    exif = Image.Exif()
    # DateTimeOriginal, in the directory of the exposure.
    exif.get_ifd(0x8769)[0x9003] = "2024:06:01 12:00:00"
    with Image.open(Path(skimage.__file__).parent / "data" / "chelsea.png") as image:
        for name in ("dated.jpg", "dated-copy.jpg"):
            image.convert("RGB").save(folder / name, exif=exif)


def _first_lines(command: str, folder: Path, environment: Mapping[str, str]) -> list[str]:
    """Return the first two lines of standard output; where it is empty, of standard error."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, shell=True, cwd=folder, env=environment, stdout=out, stderr=said,
            start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + _WAIT_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            # What runs until it is stopped has said that it began.
            if " watch " in command and os.fstat(said.fileno()).st_size:
                break
            time.sleep(0.1)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        text = [_read(each) for each in (out, said)]
    lines = [line.rstrip() for line in text[0].splitlines() or text[1].splitlines()]
    shown = [line.replace(str(folder.parent), "/home/ada") for line in lines if line][:2]
    return [_readable(line) for line in shown]


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _readable(line: str) -> str:
    """Show control characters as escapes, and the beginning of a long line."""
    shown = "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)
    return shown if len(shown) <= _LINE else f"{shown[:_LINE]}…"
