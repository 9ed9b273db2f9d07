"""Everything for Kibana of one index, from the sources to saved objects."""

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
    Object,
    Types,
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


# The dashboard whose pictures follow whatever stands above it.
_GALLERY = "gallery"
# A gallery shows 60; a session shows as many as are fetched.
SAVED_HITS = 60


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """A query whose vector was made: `knn` is the body of a kNN query, its vector as stored."""

    title: str
    knn: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the objects are for: the index's alias, the service's address, the indices' mappings.

    `properties` are those of the data views by their sources' names.
    """

    index: str
    service: str
    properties: Mapping[str, Mapping[str, Any]]

    def identify(self, kind: str, name: str) -> str:
        """The id of the object of a kind of source and a name; unique within its type."""
        return object_id(self.index, f"data-{name}" if kind == "data_views" else name)


class Builder:
    """Builds from one set of sources.  Raises FileInvalid for what does not fit."""

    def __init__(self, target: Target, sources: Sources | None = None) -> None:
        values = {"index": target.index, "service": target.service.rstrip("/")}
        self.sources = load_sources(values) if sources is None else sources
        self._target = target
        self._types: dict[str, Types] = {
            name: field_types(target.properties[name], source.get("runtimeFieldMap"))
            for name, source in self.sources.of("data_views").items()
        }

    def everything(self, queries: Sequence[SavedQuery] = ()) -> list[Object]:
        """Every object, those that others refer to before them."""
        identify, sources = self._target.identify, self.sources
        objects = [
            data_view(identify("data_views", name), source)
            for name, source in sources.of("data_views").items()
        ]
        objects += [
            discover_session(identify("discover", name), source, self._view(source))
            for name, source in sources.of("discover").items()
        ]
        objects += [
            lens_panel(
                identify("lens", name),
                source,
                self._view(source),
                self._types[source["data_view"]],
            )
            for name, source in sources.of("lens").items()
        ]
        objects += [
            vega_panel(identify("vega", name), source)
            for name, source in sources.of("vega").items()
        ]
        objects += [self._dashboard(name) for name in sources.of("dashboards")]
        for query in queries:
            objects += self.saved_query(query)
        return objects

    def saved_query(self, query: SavedQuery) -> list[Object]:
        """A Discover session that shows the neighbours in their order, and a gallery of them.

        In the session they are the query (scored), above the gallery a pill (a filter, which has
        no scores): both may be combined with words and filters.
        """
        name = slug(query.title)
        source = {
            **self.sources.of("discover")[_GALLERY],
            "title": f"{self._target.index}: {query.title}",
            "description": f"The {SAVED_HITS} pictures nearest to “{query.title}”, best first.",
            "sort": [["_score", "desc"]],
            "timeRestore": True,
            "timeRange": self.sources.of("dashboards")[_GALLERY]["time"],
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
    ) -> Object:
        source = self.sources.of("dashboards")[name]
        if title is not None:
            source = {**source, "title": f"{self._target.index}: {title}"}
        others = {
            other: each["title"].removeprefix(f"{self._target.index}, ").capitalize()
            for other, each in self.sources.of("dashboards").items()
            if other != (as_name or name)
        }
        return dashboard(
            self._target.identify("dashboards", as_name or name),
            source,
            self._existing,
            others=others,
            lens_kinds={name: _lens_kind(each) for name, each in self.sources.of("lens").items()},
            filters=filters,
        )

    def _existing(self, kind: str, name: str) -> str:
        if name not in self.sources.of(kind):
            raise FileInvalid(
                f"A dashboard refers to {kind}/{name}, which is not there; there are"
                f" {', '.join(self.sources.of(kind))}."
            )
        return self._target.identify(kind, name)

    def _view(self, source: Mapping[str, Any]) -> str:
        return self._existing("data_views", source["data_view"])


def _lens_kind(source: Mapping[str, Any]) -> str:
    kinds = {"chart": "lnsXY", "pie": "lnsPie", "table": "lnsDatatable"}
    return next((kind for layout, kind in kinds.items() if layout in source), "lnsMetric")


# Everything for Kibana of one index, as its mappings and its encoder are.

Properties = Mapping[str, Mapping[str, Any]]


def builder_for(settings: Settings, properties: Mapping[str, Any] | None = None) -> Builder:
    """`properties` are those of the index's mapping; without them those a new index would get."""
    return Builder(
        Target(settings.index, settings.service_url, _by_data_view(properties or _expected()))
    )


def types_of(settings: Settings, properties: Mapping[str, Any] | None = None) -> dict[str, Types]:
    """Types of the fields of every index that data views are for, by its alias."""
    by_view = _by_data_view(properties or _expected())
    aliases = {
        "images": settings.index,
        "failures": failures_alias(settings.index),
        "searches": Companion.SEARCHES.alias(settings.index),
    }
    return {aliases[name]: field_types(each) for name, each in by_view.items()}


def index_of(objects: Sequence[Object]) -> str | None:
    """The index of pictures that these objects were built for; None if they do not tell."""
    views = [each.get("attributes") for each in objects if each["type"] == "index-pattern"]
    titles = {str(each.get("title")) for each in views if isinstance(each, Mapping)}
    found = [title for title in titles if failures_alias(title) in titles and "*" not in title]
    return found[0] if len(found) == 1 else None


def saved_query(
    client: ImageSearch, text: str | None, image: Path | None, title: str | None
) -> SavedQuery:
    """The neighbours of words, of a picture, or of what lies between both."""
    queries: list[str | Path] = [each for each in (text, image) if each is not None]
    if not queries:
        raise UsageError("Say what to look for: words, --image FILE, or both.")
    if title is None:
        title = text if image is None else " + ".join([*([text] if text else []), image.name])
    return SavedQuery(str(title), client.knn_query(queries, k=SAVED_HITS))


def ready_queries(client: ImageSearch, texts: Sequence[str]) -> list[SavedQuery]:
    """Those of the sources, where the index's encoder knows words."""
    if not client.info.meta.seal.supports_text:
        return []
    return [saved_query(client, text, None, None) for text in texts]


def _by_data_view(images: Mapping[str, Any]) -> Properties:
    return {
        "images": images,
        "failures": _properties("failures.json"),
        "searches": _properties("searches.json"),
    }


def _expected() -> Mapping[str, Any]:
    described: dict[str, Any] = {}
    for describer in load_describers():
        described |= describer.mapping
    return {**_properties("common.json"), **described, VECTOR_FIELD: {"type": "dense_vector"}}


def _properties(file_name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = load_json("mappings", file_name)["mappings"]["properties"]
    return found
