"""Step 5, the client: query → vector → request → hits.

client, async_client   ImageSearch and AsyncImageSearch: the public methods
operations             each method once, as a request flow without I/O
options, query         the arguments of a search
query_vectors          queries → vectors
execution              vectors and words → Elasticsearch → raw hits
results, hits          raw hits → Hits
remote                 the same methods, answered by a running `serve`
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from es_imgsearch.search.async_client import AsyncImageSearch
    from es_imgsearch.search.client import ImageSearch
    from es_imgsearch.search.hits import Hit, Hits
    from es_imgsearch.search.options import SearchOptions
    from es_imgsearch.search.query import StoredPicture

__all__ = [
    "AsyncImageSearch",
    "Hit",
    "Hits",
    "ImageSearch",
    "SearchOptions",
    "StoredPicture",
]

_MODULES = {
    "AsyncImageSearch": "async_client",
    "Hit": "hits",
    "Hits": "hits",
    "ImageSearch": "client",
    "SearchOptions": "options",
    "StoredPicture": "query",
}


def __getattr__(name: str) -> Any:
    # The clients import that of Elasticsearch, which takes 0.2 s; hits of a service need none.
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
