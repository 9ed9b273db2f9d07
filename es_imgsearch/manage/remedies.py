"""Say what each kind of difference means, and which command ends it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from es_imgsearch.elastic.store import Store
from es_imgsearch.records import Root
from es_imgsearch.settings import Settings
from es_imgsearch.watch.commands import command_line, given, walk_options
from es_imgsearch.write.deletion_history import SHARE_COUNTS_FROM

_SYNC = ("sync", "ROOT", "EXCLUDES")
_SYNC_CONTENT = ("sync", "ROOT", "EXCLUDES", "--content")

# Difference: what it means, what to do first, the command.
_KINDS: dict[str, tuple[str, str, Sequence[str]]] = {
    "missing": ("pictures that the index lacks", "", _SYNC),
    "changed": ("files that changed since they were indexed", "", _SYNC),
    "gone": ("documents whose file is not in the folder", "", _SYNC),
    "two states": ("paths with both a document and a failure", "", _SYNC),
    "other content": (
        "files with other bytes than indexed, at the same size and time",
        "",
        _SYNC_CONTENT,
    ),
    "unknown": (
        "files or folders that cannot be read; the index keeps their documents",
        "make them readable (bring back the targets of links), then run",
        _SYNC,
    ),
    "not mounted": (
        "folders whose file system is not mounted; the index keeps its documents",
        "mount it again, or, if it is gone for good, run",
        ("sync", "ROOT", "EXCLUDES", "--allow-deletes"),
    ),
    "readable now": ("failures whose file can be read now", "", ("failures", "retry")),
    "other encoder": (
        "sampled pictures whose vector another encoder made",
        "there may be more: run",
        _SYNC_CONTENT,
    ),
    "without vector": ("documents that no search finds", "", _SYNC_CONTENT),
    "without regions": ("pictures that no crop finds", "", _SYNC_CONTENT),
    "without code": ("pictures without a binary code", "", ("codes", "apply")),
    "unregistered root": (
        "roots that the index does not know and no daemon compares",
        "with the root's folder as DIR (an empty one to delete them), run",
        ("sync", "NAME=DIR", "--allow-deletes"),
    ),
    "folder unavailable": (
        "roots whose folder is not there or cannot be listed; the index keeps their documents",
        "mount it, or, if it is gone for good, run",
        ("sync", "ROOT", "--allow-deletes"),
    ),
}


def meaning(what: str, number: int) -> str:
    """Describe this many differences of a kind: "1 document whose file is gone"."""
    things, rest = re.split(r"(?= (?:that|whose|with|without) )", _KINDS[what][0], maxsplit=1)
    if number == 1:
        things = re.sub(r"s\b", "", things)
    return f"{number:,} {things}{rest}"


def first_step(what: str) -> str:
    """Say what has to be done before the command of `remedy`; empty for nothing."""
    return _KINDS[what][1]


def pausing_roots(
    store: Store, found: Sequence[tuple[str, str]], max_delete_share: float
) -> set[str]:
    """Return the roots whose deletions pause if all that is gone goes from the index.

    `found` are the difference and the root of each path.
    """
    gone = Counter(root for what, root in found if what == "gone")
    pausing = set()
    for root, number in gone.items():
        held = store.listings.count(root)
        is_share = held >= SHARE_COUNTS_FROM and number > max_delete_share * held
        if is_share or number == held:
            pausing.add(root)
    return pausing


def remedy(
    what: str,
    root_name: str,
    roots: Sequence[Root],
    settings: Settings,
    pausing: Collection[str] = (),
) -> str:
    """Return the command line that ends this difference, for a shell.

    `pausing` are the roots of `pausing_roots`: there deletions have to be permitted.
    """
    command: list[str] = []
    given_roots: list[str] = []
    options: list[str] = []
    if what == "gone" and root_name in pausing:
        options.append("--allow-deletes")
    for word in _KINDS[what][2]:
        match word:
            case "ROOT":
                given_roots.append(next(given(root) for root in roots if root.name == root_name))
            case "NAME=DIR":
                given_roots.append(f"{root_name}=DIR")
            case "EXCLUDES":
                options += walk_options(settings)
            case _ if word.startswith("-"):
                options.append(word)
            case _:
                command.append(word)
    return _command(command, given_roots, options, settings)


def verify_content(roots: Sequence[Root], settings: Settings) -> str:
    """Return the command line that compares what is in the files, too."""
    options = [*walk_options(settings), "--content"]
    return _command(["verify"], [given(root) for root in roots], options, settings)


def _command(
    command: Sequence[str], roots: Sequence[str], options: Sequence[str], settings: Settings
) -> str:
    index = type(settings).model_fields["index"].default
    of_index = [] if settings.index == index else ["--index", settings.index]
    return command_line(command, roots, [*options, *of_index])
