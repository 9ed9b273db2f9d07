"""Load the readable files in the folder `kibana`, sources of the saved objects.

The folder stands at the top of the checkout, and in the wheel as `kibana_objects`.

    data_views/NAME.yaml   discover/NAME.yaml   lens/NAME.yaml   vega/NAME.json
    dashboards/NAME.yaml   inlined/NAME.json   queries.yaml

Placeholders in them: `${index}` is the index's alias, `${service}` the address of the service that
serves thumbnails, `${taken}` the field with the date of taking, `${NAME}` the text of
`inlined/NAME.json`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from es_imgsearch.elastic.mapping import folder
from es_imgsearch.errors import FileInvalid

KINDS = ("data_views", "discover", "lens", "vega", "dashboards")
INLINED = "inlined"
QUERIES_FILE = "queries.yaml"

Source = Mapping[str, Any]

_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Sources:
    """Sources by kind and file name without suffix; texts of the saved queries."""

    by_kind: Mapping[str, Mapping[str, Source]]
    queries: tuple[str, ...] = field(default=())


def load_sources(values: Mapping[str, str], root: Traversable | None = None) -> Sources:
    """Load all sources and fill in their placeholders.

    Raises FileInvalid for a file that does not parse, is no mapping, or has an unknown placeholder.
    """
    root = folder("kibana") if root is None else root
    values = {**_inlined(root / INLINED), **values}
    by_kind = {}
    for kind in KINDS:
        files = sorted((root / kind).iterdir(), key=lambda each: each.name)
        by_kind[kind] = {
            file.name.rpartition(".")[0]: _mapping(file, values)
            for file in files
            if file.name.endswith((".yaml", ".json"))
        }
    queries = _parsed(root / QUERIES_FILE, values)
    if not isinstance(queries, list) or not all(isinstance(each, str) for each in queries):
        raise FileInvalid(f"{QUERIES_FILE} has to be a list of texts.")
    return Sources(by_kind, tuple(queries))


def _inlined(folder: Traversable) -> Mapping[str, str]:
    """Load the long texts that edited files include, by name without suffix."""
    if not folder.is_dir():
        return {}
    return {
        file.name.removesuffix(".json"): file.read_text(encoding="utf-8").strip()
        for file in folder.iterdir()
        if file.name.endswith(".json")
    }


def _mapping(file: Traversable, values: Mapping[str, str]) -> Source:
    source = _parsed(file, values)
    if not isinstance(source, dict):
        raise FileInvalid(
            f"{file.name} has to be a mapping: compare it with the other files of its folder."
        )
    return source


def _parsed(file: Traversable, values: Mapping[str, str]) -> Any:
    try:
        # JSON is valid YAML.
        parsed = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise FileInvalid(f"{file.name} is not YAML: {' '.join(str(error).split())}") from error
    return fill_placeholders(parsed, values, file.name)


def fill_placeholders(value: Any, values: Mapping[str, str], where: str) -> Any:
    """Replace the placeholders in a value; raise FileInvalid for unknown ones."""
    if isinstance(value, str):

        def replacement(match: re.Match[str]) -> str:
            if match[1] not in values:
                raise FileInvalid(
                    f"{where} has the placeholder {match[0]}; there are"
                    f" {', '.join(f'${{{name}}}' for name in values)}."
                )
            return values[match[1]]

        return _PLACEHOLDER.sub(replacement, value)
    if isinstance(value, list):
        return [fill_placeholders(each, values, where) for each in value]
    if isinstance(value, dict):
        return {
            fill_placeholders(k, values, where): fill_placeholders(v, values, where)
            for k, v in value.items()
        }
    return value
