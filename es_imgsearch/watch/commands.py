"""Write the command lines that messages advise, as a shell takes them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from es_imgsearch.records import Root, utf8
from es_imgsearch.settings import Settings


def walk_options(settings: Settings) -> list[str]:
    """Return the options by which another command walks the same files."""
    words = [part for pattern in settings.exclude for part in ("--exclude", pattern)]
    return [*words, "--follow-links"] if settings.follow_links else words


def given(root: Root) -> str:
    """Return a root as it is given to a command."""
    return f"{root.name}={utf8(str(root.path))}"


def sync_command(root: Root, index: str, *options: str) -> str:
    """Return the `sync` of a root of this index."""
    return shlex.join(["es-imgsearch", "sync", given(root), *options, "--index", index])


def permitting_command(root: Root, index: str, options: Sequence[str]) -> str:
    """Return the `sync` that permits deletions; `options` are those of `walk_options`."""
    return sync_command(root, index, "--allow-deletes", *options)
