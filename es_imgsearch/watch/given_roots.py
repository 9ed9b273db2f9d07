"""Resolve `[NAME=]DIR` of a command line to roots."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from es_imgsearch.errors import RootError
from es_imgsearch.records import Root, is_url, stored_path
from es_imgsearch.watch.bounded_looks import LOOKS, found_at
from es_imgsearch.watch.sources.given import is_there, url_root

logger = logging.getLogger(__name__)


def parse_roots(
    texts: Sequence[str],
    *,
    may_be_gone: bool = False,
    may_come: bool = False,
    is_checked: bool = False,
    follow_links: bool = False,
) -> list[Root]:
    """Resolve the command line's roots; check them on disk and for overlaps.

    Raises RootError for what is no folder, a name given twice, or folders inside each other;
    with `may_be_gone` a folder need not exist or be readable, with `may_come` it need not exist
    yet, also behind a link.  `is_checked` is for folders that were checked before: whatever
    became of them is no error.

    A folder whose disk does not answer is an error, too, or is taken as it was given if it may come
    or was checked.
    """
    looks = LOOKS.at(
        {text: partial(_parse, text, may_be_gone, may_come, is_checked) for text in texts}
    )
    roots = [
        replace(
            _unanswered(text, may_come=may_come, is_checked=is_checked)
            if (found := looks[text]) is None
            else found,
            follows_links=follow_links,
        )
        for text in texts
    ]
    for position, root in enumerate(roots):
        for other in roots[:position]:
            if root.name == other.name:
                raise RootError(
                    f"{other.path} and {root.path} are both called {root.name!r}: give one"
                    " another name as NAME=DIR."
                )
            if overlap(root.path, other.path):
                raise RootError(f"{root.path} and {other.path} overlap: watch the outer one.")
    paths = [os.fspath(root.path) for root in roots]
    return [
        replace(root, other_paths=(*paths[:n], *paths[n + 1 :])) for n, root in enumerate(roots)
    ]


def _parse(text: str, may_be_gone: bool, may_come: bool, is_checked: bool) -> Root:
    name, folder = taken_apart(text)
    if not folder:
        # Perhaps a variable of a shell that is not set; it would be the working folder.
        raise RootError(f"{text!r} names no folder: write DIR or NAME=DIR.")
    if is_url(folder):
        return url_root(text, name, folder, is_checked=is_checked or may_be_gone or may_come)
    # os.path, unlike Path, answers also where a folder may not be entered or a user is unknown.
    path = Path(os.path.abspath(os.path.expanduser(folder)))
    is_absent = (may_be_gone and not os.path.lexists(path)) or (
        may_come and not os.path.exists(path)
    )
    if not (is_checked or is_absent or os.path.isdir(path)):
        why = "is not a folder" if os.path.exists(path) else "does not exist"
        raise RootError(f"{folder!r} {why}: give the folder that holds the pictures.")
    # The name as it was given, also of a link; the folder it leads to.
    name = stored_path(path.name) if name is None else name
    path = path.resolve()
    if not name or "/" in name or name != name.strip() or not name.isprintable():
        raise RootError(f"{text!r} gives no usable name for the folder: write NAME=DIR.")
    if not (is_checked or is_absent or may_be_gone or os.access(path, os.R_OK | os.X_OK)):
        raise RootError(f"The folder {folder!r} may not be read by this user.")
    return Root(name, path)


def is_absent(root: Root) -> bool:
    """Return True if there is no folder; False also if its disk does not answer."""
    path = os.fspath(root.path)
    look = partial(is_there, path) if is_url(path) else partial(os.path.isdir, path)
    return not found_at(path, look, True)


def is_gone(root: Root) -> bool:
    """Return True if nothing is at a root's path; surely no bucket, if it is a URL."""
    return not (is_there(str(root.path)) if root.is_url else root.path.exists())


def _unanswered(text: str, *, may_come: bool, is_checked: bool) -> Root:
    """Return a root without a look at its folder, or raise RootError."""
    name, folder = _splits(text)[0]
    if is_url(folder):
        if not (may_come or is_checked):
            raise RootError(f"{folder} does not answer: check the network, or leave it out.")
        return url_root(text, name, folder, is_checked=True)
    path = _as_far_as_links_answer(os.path.abspath(os.path.expanduser(folder)))
    LOOKS.join(text, path)
    message = (
        f"The disk of {folder!r} does not answer: check it, or the share that is mounted there"
    )
    if not (may_come or is_checked):
        raise RootError(f"{message}, or leave this folder out.")
    if not is_checked:
        logger.warning("%s. Other folders go on; this one is watched when it answers.", message)
    given = stored_path(os.path.basename(os.path.abspath(folder)))
    return Root(given if name is None else name, Path(path))


def _as_far_as_links_answer(path: str) -> str:
    """Follow the links above a folder that hangs; they are on other disks."""
    reached = [path]

    def follow() -> bool:
        done, rest = "/", path.split("/")[1:]
        while rest:
            step = os.path.join(done, rest.pop(0))
            try:
                target = os.readlink(step)
            except OSError:
                done = step
            else:
                rest = [*os.path.normpath(os.path.join(done, target)).split("/")[1:], *rest]
                done = "/"
            reached[0] = os.path.join(done, *rest)
        return True

    found_at(f"links of {path}", follow, False)
    return reached[0]


def taken_apart(text: str) -> tuple[str | None, str]:
    """Return name and folder of `[NAME=]DIR`; both may have an equals sign in them.

    A folder that exists decides, an absolute one first, as messages give it; then what is absolute.
    """
    splits = _splits(text)
    if splits[0][0] is None or os.path.isdir(text):
        return None, text
    if is_url(splits[0][1]):
        return splits[0]
    for name, folder in splits:
        if folder and os.path.isdir(os.path.expanduser(folder)):
            return name, folder
    return splits[0]


def _splits(text: str) -> list[tuple[str | None, str]]:
    before = text.partition("/")[0]
    splits: list[tuple[str | None, str]] = [
        (text[:n], text[n + 1 :]) for n, letter in enumerate(before) if letter == "="
    ]
    splits.sort(key=lambda split: not split[1].startswith("/"))
    return splits or [(None, text)]


def overlap(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents
