"""A package that is imported anew by one test, and is for others what it was."""

from __future__ import annotations

import sys

import pytest


def import_anew(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Forget the package and its modules until the test ends.

    The package's name in its parent is put back as well: `sys.modules` alone would leave the half
    that this test imports there, and `monkeypatch.setattr("package.module.name", …)` of a later
    test would look into that.
    """
    parent, _, name = package.rpartition(".")
    if parent and hasattr(sys.modules.get(parent), name):
        monkeypatch.setattr(sys.modules[parent], name, getattr(sys.modules[parent], name))
    for each in [each for each in sys.modules if f"{each}.".startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, each)
