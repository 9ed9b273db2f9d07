"""Refuse patterns that can match nothing, and say what to write instead."""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import PurePath

from es_imgsearch.errors import SettingsError
from es_imgsearch.records import composed

_BRACES = re.compile(r"(?<!\\)\{([^{}/]*(?:,|\.\.)[^{}/]*)\}")
_GLOB = re.compile(r"[*?\[\\]")
_ESCAPED_LETTER = re.compile(r"\\(?=\w)")
_BRACKET = re.compile(r"\[|\\.", re.DOTALL)
_CLASS = re.compile(r"\[:(\w*):\]")
_CLASSES = {
    "cntrl": "\\x00-\\x1f\\x7f",
    "graph": "!-~",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "digit": "0-9",
    "lower": "a-z",
    "upper": "A-Z",
    "alpha": "a-zA-Z",
    "alnum": "a-zA-Z0-9",
    "xdigit": "0-9a-fA-F",
    "space": "\\s",
    "blank": " \t",
}


def refuse(text: str, why: str, *instead: str) -> SettingsError:
    """Return the error for a pattern, with the patterns to give instead."""
    options = " ".join(f"--exclude {shlex.quote(each)}" for each in instead)
    advice = f": write {options} instead" if instead else ""
    return SettingsError(f"The exclude pattern {text!r} can match nothing, since {why}{advice}.")


def checked(text: str) -> str:
    """Return a pattern without its `!`.

    Raises SettingsError for one that no name can match, wherever the roots are.
    """
    sign, core = ("!", text[1:]) if text.startswith("!") else ("", text)
    if not core.strip("/") or core.isspace():
        raise SettingsError(
            f"The exclude pattern {text!r} cannot be used: give a name such as '*.psd', 'proofs/'"
            " or '2023/raw'."
        )
    if core.startswith("~/"):
        raise refuse(text, "a pattern is a path below the watched folder, never of a home folder")
    _check_components(text, sign, core)
    if braces := _BRACES.search(core):
        start, end = core[: braces.start()], core[braces.end() :]
        parts = braces[1].split(",")
        if len(parts) > 1 and not _BRACES.search(end):
            instead = [f"{sign}{start}{part}{end}" for part in parts]
        else:
            instead = []
        raise refuse(
            text,
            "a gitignore pattern has no {a,b} (a brace of a name is written \\{)",
            *instead,
        )
    if core.endswith("\\") and not core.endswith("\\\\"):
        raise refuse(text, "a backslash at the end escapes nothing", f"{sign}{core[:-1]}\\\\")
    if _ESCAPED_LETTER.search(core.replace("\\\\", "")):
        raise refuse(
            text,
            "a backslash escapes the next letter and separates no folders",
            sign + core.replace("\\", "/"),
        )
    try:
        without_brackets(core)
    except ValueError as error:
        instead = [sign + core.replace("[", r"\[")] if "]" not in core else []
        raise refuse(text, str(error), *instead) from None
    return core


def _check_components(text: str, sign: str, core: str) -> None:
    components = core.removesuffix("/").removeprefix("/").split("/")
    if ".." in components:
        raise _refuse_double_dots(text, sign, core)
    kept = [each for each in components if each not in {"", "."}]
    if len(kept) != len(components):
        start = "/" if core.startswith(("/", ".")) or len(kept) == 1 else ""
        end = "/" if core.endswith("/") else ""
        what = "'.'" if "." in components else "an empty name"
        instead = [f"{sign}{start}{'/'.join(kept)}{end}"] if kept else []
        raise refuse(text, f"no path of a file has {what} in it", *instead)


def _refuse_double_dots(text: str, sign: str, core: str) -> SettingsError:
    path = posixpath.normpath(core.strip("/"))
    if path.split("/")[0] == "..":
        return refuse(text, "'..' leads out of the watched folder")
    why = "no path of a file has '..' in it"
    if path == "." or _GLOB.search(core):
        return refuse(text, f"{why} (write it without '..')")
    start = "/" if core.startswith(("/", ".")) or "/" not in path else ""
    return refuse(text, why, f"{sign}{start}{path}{'/' if core.endswith('/') else ''}")


