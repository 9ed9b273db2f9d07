"""The parameter `filter_path`: reduce an answer to the parts that it names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, TypeAlias

_Paths: TypeAlias = tuple[tuple[str, ...], ...]
_NOTHING: Any = object()


@lru_cache(maxsize=256)
def _parsed(paths: str) -> _Paths:
    if "**" in paths or "-" in {each[:1] for each in paths.split(",")}:
        raise NotImplementedError(f"filter_path={paths}")
    return tuple(tuple(each.split(".")) for each in paths.split(","))


def filtered(value: Any, paths: str) -> Any:
    """Keep the parts that `paths` (comma-separated, with wildcards) name."""
    kept = _filtered(value, _parsed(paths))
    return {} if kept is _NOTHING else kept


def _filtered(value: Any, paths: _Paths) -> Any:
    if isinstance(value, dict):
        kept = {}
        for key, inner in value.items():
            rest = tuple(each[1:] for each in paths if _matches(key, each[0]))
            if not rest:
                continue
            part = inner if () in rest else _filtered(inner, rest)
            if part is not _NOTHING:
                kept[key] = part
        return kept or _NOTHING
    if isinstance(value, list):
        parts = [_filtered(each, paths) for each in value]
        return [each for each in parts if each is not _NOTHING] or _NOTHING
    return _NOTHING


def _matches(key: str, pattern: str) -> bool:
    return key == pattern or pattern == "*" or ("*" in pattern and fnmatchcase(key, pattern))
