"""The house stays one that can be walked through: sizes, ranks and names of the package."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

from tests.support import CHECKOUT

PACKAGE = CHECKOUT / "es_imgsearch"
# Not counted: every package has the first, and the second is empty.
UNCOUNTED = {"__init__.py", "py.typed"}


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "es_imgsearch"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [CHECKOUT / line for line in listed.stdout.splitlines() if (CHECKOUT / line).exists()]


def entries() -> dict[Path, set[str]]:
    """What each folder of the package holds."""
    found: dict[Path, set[str]] = {}
    for path in tracked():
        for child in (path, *path.parents):
            if child == PACKAGE:
                break
            found.setdefault(child.parent, set()).add(child.name)
    return {folder: names - UNCOUNTED for folder, names in found.items()}


def modules() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".py"]


def test_the_package_has_21_entries_and_no_folder_more_than_20():
    found = entries()
    assert len(found.pop(PACKAGE)) <= 21
    assert {folder: len(names) for folder, names in found.items() if len(names) > 20} == {}


def test_no_folder_is_only_a_shell_for_another():
    assert [folder for folder, names in entries().items() if len(names) < 2] == []


def test_no_module_is_longer_than_350_lines():
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in modules()}
    assert {path: lines for path, lines in lengths.items() if lines > 350} == {}


def test_the_package_has_at_most_12_import_ranks_and_counts_imports_for_types():
    linter = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    assert linter["exclude_type_checking_imports"] is False
    (ranks,) = [each["layers"] for each in linter["contracts"] if each["type"] == "layers"]
    assert len(ranks) <= 12


def test_no_two_classes_share_a_name():
    names = Counter(
        node.name
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_every_docstring_begins_with_a_line_of_at_most_80_characters():
    long = [
        f"{path.relative_to(CHECKOUT)}:{getattr(node, 'name', 'module')}: {first}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and len(first := (ast.get_docstring(node) or "").split("\n")[0]) > 80
    ]
    assert long == []
