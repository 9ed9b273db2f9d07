"""Build the sources of a saved search by meaning: session, gallery, dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from es_imgsearch.kibana.objects import slug
from es_imgsearch.kibana.sources import Source


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """Named vector query; `knn` is the body of a kNN query with its vector."""

    title: str
    knn: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """The part of its objects' ids."""
        return f"nearest-{slug(self.title)}"


def session_source(gallery: Source, title: str, query: SavedQuery) -> Source:
    """The Discover session of the gallery with the neighbours in order."""
    return {
        **gallery,
        "title": title,
        "description": f"The pictures nearest to “{query.title}”, best first.",
        "sort": [["_score", "desc"]],
    }


def vega_source(gallery: Source, time_field: str, title: str, query: SavedQuery) -> Source:
    """The Vega gallery with the neighbours in order.

    The dashboard's query, filters and time range are filters of the kNN query, so that it finds the
    nearest of those that they leave; and it stands in `must`, since a filter gives no scores.
    """
    (pictures, *others) = gallery["spec"]["data"]
    context: list[Any] = [
        "%dashboard_context-must_clause%",
        "%dashboard_context-filter_clause%",
        {"range": {time_field: {"%timefilter%": True}}},
    ]
    own = query.knn.get("filter", [])
    context = [*(own if isinstance(own, list) else [own]), *context]
    left = {"bool": {"filter": context, "must_not": ["%dashboard_context-must_not_clause%"]}}
    url = pictures["url"]
    body = {
        **url["body"],
        "query": {"bool": {"must": [{"knn": {**query.knn, "filter": left}}]}},
        "sort": [{"_score": "desc"}],
    }
    pictures = {**pictures, "url": {"index": url["index"], "body": body}}
    return {
        "title": title,
        "description": f"Up to {body['size']} pictures nearest to “{query.title}”, best first.",
        "spec": {**gallery["spec"], "data": [pictures, *others]},
    }


def dashboard_source(gallery: Source, gallery_name: str, title: str, query: SavedQuery) -> Source:
    """The gallery's dashboard with the session and the Vega panel of the neighbours."""
    own = {f"{kind}/{gallery_name}": f"{kind}/{query.name}" for kind in ("vega", "discover")}
    rows = [
        {**row, "panels": [{own.get(name, name): value for name, value in each.items()}
                           for each in row["panels"]]}
        for row in gallery["rows"]
    ]  # fmt: skip
    return {
        **gallery,
        "title": title,
        "description": f"The pictures nearest to “{query.title}”, best first.",
        "rows": rows,
    }
