"""Write the command lines that messages advise, as a shell takes them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from es_imgsearch.records import Root, disk_path
from es_imgsearch.settings import Settings


def walk_options(settings: Settings) -> list[str]:
    """Return the options by which another command walks the same files."""
    words = [part for pattern in settings.exclude for part in ("--exclude", pattern)]
    return [*words, "--follow-links"] if settings.follow_links else words


def given(root: Root) -> str:
    """Return a root as it is given to a command, not quoted for a shell."""
    return f"{root.name}={root.path}"


def given_entry(name: str, stored: str) -> str:
    """Return a registered root as a message gives it, by its stored path."""
    word = shell_word(f"{name}={disk_path(stored)}")
    return f"-- {word}" if name.startswith("-") else word


def shell_word(word: str) -> str:
    r"""Quote a word for a shell, so that what is shown can be typed or pasted.

    Bytes that are not UTF-8, and control characters, are written as in `$'caf\xe9'`, which bash,
    zsh and ksh read.
    """
    if word.isprintable():
        return shlex.quote(word)
    return f"$'{''.join(map(_escaped, word))}'"


def _escaped(letter: str) -> str:
    if letter in "\\'":
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))


def command_line(command: Sequence[str], roots: Sequence[str], options: Sequence[str]) -> str:
    """Return a command of this program; roots that begin with a dash follow `--`."""
    words = [*roots, *options]
    if any(root.startswith("-") for root in roots):
        words = [*options, "--", *roots]
    return " ".join(map(shell_word, ["es-imgsearch", *command, *words]))


def sync_command(root: Root, index: str, *options: str) -> str:
    """Return the `sync` of a root of this index."""
    return command_line(["sync"], [given(root)], [*options, "--index", index])


def permitting_command(root: Root, index: str, options: Sequence[str]) -> str:
    """Return the `sync` that permits deletions; `options` are those of `walk_options`."""
    return sync_command(root, index, "--allow-deletes", *options)
