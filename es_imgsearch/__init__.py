"""Search pictures by text, by picture or by part of a picture, on Elasticsearch 8.

from es_imgsearch import ImageSearch

search = ImageSearch("http://127.0.0.1:9200")
for hit in search.search_text("a cat on a sofa"):
    print(hit.score, hit.relative_path)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from es_imgsearch.search import AsyncImageSearch, Hit, Hits, ImageSearch, StoredPicture


__version__ = "0.1.0"
__all__ = ["AsyncImageSearch", "Hit", "Hits", "ImageSearch", "StoredPicture", "__version__"]


def __getattr__(name: str) -> Any:
    # Importing the Elasticsearch client takes 0.3 s, which a program that needs only the version
    # or an encoder does not pay.
    if name in __all__:
        from es_imgsearch import search

        return getattr(search, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
