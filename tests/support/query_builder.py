"""Kibana's own query builder: the published copy in npm's @cybernetex/kbn-es-query (7.x)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from es_imgsearch.elastic.store import Store

Body = dict[str, Any]

_FOLDER = Path(__file__).resolve().parents[1] / "browser"
_PACKAGE = _FOLDER / "node_modules" / "@cybernetex" / "kbn-es-query" / "package.json"
_TYPES = {
    "keyword": "string",
    "text": "string",
    "date": "date",
    "boolean": "boolean",
    "geo_point": "geo_point",
    **dict.fromkeys(("long", "integer", "short", "byte", "float", "double"), "number"),
}


class QueryBuilder:
    """Ask the builder; raise AssertionError with its words if it refuses."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def build(
        self,
        view: Mapping[str, Any],
        *,
        queries: Sequence[Mapping[str, Any]] = (),
        filters: Sequence[Mapping[str, Any]] = (),
        chosen: Mapping[str, Sequence[Any]] | None = None,
        time: Mapping[str, str] | None = None,
    ) -> Body:
        """Build the query of a panel; `view` has `title` and `fields` as a data view has."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {
            "view": view,
            "queries": list(queries),
            "filters": list(filters),
            "chosen": chosen,
            "time": time,
        }
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, (answer["error"], queries, filters)
        query: Body = answer["query"]
        return query


@contextmanager
def open_query_builder() -> Iterator[QueryBuilder]:
    """Start the builder; the test is skipped if something is missing."""
    missing = []
    if (node := shutil.which("node")) is None:
        missing.append("node")
    if not _PACKAGE.is_file():
        missing.append("Kibana's query builder (`make browser`, which needs npm)")
    if node is None or missing:
        pytest.skip(f"Queries are built by Kibana's own builder; missing: {', '.join(missing)}")
    process = subprocess.Popen(
        [node, str(_FOLDER / "build_queries.js")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield QueryBuilder(process)
    finally:
        process.communicate(timeout=20)


def loaded_view(store: Store, view: Mapping[str, Any]) -> Body:
    """A data view with the fields that Kibana reads for it; none if the index is missing."""
    answer = store.connection.request(
        "GET", f"/{view['title']}/_field_caps?fields=*&ignore_unavailable=true"
    )
    fields = [
        {
            "name": name,
            "type": _TYPES.get(kind, "unknown"),
            "esTypes": [kind],
            "searchable": caps["searchable"],
            "aggregatable": caps["aggregatable"],
        }
        for name, kinds in answer["fields"].items()
        for kind, caps in kinds.items()
    ]
    fields += [
        {"name": name, "type": _TYPES[each["type"]], "esTypes": [each["type"]],
         "searchable": True, "aggregatable": True}
        for name, each in json.loads(view.get("runtimeFieldMap", "{}")).items()
    ]  # fmt: skip
    return {"title": view["title"], "fields": fields}
