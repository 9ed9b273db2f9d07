"""Build every saved object of one index from the readable sources."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es_imgsearch.describe.registry import load_describers
from es_imgsearch.elastic.mapping import VECTOR_FIELD, Companion, load_json
from es_imgsearch.elastic.naming import failures_alias
from es_imgsearch.errors import FileInvalid, StoreDenied, UsageError
from es_imgsearch.kibana.dashboards import dashboard, lens_config
from es_imgsearch.kibana.fields import FieldTypes, field_types
from es_imgsearch.kibana.lens import lens_panel
from es_imgsearch.kibana.nearest import (
    SavedQuery,
    dashboard_source,
    session_source,
    vega_source,
)
from es_imgsearch.kibana.objects import (
    SavedObject,
    data_view,
    discover_session,
    object_id,
    saved_query,
    tag,
    tagged,
    vega_panel,
)
from es_imgsearch.kibana.sources import Source, Sources, load_sources
from es_imgsearch.settings import Settings

if TYPE_CHECKING:
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.search.client import ImageSearch


# This dashboard shows the pictures that its query and filters select.
_GALLERY = "gallery"
# The data view of an index that exists only with log_searches.
_SEARCHES = "searches"
# The gallery shows 60 pictures, and so many a session of saved searches.
SAVED_HITS = 60
# Pictures that are more likely wrong by 9 to 1 are left out of a saved search.
MIN_RELEVANCE = 0.1
_TAG = "tag"
# The camera's own date and time, or the moment, where an index has no field for the first yet.
_TAKEN = ("taken_local", "taken_at")


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
        own = target.properties["images"]
        values = {
            "index": target.index,
            "service": target.service.rstrip("/"),
            "taken": next((name for name in _TAKEN if name in own), _TAKEN[-1]),
        }
        self.sources = load_sources(values) if sources is None else sources
        self._target = target
        self._types: dict[str, FieldTypes] = {
            name: field_types(target.properties[name], source.get("runtimeFieldMap"))
            for name, source in self.sources.by_kind["data_views"].items()
        }

    def without_searches(self) -> SavedObjectBuilder:
        """Return a builder that leaves out all that shows the log of searches."""
        kept = {
            kind: {
                name: source
                for name, source in sources.items()
                if _SEARCHES not in {source.get("data_view"), name if kind == "data_views" else ""}
            }
            for kind, sources in self.sources.by_kind.items()
        }
        return SavedObjectBuilder(self._target, Sources(kept, self.sources.queries))

    def build_all(self, queries: Sequence[SavedQuery] = ()) -> list[SavedObject]:
        """Build all objects; an object follows those that it refers to."""
        identify, sources = self._target.identify, self.sources
        nearest = {query.name: query.title for query in queries}
        index = self._target.index
        objects = [tag(identify("tags", _TAG), f"es-imgsearch {index}", f"Pictures in {index}.")]
        objects += [
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
        objects += [
            self._dashboard(name, source, nearest)
            for name, source in sources.by_kind["dashboards"].items()
        ]
        for query in queries:
            objects += self.build_query(query, nearest)
        return self._tagged(objects)

    def build_query(
        self, query: SavedQuery, nearest: Mapping[str, str] | None = None
    ) -> list[SavedObject]:
        """Build a saved search: query, Discover session, Vega gallery, dashboard.

        All have the neighbours in order and may be combined with words and filters.  `nearest` are
        the titles of all saved searches by name, to link to.
        """
        gallery = {kind: self.sources.by_kind[kind][_GALLERY] for kind in ("discover", "vega")}
        board = self.sources.by_kind["dashboards"][_GALLERY]
        name, title = query.name, f"{self._target.index}: {query.title}"
        session = session_source(gallery["discover"], title, query)
        lucene = {"language": "lucene", "query": {"knn": query.knn}}
        time_field = self.sources.by_kind["data_views"][board["data_view"]]["timeFieldName"]
        objects = [
            saved_query(
                self._target.identify("queries", name),
                title,
                session["description"],
                lucene["query"],
            ),
            discover_session(
                self._target.identify("discover", name), session, self._view(session), lucene
            ),
            vega_panel(
                self._target.identify("vega", name),
                vega_source(gallery["vega"], time_field, title, query),
            ),
            self._dashboard(
                name, dashboard_source(board, _GALLERY, title, query), nearest or {}, query
            ),
        ]
        return objects if nearest is not None else self._tagged(objects)

    def _dashboard(
        self,
        name: str,
        source: Source,
        nearest: Mapping[str, str],
        query: SavedQuery | None = None,
    ) -> SavedObject:
        links = {
            each: other["title"].removeprefix(f"{self._target.index}, ").capitalize()
            for each, other in self.sources.by_kind["dashboards"].items()
        }
        if query is not None and query.name not in nearest:
            links[query.name] = query.title

        def identify(kind: str, content: str) -> str:
            is_own = content in nearest or (query is not None and content == query.name)
            return self._target.identify(kind, content) if is_own else self._existing(kind, content)

        return dashboard(
            self._target.identify("dashboards", name),
            source,
            identify,
            links=links,
            nearest=nearest,
            lens_configs={
                each: lens_config(_lens_kind(panel), panel.get("time"))
                for each, panel in self.sources.by_kind["lens"].items()
            },
        )

    def _tagged(self, objects: Sequence[SavedObject]) -> list[SavedObject]:
        tag_id = self._target.identify("tags", _TAG)
        return [tagged(each, tag_id) for each in objects]

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


def existing_indices(store: Store) -> set[str]:
    """List which of the aliases with a data view there are."""
    found = {store.index, failures_alias(store.index)}
    if has_searches(store, default=True):
        found.add(Companion.SEARCHES.alias(store.index))
    return found


def has_searches(store: Store, *, default: bool) -> bool:
    """Tell whether there is a log of searches; the default if that is denied."""
    try:
        return store.companions.exists(Companion.SEARCHES)
    except StoreDenied:
        return default


def is_addition(objects: Sequence[SavedObject]) -> bool:
    """Tell whether the objects are those of a saved search alone."""
    return not any(each["type"] in {"index-pattern", "tag"} for each in objects)


def detect_index(objects: Sequence[SavedObject]) -> str | None:
    """Detect which index of pictures the objects were built for; None if unclear."""
    if is_addition(objects):
        return _index_of_addition(objects)
    views = [each.get("attributes") for each in objects if each["type"] == "index-pattern"]
    titles = {str(each.get("title")) for each in views if isinstance(each, Mapping)}
    indices = [title for title in titles if failures_alias(title) in titles and "*" not in title]
    return indices[0] if len(indices) == 1 else None


def _index_of_addition(objects: Sequence[SavedObject]) -> str | None:
    wanted = re.compile(re.escape(object_id("|", "data-images")).replace(r"\|", "(.+)"))
    ids = {
        to["id"]
        for each in objects
        for to in each.get("references", [])
        if to["type"] == "index-pattern"
    }
    found = {match[1] for each in ids if (match := wanted.fullmatch(each))}
    return found.pop() if len(found) == 1 else None


def vectorise_query(
    client: ImageSearch,
    text: str | None,
    image: Path | None,
    title: str | None,
    min_relevance: float = MIN_RELEVANCE,
) -> SavedQuery:
    """Make the vector query for words, a picture, or the mean of both."""
    queries: list[str | Path] = [each for each in (text, image) if each is not None]
    if not queries:
        raise UsageError("There is nothing to search for: give words, --image FILE, or both.")
    if title is None:
        title = text if image is None else " + ".join([*([text] if text else []), image.name])
    knn = client.knn_query(queries, k=SAVED_HITS, min_relevance=min_relevance)
    return SavedQuery(str(title), knn)


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
