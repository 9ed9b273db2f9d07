"""Find the messages of the package that advise a command, an option or a setting."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import es_imgsearch

PACKAGE = Path(es_imgsearch.__file__).parent

# A command or option that somebody is to type, or a variable to set.
_ADVICE = re.compile(
    r"`?es-imgsearch [a-z]|run\s+`\{\}`|\{\}` (?:does|reads)|(?:^|[\s`(;])--[a-z][a-z-]+"
    r"|`(?:sync|init|codes|tune|reindex|verify|calibrate|failures|tags|describe)\b"
    r"|\bES_[A-Z_]+\b|\bpip install\b"
)

# Calls whose texts are no messages: declarations of options, and examples of the help.
_DECLARATIONS = {"option", "argument", "command", "examples", "group", "add_argument", "compile",
                 "debug", "Field", "version_option", "password_option"}  # fmt: skip


def advising_messages() -> dict[str, list[str]]:
    """Return the advising texts by place, as `module:Class.function`."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for place, text in _texts(ast.parse(path.read_text()), ""):
            if _ADVICE.search(text):
                found.setdefault(f"{module}:{place or '(module)'}", []).append(text)
    return found


def _texts(node: ast.AST, place: str) -> Iterator[tuple[str, str]]:
    """Yield the texts below a node that are no docstrings or declarations, with their places."""
    if isinstance(node, ast.JoinedStr):
        yield place, "".join(_piece(each) for each in node.values)
        return
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield place, node.value
        return
    if isinstance(node, ast.Call) and _name(node.func) in _DECLARATIONS:
        return
    inner = place
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        inner = f"{place}.{node.name}" if place else node.name
    for child in ast.iter_child_nodes(node):
        # A text that stands alone is a docstring.
        if not (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)):
            yield from _texts(child, inner)


def _piece(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "{}"


def _name(node: ast.AST) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))
