"""The hits of an address as files: CSV, JSON, paths, a Kibana search."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from typing import Any, Final

import orjson

from es_imgsearch.errors import UsageError
from es_imgsearch.kibana.build import MIN_RELEVANCE, SAVED_HITS, create_builder
from es_imgsearch.kibana.nearest import SavedQuery
from es_imgsearch.kibana.objects import to_ndjson
from es_imgsearch.search.hits import Hits
from es_imgsearch.serve.page.address import Address
from es_imgsearch.serve.page.search_page import is_search, parse_request, ranked
from es_imgsearch.serve.search_request import MOST_HITS, SearchRequest
from es_imgsearch.serve.service import SearchService

_FIRST_COLUMNS: Final = (
    "image_id", "path", "root", "relative_path", "score", "relevance", "cosine"
)  # fmt: skip
# Spreadsheets run a cell that begins so as a formula (OWASP, "CSV Injection").
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_LONGEST_TITLE: Final = 100


def as_csv(service: SearchService, address: Address) -> bytes:
    """Return a line for each hit and a column for each field that some hit has."""
    rows = [each.to_dict() for each in _hits(service, address)]
    others = sorted({name for row in rows for name in row}.difference(_FIRST_COLUMNS))
    columns = [*_FIRST_COLUMNS, *others]
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(map(cell, columns))
    writer.writerows([cell(row.get(name)) for name in columns] for row in rows)
    return stream.getvalue().encode()


def as_json(service: SearchService, address: Address) -> bytes:
    """Return what `search --json` prints."""
    return orjson.dumps(_hits(service, address).to_dict(), option=orjson.OPT_INDENT_2)


def as_paths(service: SearchService, address: Address) -> bytes:
    """Return what `search --paths` prints: a path a line, of the files on this host."""
    paths = [each.path for each in _hits(service, address) if each.path is not None]
    return b"".join(os.fsencode(each) + b"\n" for each in paths)


def as_kibana(service: SearchService, address: Address) -> bytes:
    """Return the saved objects of `kibana save-search`, for Kibana to import."""
    request = parse_request(address)
    if not is_search(request):
        raise UsageError("There is nothing to save: search by words, a picture or a box first.")
    least = MIN_RELEVANCE if request.min_relevance is None else request.min_relevance
    knn = service.knn_query(request, SAVED_HITS, least)
    builder = create_builder(service.settings, service.client.info.properties)
    return to_ndjson(builder.build_query(SavedQuery(_title(request), knn)))


def cell(value: Any) -> str:
    """Format a value for a cell of a spreadsheet, which must not run it as a formula.

    Text that would be one gets an apostrophe in front.
    """
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(each, str | int | float) for each in value):
        text = "; ".join(map(str, value))
    elif isinstance(value, Mapping | list):
        text = json.dumps(value, ensure_ascii=False, default=str)
    elif isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    else:
        text = str(value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _hits(service: SearchService, address: Address) -> Hits:
    """Return up to 1,000 hits, as the page lists them, with all stored fields."""
    request = parse_request(address)
    if is_search(request):
        return ranked(service, request, MOST_HITS, None)
    return service.newest(request.model_copy(update={"k": MOST_HITS}), 0, ["*"])


def _title(request: SearchRequest) -> str:
    """Name the search by its words, or else by what it has instead of them."""
    words = [str(each) for each in request.words]
    words += [f"like {each}" for each in request.like]
    words += [f"picture {request.image[:8]}"] if request.image else []
    words += [f"not {each}" for each in request.unwanted]
    words += list(request.filter)
    return ", ".join(words)[:_LONGEST_TITLE]
