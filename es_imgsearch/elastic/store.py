"""The only package that talks to Elasticsearch.

Foreign errors become ours in `connection.translated`; bodies come from `mapping` and
`queries`, or are a line long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.listings import Listings, Stored
from es_imgsearch.elastic.mapping import template_body
from es_imgsearch.elastic.requests import Talk, document_request
from es_imgsearch.elastic.switching import Roles, Switching
from es_imgsearch.errors import ImageMissing, IndexMissing

__all__ = ["IndexInfo", "Roles", "Store", "Stored", "Write"]


class Store(Switching, Listings):
    """One alias of pictures, the failures beside it, and what may be done with them.

    Every method raises errors of our tree only; `transient` ones may be tried again.
    """


# Documents kept beside an index, in an index of their own.
#
# What the index is useless without stands under its hash: the matrix of the profile `reduced`, the
# coder of its codes.  A later generation may have another one, so none takes the place of another.
# What gives tags stands under a name of its own, and is replaced.


def keep_beside(
    store: Store, alias: str, body: Mapping[str, Any], name: str, document: Mapping[str, Any]
) -> None:
    """Store a document under this id; the index for it is made where there is none."""
    store.request("PUT", f"/_index_template/{alias}", template_body(alias, body))
    store.make_generation(alias, body)
    params = {"refresh": "true", "require_alias": "true"}
    store.request("PUT", f"/{alias}/_doc/{name}", document, params=params)


def kept_beside(alias: str, name: str) -> Talk[Mapping[str, Any] | None]:
    """The document of that id; None where it is missing."""
    try:
        answer = yield document_request(alias, name)
    except (IndexMissing, ImageMissing):
        return None
    source: Mapping[str, Any] = answer["_source"]
    return source
