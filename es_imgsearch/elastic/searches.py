"""Searches with ready bodies, and a random sample of stored vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.queries import stored_vectors_body, to_json, to_msearch
from es_imgsearch.elastic.requests import answers_of, msearch_request, search_request

# 3 MB of JSON, with vectors of 512 dims.
_SAMPLE_PAGE = 500


class Searches:
    """Searches the pictures."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def sample(
        self, count: int, seed: int, fields: Sequence[str] = ()
    ) -> Iterator[Mapping[str, Any]]:
        """Hits of at most `count` documents that have a vector, chosen at random.

        Each holds `_id`, `_source` with these fields, and in `fields` the vector exactly as it
        was written.  The same seed chooses the same of an unchanged index.
        """
        # The seed is mixed with the id, which unlike a sequence number survives another write.
        random = {
            "query": {"exists": {"field": VECTOR_FIELD}},
            "random_score": {"seed": seed, "field": "image_id"},
        }
        chosen = {"query": {"function_score": random}, "size": count, "_source": False}
        ids = [hit["_id"] for hit in self.hits(chosen)]
        for start in range(0, len(ids), _SAMPLE_PAGE):
            body = {
                **stored_vectors_body(ids[start : start + _SAMPLE_PAGE], [VECTOR_FIELD]),
                "_source": list(fields) or False,
            }
            yield from self.hits(body)

    def search(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer, reduced to what hits are made of; never a partial one."""
        request = search_request(self._connection.pictures, to_json(body))
        answer: Mapping[str, Any] = self._connection.send(request)
        return answer

    def hits(self, body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """The hits of one search."""
        hits: Sequence[Mapping[str, Any]] = self.search(body).get("hits", {}).get("hits", ())
        return hits

    def msearch(self, bodies: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
        """The hits of several searches in one round trip, in the order of `bodies`."""
        if not bodies:
            return []
        request = msearch_request(self._connection.pictures, to_msearch(bodies))
        answer = self._connection.send(request)
        return [each.get("hits", {}).get("hits", []) for each in answers_of(answer)]
