"""Step 5, the client: query → vector → request → hits.

client, async_client   ImageSearch and AsyncImageSearch: the public methods
operations             each method once, as a request flow without I/O
options, query         the arguments of a search
query_vectors          queries → vectors
execution              vectors and words → Elasticsearch → raw hits
results, hits          raw hits → Hits
"""

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
