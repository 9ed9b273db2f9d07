"""Documents kept beside an index, in an index of their own, each under its hash.

What the index is useless without: the matrix of the profile `reduced`, the coder of its codes.
A later generation of the index may have another one, so none takes the place of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from es_imgsearch.errors import ImageMissing, IndexMissing
from es_imgsearch.mapping import template_body
from es_imgsearch.store import Store
from es_imgsearch.talk import Talk, document_request


def keep_beside(
    store: Store, alias: str, body: Mapping[str, Any], document: Mapping[str, Any]
) -> None:
    """Store a document under its `hash`; the index for it is made where there is none."""
    store.request("PUT", f"/_index_template/{alias}", template_body(alias, body))
    store.make_generation(alias, body)
    params = {"refresh": "true", "require_alias": "true"}
    store.request("PUT", f"/{alias}/_doc/{document['hash']}", document, params=params)


def kept_beside(alias: str, wanted_hash: str) -> Talk[Mapping[str, Any] | None]:
    """The document of that hash; None where it is missing."""
    try:
        answer = yield document_request(alias, wanted_hash)
    except (IndexMissing, ImageMissing):
        return None
    source: Mapping[str, Any] = answer["_source"]
    return source
