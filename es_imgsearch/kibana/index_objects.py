"""Everything for Kibana of one index, as its mappings and its encoder are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es_imgsearch.describe import load_describers
from es_imgsearch.errors import UsageError
from es_imgsearch.generations import failures_alias
from es_imgsearch.kibana.build import SAVED_HITS, Builder, SavedQuery, Target
from es_imgsearch.kibana.fields import Types, field_types
from es_imgsearch.kibana.objects import Object
from es_imgsearch.mapping import VECTOR_FIELD, searches_alias
from es_imgsearch.resources import load_json
from es_imgsearch.settings import Settings

if TYPE_CHECKING:
    from es_imgsearch.search import ImageSearch

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
        "searches": searches_alias(settings.index),
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
