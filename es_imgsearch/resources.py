"""The JSON that ships with the package: mappings and Kibana objects."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

# In the wheel both folders lie inside the package; in a checkout they stand beside it, where
# people look for them.
_FOLDERS = {"mappings": "mappings", "kibana": "kibana_objects"}


def folder(name: str) -> Traversable:
    """The folder `mappings` or `kibana`, wherever this installation keeps it."""
    packaged = resources.files("es_imgsearch") / _FOLDERS[name]
    if packaged.is_dir():
        return packaged
    return Path(__file__).resolve().parent.parent / name


@cache
def _text(folder_name: str, file_name: str) -> str:
    return (folder(folder_name) / file_name).read_text(encoding="utf-8")


def load_json(folder_name: str, file_name: str) -> Any:
    """A fresh copy of the parsed file; callers may change it."""
    return json.loads(_text(folder_name, file_name))
