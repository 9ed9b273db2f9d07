"""Build every saved object of one index from the readable sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es_imgsearch.describe.registry import load_describers
from es_imgsearch.elastic.mapping import VECTOR_FIELD, Companion, load_json
from es_imgsearch.elastic.naming import failures_alias
from es_imgsearch.errors import FileInvalid, UsageError
from es_imgsearch.kibana.dashboards import dashboard
from es_imgsearch.kibana.lens import lens_panel
from es_imgsearch.kibana.objects import (
    FieldTypes,
    SavedObject,
    data_view,
    discover_session,
    field_types,
    object_id,
    slug,
    vega_panel,
)
from es_imgsearch.kibana.sources import Sources, load_sources
from es_imgsearch.settings import Settings

if TYPE_CHECKING:
    from es_imgsearch.search.client import ImageSearch


# This dashboard shows the pictures that its query and filters select.
_GALLERY = "gallery"
# The gallery shows 60 pictures; a session shows all hits of its query.
SAVED_HITS = 60


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """Named vector query; `knn` is the body of a kNN query with its vector."""

    title: str
    knn: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Target:
    """Index alias, service address and mappings that the objects are built for.

    `properties` are the mapped fields by the data view's source name.
    """

    index: str
    service: str
    properties: Mapping[str, Mapping[str, Any]]

    def identify(self, kind: str, name: str) -> str:
        """Derive the object id from kind and name of a source; unique within its type."""
        return object_id(self.index, f"data-{name}" if kind == "data_views" else name)


class SavedObjectBuilder:
    """Build saved objects from one set of sources; raise FileInvalid for misfits."""

    def __init__(self, target: Target, sources: Sources | None = None) -> None:
        values = {"index": target.index, "service": target.service.rstrip("/")}
        self.sources = load_sources(values) if sources is None else sources
        self._target = target
        self._types: dict[str, FieldTypes] = {
            name: field_types(target.properties[name], source.get("runtimeFieldMap"))
            for name, source in self.sources.by_kind["data_views"].items()
        }

    def build_all(self, queries: Sequence[SavedQuery] = ()) -> list[SavedObject]:
        """Build all objects; an object follows those that it refers to."""
        identify, sources = self._target.identify, self.sources
        objects = [
            data_view(identify("data_views", name), source)
            for name, source in sources.by_kind["data_views"].items()
        ]
        objects += [
            discover_session(identify("discover", name), source, self._view(source))
            for name, source in sources.by_kind["discover"].items()
        ]
        objects += [
            lens_panel(
                identify("lens", name),
                source,
                self._view(source),
                self._types[source["data_view"]],
            )
            for name, source in sources.by_kind["lens"].items()
        ]
        objects += [
            vega_panel(identify("vega", name), source)
            for name, source in sources.by_kind["vega"].items()
        ]
        objects += [self._dashboard(name) for name in sources.by_kind["dashboards"]]
        for query in queries:
            objects += self.build_query(query)
        return objects

    def build_query(self, query: SavedQuery) -> list[SavedObject]:
        """Build a Discover session with the neighbours in order, and a gallery of them.

        The session has them as its query, which scores; the gallery as a filter pill, which does
        not.  Both may be combined with words and filters.
        """
        name = slug(query.title)
        source = {
            **self.sources.by_kind["discover"][_GALLERY],
            "title": f"{self._target.index}: {query.title}",
            "description": f"The {SAVED_HITS} pictures nearest to “{query.title}”, best first.",
            "sort": [["_score", "desc"]],
            "timeRestore": True,
            "timeRange": self.sources.by_kind["dashboards"][_GALLERY]["time"],
        }
        session = discover_session(
            self._target.identify("discover", f"nearest-{name}"),
            source,
            self._view(source),
            {"language": "lucene", "query": {"knn": query.knn}},
        )
        pill = {"title": query.title, "query": {"knn": query.knn}}
        return [session, self._dashboard(_GALLERY, f"nearest-{name}", query.title, [pill])]

    def _dashboard(
        self,
        name: str,
        as_name: str | None = None,
        title: str | None = None,
        filters: Sequence[Mapping[str, Any]] = (),
    ) -> SavedObject:
        source = self.sources.by_kind["dashboards"][name]
        if title is not None:
            source = {**source, "title": f"{self._target.index}: {title}"}
        others = {
            other: each["title"].removeprefix(f"{self._target.index}, ").capitalize()
            for other, each in self.sources.by_kind["dashboards"].items()
            if other != (as_name or name)
        }
        return dashboard(
            self._target.identify("dashboards", as_name or name),
            source,
            self._existing,
            others=others,
            lens_kinds={
                name: _lens_kind(each) for name, each in self.sources.by_kind["lens"].items()
            },
            filters=filters,
        )

    def _existing(self, kind: str, name: str) -> str:
        if name not in self.sources.by_kind[kind]:
            raise FileInvalid(
                f"A dashboard refers to {kind}/{name}, which does not exist; choose one of"
                f" {', '.join(self.sources.by_kind[kind])}."
            )
        return self._target.identify(kind, name)

    def _view(self, source: Mapping[str, Any]) -> str:
        return self._existing("data_views", source["data_view"])


def _lens_kind(source: Mapping[str, Any]) -> str:
    kinds = {"chart": "lnsXY", "pie": "lnsPie", "table": "lnsDatatable"}
    return next((kind for layout, kind in kinds.items() if layout in source), "lnsMetric")


Properties = Mapping[str, Mapping[str, Any]]


def create_builder(
    settings: Settings, properties: Mapping[str, Any] | None = None
) -> SavedObjectBuilder:
    """Create a builder for an index's mapped fields, by default those of a new index."""
    return SavedObjectBuilder(
        Target(
            settings.index,
            settings.service_url,
            _by_data_view(properties or _new_index_properties()),
        )
    )


