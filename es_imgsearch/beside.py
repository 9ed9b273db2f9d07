"""Documents kept beside an index, in an index of their own.

What the index is useless without stands under its hash: the matrix of the profile `reduced`, the
coder of its codes.  A later generation may have another one, so none takes the place of another.
What gives tags stands under a name of its own, and is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from es_imgsearch.errors import ImageMissing, IndexMissing
from es_imgsearch.mapping import template_body
from es_imgsearch.store import Store
from es_imgsearch.talk import Talk, document_request


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
