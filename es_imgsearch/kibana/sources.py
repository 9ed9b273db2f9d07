"""The readable files that saved objects are built from: the folder `kibana` of this package.

    data_views/NAME.yaml   discover/NAME.yaml   lens/NAME.yaml   vega/NAME.json
    dashboards/NAME.yaml   inlined/NAME.json   queries.yaml

`${index}` and `${service}` in them stand for the index's alias and the address of the service that
gives thumbnails, `${NAME}` for the text of `inlined/NAME.json`.
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
    """Every source by its kind and its file's name without suffix; the words of ready queries."""

    by_kind: Mapping[str, Mapping[str, Source]]
    queries: tuple[str, ...] = field(default=())

    def of(self, kind: str) -> Mapping[str, Source]:
        return self.by_kind[kind]


def load_sources(values: Mapping[str, str], root: Traversable | None = None) -> Sources:
    """All of them, placeholders filled in.

    Raises FileInvalid for a file that does not parse, is no mapping, or has a placeholder
    that is neither among `values` nor a file's.
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


def _inlined(at: Traversable) -> Mapping[str, str]:
    """Texts that would drown what people edit, by their files' names without suffix."""
    if not at.is_dir():
        return {}
    return {
        file.name.removesuffix(".json"): file.read_text(encoding="utf-8").strip()
        for file in at.iterdir()
        if file.name.endswith(".json")
    }


def _mapping(file: Traversable, values: Mapping[str, str]) -> Source:
    source = _parsed(file, values)
    if not isinstance(source, dict):
        raise FileInvalid(f"{file.name} has to be a mapping, as its neighbours are.")
    return source


def _parsed(file: Traversable, values: Mapping[str, str]) -> Any:
    try:
        # JSON is YAML, too.
        parsed = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise FileInvalid(f"{file.name} is not YAML: {' '.join(str(error).split())}") from error
    return filled(parsed, values, file.name)


def filled(value: Any, values: Mapping[str, str], where: str) -> Any:
    """The same value with its placeholders replaced; raises FileInvalid."""
    if isinstance(value, str):

        def of(match: re.Match[str]) -> str:
            if match[1] not in values:
                raise FileInvalid(
                    f"{where} has the placeholder {match[0]}; there are"
                    f" {', '.join(f'${{{name}}}' for name in values)}."
                )
            return values[match[1]]

        return _PLACEHOLDER.sub(of, value)
    if isinstance(value, list):
        return [filled(each, values, where) for each in value]
    if isinstance(value, dict):
        return {filled(k, values, where): filled(v, values, where) for k, v in value.items()}
    return value