def without_brackets(core: str) -> tuple[str, dict[str, str]]:
    """Replace bracket expressions by placeholders; return their expressions, too.

    They never match a slash.  Raises ValueError with what is wrong with one.
    """
    found: dict[str, str] = {}
    position = 0
    while (match := _BRACKET.search(core, position)) is not None:
        if match[0] != "[":
            position = match.end()  # an escaped letter
            continue
        end, expression = _bracket(core, match.start())
        # Private letters, which no file system uses by itself.
        placeholder = chr(0xF0000 + len(found))
        found[placeholder] = f"(?!/){expression}"
        core = core[: match.start()] + placeholder + core[end:]
        position = match.start() + 1
    return core, found


def _bracket(core: str, start: int) -> tuple[int, str]:
    """Translate the bracket expression that begins at `start`; return its end as well."""
    position = start + 1
    negated = core[position : position + 1] in {"!", "^"}
    position += negated
    first, parts = position, []
    while core[position : position + 1] != "]" or position == first:
        if core[position : position + 1] in {"", "/"}:
            raise ValueError("its [ has no ] in the same name")
        if named := _CLASS.match(core, position):
            if named[1] not in _CLASSES:
                raise ValueError(f"it has the unknown class {named[0]}")
            parts.append(_CLASSES[named[1]])
            position = named.end()
            continue
        low, position = _letter(core, position)
        high = low
        if core[position : position + 1] == "-" and core[position + 1 : position + 2] not in {
            "]",
            "/",
            "",
        }:
            high, position = _letter(core, position + 1)
        if low > high:
            raise ValueError(f"it has a range from {low!r} down to {high!r}")
        parts.append(f"{re.escape(low)}-{re.escape(high)}")
    return position + 1, f"[{'^' * negated}{''.join(parts)}]"


def _letter(core: str, position: int) -> tuple[str, int]:
    """Return a letter of a bracket expression, perhaps escaped, and its end."""
    position += core[position] == "\\" and position + 1 < len(core)
    return core[position], position + 1


def below_root(core: str, root: PurePath) -> str | None:
    """Return an absolute pattern as one below the root; None if it leads elsewhere.

    The root's path is resolved, the pattern may lead there by links.
    """
    if not core.startswith("/"):
        return None
    components = core[1:].split("/")
    wanted = composed(os.fspath(root))
    for number in range(len(components)):
        start = "/" + "/".join(components[:number])
        for plain in {start, re.sub(r"\\(.)", r"\1", start)}:
            if wanted in {composed(plain), composed(os.path.realpath(plain))}:
                return "/" + "/".join(components[number:])
    return None


def check_absolute(text: str, core: str, roots: Sequence[PurePath]) -> None:
    """Raise SettingsError for an absolute path outside every root, or a root.

    A leading slash means the root, so a path counts as absolute only where its first folder is one
    of this machine and of no root.
    """
    path = composed(core.rstrip("/"))
    for root in (composed(os.fspath(each)) for each in roots):
        # A single name may well be one in the root.
        if root == path or (path.count("/") > 1 and root.startswith(f"{path}/")):
            raise refuse(text, f"it is the watched folder {root} itself, or above it")
    components = list(takewhile(lambda each: not _GLOB.search(each), core[1:].split("/")))
    if len(core.strip("/").split("/")) < 2 or not components:
        return
    if os.path.isdir(f"/{components[0]}") and not _is_in_any(components[0], roots):
        rest = core.strip("/").split("/")[-1]
        raise refuse(
            text,
            "it is no path below a watched folder, which is where a leading '/' begins: give the"
            f" path from there, such as '/{rest}', or a name at any depth, such as '{rest}'",
        )


def _is_in_any(name: str, roots: Iterable[PurePath]) -> bool:
    return any(os.path.lexists(os.path.join(root, name)) for root in roots)
