"""Step 5, the client: a query becomes a vector, the vector a request, the answer hits.

client, async_client   ImageSearch and AsyncImageSearch: the public methods
operations             each method once, as a request flow without I/O
options, query         what a search can be given
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
