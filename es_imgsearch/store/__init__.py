"""The only package that talks to Elasticsearch.

Foreign errors become ours in `connection.translated`; bodies come from `mapping` and
`queries`, or are a line long.
"""

from es_imgsearch.store.documents import Write
from es_imgsearch.store.generations import IndexInfo
from es_imgsearch.store.listings import Listings, Stored
from es_imgsearch.store.switching import Roles, Switching

__all__ = ["IndexInfo", "Roles", "Store", "Stored", "Write"]


class Store(Switching, Listings):
    """One alias of pictures, the failures beside it, and what may be done with them.

    Every method raises errors of our tree only; `transient` ones may be tried again.
    """
