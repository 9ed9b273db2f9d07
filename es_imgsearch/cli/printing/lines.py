"""Lines and JSON on standard output, with what would break a line escaped."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from es_imgsearch.errors import ImgSearchError, counted, escaped

if TYPE_CHECKING:
    from es_imgsearch.pipeline.jobs import RootComparison


def print_line(text: str) -> None:
    """Print one line of data on standard output."""
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise ImgSearchError(f"Standard output cannot be written: {error.strerror}.") from error


def print_json(value: Any) -> None:
    import orjson

    print_line(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def drop_output() -> None:
    """Discard buffered output, which would fail again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def shown_path(root: str, relative_path: str) -> str:
    """Format the path of a picture in one line.

    Line ends, control characters and bidirectional controls are written as Python escapes; bytes
    that are no UTF-8 are escaped already.
    """
    return escaped(f"{root}/{relative_path}")


def shown_file(path: Path | None, root: str, relative_path: str) -> str:
    """Format the place of a file in one line: its path, if it is on this host."""
    if path is None:
        return shown_path(root, relative_path)
    return escaped(os.fsencode(path).decode("utf-8", "backslashreplace"))


_ORIGINALS = "--exclude '!*.photoslibrary' takes the originals of Apple Photos in"
_FOLLOWS = "--follow-links follows them"


def left_out_line(left_out: Mapping[str, int], by_pattern: Mapping[str, int]) -> str:
    """Describe what a comparison left out, by reason; "" for nothing."""
    words = {
        "pattern": ("by --exclude", "by --exclude"),
        "usual": ("by the usual excludes", "by the usual excludes"),
        "library": (
            f"library of a program ({_ORIGINALS})", f"libraries of programs ({_ORIGINALS})"
        ),
        "link to a folder": (f"link to a folder ({_FOLLOWS})", f"links to folders ({_FOLLOWS})"),
        "link to a folder that is watched anyway": (
            "link to a folder that is watched anyway", "links to folders that are watched anyway"
        ),
        "link to nothing": ("link to nothing", "links to nothing"),
        "no file": ("device, pipe or socket", "devices, pipes or sockets"),
        "no picture": ("file that is no picture", "files that are no pictures"),
    }  # fmt: skip
    parts = [
        counted(number, *words.get(reason, (reason, reason)))
        for reason, number in sorted(left_out.items())
    ]
    if by_pattern:
        patterns = ", ".join(f"{pattern!r} {number}" for pattern, number in by_pattern.items())
        parts.append(f"of the patterns {patterns}")
    return "; ".join(parts)


def print_on_request(index: str, selection: Collection[str]) -> None:
    """Print which describers do not run in a new index, and how to run them."""
    from es_imgsearch.describe.registry import is_on_request, load_describers, missing_of

    for each in load_describers():
        is_open = not {each.name, f"+{each.name}", f"-{each.name}"} & {*selection}
        if is_open and is_on_request(each) and missing_of(each) is None:
            click.echo(
                f"The describer {each.name} does not run by itself, since it takes longer than"
                f" everything else: `es-imgsearch describe --only {each.name} --index {index}` runs"
                " it on stored pictures, and `sync` and `watch` from their next start on.",
                err=True,
            )


def print_left_out(comparisons: Mapping[str, RootComparison]) -> None:
    """Print on standard error what was left out of each root."""
    for name, each in comparisons.items():
        if line := left_out_line(each.left_out, each.left_out_by):
            click.echo(f"Left out of {name!r}: {line}.", err=True)
