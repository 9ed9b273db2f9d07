"""Step 5: the client. A query becomes a vector, the vector a request, the answer hits."""

from es_imgsearch.search.client import AsyncImageSearch, ImageSearch
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
