"""Requests to Elasticsearch as values, and readers of their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import numpy as np
import numpy.typing as npt

from es_imgsearch.elastic.error_mapping import multi_get_error, search_error
from es_imgsearch.elastic.queries import msearch_lines, parse_vector, to_json
from es_imgsearch.errors import GenerationSwitched, ImageMissing, IndexMissing, shown_value

# Of Elasticsearch; and its line of a request has at most 4096.
_LONGEST_ID_BYTES = 512

JSON = {"accept": "application/json", "content-type": "application/json"}
NDJSON = {"accept": "application/json", "content-type": "application/x-ndjson"}

# The parts of an answer that hits consist of, `_index` being their generation; the server omits the
# rest.
_HIT = "hits.hits._index,hits.hits._id,hits.hits._score,hits.hits._source,hits.hits.fields"
_SEARCH = urlencode(
    {
        "filter_path": f"took,hits.total,{_HIT},aggregations",
        "allow_partial_search_results": "false",
    },
    safe=",.",
)
_HITS_OF_EACH = ",".join(f"responses.{each}" for each in _HIT.split(","))
_OF_EACH = f"took,{_HITS_OF_EACH},responses.error,responses.status"
_MSEARCH = urlencode({"filter_path": _OF_EACH}, safe=",.")
# Of searches of any kind.
_JOINED = urlencode(
    {
        "filter_path": ",".join(
            [_OF_EACH]
            + [f"responses.{each}" for each in ("took", "hits.total", "aggregations")]
            + ["responses.hits.hits.inner_hits"]
        )
    },
    safe=",.",
)
_MSEARCH_INNER = urlencode({"filter_path": f"{_OF_EACH},responses.hits.hits.inner_hits"}, safe=",.")


@dataclass(frozen=True, slots=True)
class Request:
    """One request to Elasticsearch.

    `path` carries its parameters, a body is ready bytes.
    """

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)


def search_request(index: str, body: bytes) -> Request:
    """Search; the answer is reduced to the parts of hits and never a partial one."""
    return Request("POST", f"/{index}/_search?{_SEARCH}", body, JSON)


def msearch_request(index: str, body: bytes, *, inner_hits: bool = False) -> Request:
    """Several searches in one round trip.

    `status` keeps the place of one without hits.
    """
    parameters = _MSEARCH_INNER if inner_hits else _MSEARCH
    return Request("POST", f"/{index}/_msearch?{parameters}", body, NDJSON)


class JoinedPart(NamedTuple):
    """What a request searches for: lines of an `_msearch`, two a search."""

    alias: str
    lines: bytes
    is_single: bool


def searches_of(request: Request) -> JoinedPart | None:
    """Return the searches of a `search_request` or `msearch_request`; None for others."""
    index, _, rest = request.path[1:].partition("/")
    if request.body is not None and rest == f"_search?{_SEARCH}":
        return JoinedPart(index, msearch_lines([request.body]), is_single=True)
    if request.body is not None and rest.startswith("_msearch?"):
        return JoinedPart(index, request.body, is_single=False)
    return None


def joined_searches(
    requests: Sequence[Request],
) -> tuple[Request, Callable[[Mapping[str, Any]], list[Mapping[str, Any] | None]]]:
    """Join requests that search one index.

    Returns the request, and a function that splits its answer into theirs; None for one of which
    a search failed.
    """
    parts = [each for request in requests if (each := searches_of(request)) is not None]
    lines = b"".join(each.lines for each in parts)
    joined = Request("POST", f"/{parts[0].alias}/_msearch?{_JOINED}", lines, NDJSON)

    def split(answer: Mapping[str, Any]) -> list[Mapping[str, Any] | None]:
        left, found = list(answer["responses"]), list[Mapping[str, Any] | None]()
        for part in parts:
            count = part.lines.count(b"\n") // 2
            answers, left = left[:count], left[count:]
            took = max(each.get("took", 0) for each in answers)
            whole = answers[0] if part.is_single else {"took": took, "responses": answers}
            found.append(None if any("error" in each for each in answers) else whole)
        return found

    return joined, split


def info_request(index: str) -> Request:
    """Get the index behind an alias, see `IndexInfo.from_answer`."""
    return Request("GET", f"/{index}")


def document_request(index: str, image_id: str) -> Request:
    """Get a document by its id.  Raises ImageMissing."""
    if not 0 < len(image_id.encode(errors="replace")) <= _LONGEST_ID_BYTES:
        raise ImageMissing(f"No document has the id {shown_value(image_id)}.")
    return Request("GET", f"/{index}/_doc/{quote(image_id, safe='', errors='replace')}")


def documents_request(index: str, names: Sequence[str]) -> Request:
    """Get the existing ones of these documents, see `documents_by_id`."""
    parameters = urlencode({"filter_path": "docs._id,docs._source,docs.error"}, safe=",.")
    return Request("POST", f"/{index}/_mget?{parameters}", to_json({"ids": list(names)}))


def documents_by_id(answer: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Documents by id, from an answer to `documents_request`.

    Raises IndexMissing, StoreDenied or StoreBusy: the request as a whole succeeds where no index or
    shard answers.
    """
    docs = answer.get("docs", ())
    if missed := [each["error"] for each in docs if "error" in each]:
        raise multi_get_error(missed[0]) or IndexMissing(missed[0].get("reason", ""))
    return {each["_id"]: each["_source"] for each in docs if "_source" in each}


def checked_hits(answer: Mapping[str, Any], generation: str) -> Sequence[Mapping[str, Any]]:
    """Extract the hits of a search through the alias.

    Raises GenerationSwitched if one is from another generation.
    """
    hits: Sequence[Mapping[str, Any]] = answer.get("hits", {}).get("hits", ())
    for hit in hits:
        if hit["_index"] != generation:
            raise GenerationSwitched(
                f"The index is {hit['_index']} now and was {generation}: begin again."
            )
    return hits


def vectors_by_id(answer: Mapping[str, Any]) -> dict[str, dict[str, npt.NDArray[np.float32]]]:
    """Vectors by id and field, from an answer to `queries.stored_vectors_body`."""
    hits = answer.get("hits", {}).get("hits", ())
    return {
        hit["_id"]: {name: parse_vector(value) for name, value in hit.get("fields", {}).items()}
        for hit in hits
    }


def msearch_answers(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Split the answer to an `_msearch` into those of its searches.

    Raises the error of the first search that failed; the request as a whole succeeds even so.
    """
    answers: list[Mapping[str, Any]] = answer["responses"]
    for each in answers:
        if "error" in each:
            raise search_error(each)
    return answers
