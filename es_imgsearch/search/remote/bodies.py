"""Bodies of requests to a service from arguments, and `Hits` from its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Final

from es_imgsearch.errors import FilterInvalid, ServiceUnsuitable, UsageError
from es_imgsearch.records import composed, disk_path, is_text, path_of
from es_imgsearch.search.hits import Hit, Hits

if TYPE_CHECKING:
    from PIL import Image

    from es_imgsearch.search.query import Queries, QueryBox, QueryPicture

_INT64: Final = range(-(2**63), 2**63)


class ExampleTerms:
    """The queries of a search as a service takes them.

    `positive` and `negative` are plain values that name `pictures` by their place; `shown` are the
    positive texts and pictures, as `Hits.queries` has them.
    """

    def __init__(self) -> None:
        self.positive: list[dict[str, Any]] = []
        self.negative: list[dict[str, Any]] = []
        self.pictures: list[Image.Image] = []
        self.shown: list[str | QueryPicture] = []


def plain_texts(positive: Queries, negative: Queries) -> ExampleTerms | None:
    """Take queries that are words only; None for others, and for invalid ones.

    They need neither NumPy nor Pillow.
    """
    terms = ExampleTerms()
    for queries, plain in ((positive, terms.positive), (negative, terms.negative)):
        texts = [queries] if isinstance(queries, str) else queries
        if not isinstance(texts, list | tuple):
            return None
        for each in texts:
            if not isinstance(each, str) or not each.strip() or not is_text(each):
                return None
            plain.append({"text": each})
    # As `search.query.parse_terms` composes them.
    terms.shown = [composed(each["text"]) for each in terms.positive]
    return terms if terms.positive else None


def example_terms(
    positive: Queries, negative: Queries, box: QueryBox | None, *, max_pixels: int
) -> ExampleTerms:
    """Check queries as the client does, and open their pictures.  Raises its errors."""
    from es_imgsearch.search.query import (
        as_query_picture,
        open_query_picture,
        parse_terms,
        text_terms,
    )

    found = parse_terms(positive, negative)
    text_terms(found)
    terms = ExampleTerms()
    for query, weight in found:
        picture = as_query_picture(query)
        if picture is not None:
            image = open_query_picture(picture, box, max_pixels=max_pixels)
            plain: dict[str, Any] = {"picture": len(terms.pictures)}
            terms.pictures.append(image)
        else:
            plain = _plain_query(query)
        side = terms.positive if weight > 0 else terms.negative
        side.append({**plain, "weight": abs(weight)})
        if weight > 0 and isinstance(query, str):
            terms.shown.append(query)
        elif weight > 0 and picture is not None:
            terms.shown.append(picture if box is None else image)
    return terms


def _plain_query(query: Any) -> dict[str, Any]:
    if isinstance(query, str):
        return {"text": query}
    if image_id := getattr(query, "image_id", None):
        return {"image_id": image_id}
    if query.dtype.kind not in "fiu" or not all(each == each for each in query.tolist()):
        raise UsageError("A vector to search for must be of finite numbers.")
    return {"vector": query.tolist()}


def search_body(
    terms: ExampleTerms, k: Any, options: Mapping[str, Any], *, index: str | None, host: str
) -> dict[str, Any]:
    """Build the body of a search by examples.

    Options that are None are left out: that is their default.
    """
    given = {name: _option(name, value) for name, value in options.items() if value is not None}
    return {
        "positive": terms.positive,
        "negative": terms.negative,
        "k": _plain(k),
        "options": given,
        "index": index,
        "host": host,
    }


def _option(name: str, value: Any) -> Any:
    if name in {"filters", "without"}:
        return {_field(field): _filter_value(field, each) for field, each in value.items()}
    if name == "weights":
        return {key: _plain(each) for key, each in value.items()}
    if name in {"facets", "fields"}:
        return list(dict.fromkeys(map(_plain, value)))
    value = _plain(value)
    return str(value) if name in {"since", "until"} else value


def _field(name: Any) -> str:
    if not isinstance(name, str):
        raise FilterInvalid(f"A field to filter by is named by a string, not {name!r}.")
    return name


def _filter_value(field: str, value: Any) -> Any:
    """Return a filter as plain values: a tuple (range, place) as an object."""
    if isinstance(value, tuple):
        return {"range": [_filter_end(field, each) for each in value]}
    if isinstance(value, list | set | frozenset):
        return [
            _filter_value(field, each) if isinstance(each, tuple) else _filter_end(field, each)
            for each in value
        ]
    return _filter_end(field, value)


def _filter_end(field: str, value: Any) -> Any:
    is_text_or_less = value is None or (isinstance(value, str) and is_text(value))
    if not is_text_or_less and (not isinstance(value, int | float) or value != value):
        # As the client itself takes it, or refuses it; usual values need none of what it imports.
        from es_imgsearch.search.filters import stored_value

        value = _plain(stored_value(field.partition(".")[0], value))
    return str(value) if isinstance(value, int) and value not in _INT64 else value


def _plain(value: Any) -> Any:
    """Return a date, path, or NumPy value as JSON has it."""
    if hasattr(value, "dtype"):
        if value.dtype.kind == "M":
            return str(value)
        value = value.tolist()
    if isinstance(value, date):
        return value.isoformat()
    return fspath(value) if isinstance(value, PathLike) else value


def read_hits(answer: Mapping[str, Any], shown: Sequence[Any], url: str) -> Hits:
    """Build the hits of an answer.  Raises ServiceUnsuitable if it is of another form."""
    try:
        return Hits(
            [_hit(each) for each in answer["hits"]],
            answer["took_ms"],
            shown,
            notes=answer["notes"],
            facets=answer["facets"],
            mode=answer["mode"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ServiceUnsuitable(
            f"The service at {url} answers in another form: install the same version here and"
            " there."
        ) from error


def _hit(given: Mapping[str, Any]) -> Hit:
    path, box = given["path"], given["matched_box"]
    return Hit(
        **{
            **given,
            "path": None if path is None else path_of(disk_path(path)),
            "matched_box": None if box is None else tuple(box),
        }
    )
