"""Check whether Kibana would import, open and rightly show saved objects.

Kibana's import checks only versions, attributes, and references to data views and sessions: it
imports a dashboard that refers to a missing panel, and then cannot open it.  So this checks
everything: shapes (`kibana/schemas`), versions, references in both directions, the grid, JSON
within JSON, the type of every field, and faults with which a panel opens and shows nothing or
something wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from es_imgsearch.errors import FileInvalid
from es_imgsearch.kibana.check_context import Context, References, references_of, schema_problems
from es_imgsearch.kibana.check_dashboards import dashboard_problems, unreached_problems
from es_imgsearch.kibana.check_lens import lens_problems
from es_imgsearch.kibana.check_queries import (
    data_view_problems,
    saved_query_problems,
    session_problems,
    tag_problems,
    vega_problems,
)
from es_imgsearch.kibana.fields import FieldTypes
from es_imgsearch.kibana.objects import (
    CORE_VERSION,
    TAGGED,
    TYPE_VERSIONS,
    SavedObject,
    reference_names,
)

_CHECKS: Final[Mapping[str, Callable[[SavedObject, References, Context], Iterator[str]]]] = {
    "index-pattern": data_view_problems,
    "search": session_problems,
    "lens": lens_problems,
    "visualization": vega_problems,
    "dashboard": dashboard_problems,
    "query": saved_query_problems,
    "tag": tag_problems,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Defect of one object; `where` is its type/id."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def parse_ndjson(content: bytes) -> list[SavedObject]:
    """Parse the objects of a file without its summary line; raise FileInvalid."""
    objects = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise FileInvalid(f"Line {number} is not JSON: {error}.") from error
        if not isinstance(value, dict):
            raise FileInvalid(f"Line {number} is not an object.")
        if "exportedCount" in value:
            continue
        if not all(isinstance(value.get(name), str) for name in ("type", "id")):
            raise FileInvalid(f"Line {number} has no type and id of a saved object.")
        objects.append(value)
    if not objects:
        raise FileInvalid("The file holds no saved objects.")
    return objects


def find_problems(
    objects: Sequence[SavedObject],
    types: Mapping[str, FieldTypes] | None = None,
    *,
    known: Sequence[SavedObject] = (),
    indices: Collection[str] | None = None,
) -> list[Problem]:
    """List the defects of saved objects.

    `types` are the fields' types of each index by its alias; without them fields are not checked.
    References may lead to the `known` objects as well, which Kibana has already.  `indices` are the
    names of what is in Elasticsearch; without them a missing index is not noticed.
    """
    return list(_problems(objects, types or {}, known, indices))


def _problems(
    objects: Sequence[SavedObject],
    types: Mapping[str, FieldTypes],
    known: Sequence[SavedObject],
    indices: Collection[str] | None,
) -> Iterator[Problem]:
    keys = [(each["type"], each["id"]) for each in objects]
    by_key = {(each["type"], each["id"]): each for each in (*known, *objects)}
    context = Context(by_key, types, indices)
    for (kind, identifier), count in Counter(keys).items():
        if count > 1:
            yield Problem(f"{kind}/{identifier}", f"the file has it {count} times")
    has_tags = any(each["type"] == "tag" for each in objects)
    for each in objects:
        where = f"{each['type']}/{each['id']}"
        try:
            for what in _object_problems(each, context, has_tags=has_tags):
                yield Problem(where, what)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            # A defect that the schema has reported already, or JSON that does not parse.
            yield Problem(where, f"it cannot be read further ({type(error).__name__}: {error})")
    dashboards = [each for each in objects if each["type"] == "dashboard"]
    for each, what in unreached_problems(dashboards):
        yield Problem(f"dashboard/{each['id']}", what)


def _object_problems(each: SavedObject, context: Context, *, has_tags: bool) -> Iterator[str]:
    kind = each["type"]
    if kind not in TYPE_VERSIONS:
        yield f"the type {kind!r} is none of {', '.join(TYPE_VERSIONS)}"
        return
    yield from _version_problems(each)
    yield from schema_problems(kind, each["attributes"])
    references = references_of(each)
    if len(references) < len(each["references"]):
        yield "two references have the same name"
    used = set(reference_names(each))
    for name in sorted(used - references.keys()):
        yield f"it uses the reference {name!r}, which it does not have"
    for name in sorted(references.keys() - used):
        yield f"it has the reference {name!r}, which it does not use"
    for name, target in references.items():
        if (target["type"], target["id"]) not in context.by_key:
            missing = f"{target['type']}/{target['id']}"
            yield f"the reference {name!r} leads to {missing}, which the file does not have"
    if has_tags and kind in TAGGED and not any(to["type"] == "tag" for to in references.values()):
        yield "it has none of the file's tags"
    yield from _CHECKS[kind](each, references, context)


def _version_problems(each: SavedObject) -> Iterator[str]:
    for name, lowest in (
        ("coreMigrationVersion", CORE_VERSION),
        ("typeMigrationVersion", TYPE_VERSIONS[each["type"]]),
    ):
        version = each.get(name)
        if version is None:
            yield f"it has no {name}, so that Kibana would run every migration since 6.0 on it"
        elif _parts(version) > _parts(lowest):
            yield (
                f"its {name} {version} is newer than {lowest}, which has all that it uses: an"
                " older Kibana refuses it"
            )


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