def index_field_types(
    settings: Settings, properties: Mapping[str, Any] | None = None
) -> dict[str, FieldTypes]:
    """Map the alias of each index with a data view to the types of its fields."""
    by_view = _by_data_view(properties or _new_index_properties())
    aliases = {
        "images": settings.index,
        "failures": failures_alias(settings.index),
        "searches": Companion.SEARCHES.alias(settings.index),
    }
    return {aliases[name]: field_types(each) for name, each in by_view.items()}


def detect_index(objects: Sequence[SavedObject]) -> str | None:
    """Detect which index of pictures the objects were built for; None if unclear."""
    views = [each.get("attributes") for each in objects if each["type"] == "index-pattern"]
    titles = {str(each.get("title")) for each in views if isinstance(each, Mapping)}
    indices = [title for title in titles if failures_alias(title) in titles and "*" not in title]
    return indices[0] if len(indices) == 1 else None


def vectorise_query(
    client: ImageSearch, text: str | None, image: Path | None, title: str | None
) -> SavedQuery:
    """Make the vector query for words, a picture, or the mean of both."""
    queries: list[str | Path] = [each for each in (text, image) if each is not None]
    if not queries:
        raise UsageError("There is nothing to search for: give words, --image FILE, or both.")
    if title is None:
        title = text if image is None else " + ".join([*([text] if text else []), image.name])
    return SavedQuery(str(title), client.knn_query(queries, k=SAVED_HITS))


def vectorise_queries(client: ImageSearch, texts: Sequence[str]) -> list[SavedQuery]:
    """Make the vector queries of the sources; none if the encoder embeds no text."""
    if not client.info.meta.seal.supports_text:
        return []
    return [vectorise_query(client, text, None, None) for text in texts]


def _by_data_view(images: Mapping[str, Any]) -> Properties:
    return {
        "images": images,
        "failures": _properties("failures.json"),
        "searches": _properties("searches.json"),
    }


def _new_index_properties() -> Mapping[str, Any]:
    described: dict[str, Any] = {}
    for describer in load_describers():
        described |= describer.mapping
    return {**_properties("common.json"), **described, VECTOR_FIELD: {"type": "dense_vector"}}


def _properties(file_name: str) -> Mapping[str, Any]:
    properties: Mapping[str, Any] = load_json("mappings", file_name)["mappings"]["properties"]
    return properties
