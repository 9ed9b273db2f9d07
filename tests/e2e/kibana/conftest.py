"""A filled index with every field, failures and searches, and the saved objects for it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import pytest

from es_imgsearch import ImageSearch
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import Companion, new_meta
from es_imgsearch.elastic.naming import failures_alias
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.kibana.build import create_builder, index_field_types, vectorise_queries
from es_imgsearch.kibana.check import find_problems, parse_ndjson
from es_imgsearch.kibana.objects import to_ndjson
from es_imgsearch.search.search_log import create_searches_index
from es_imgsearch.settings import Settings, load_settings
from es_imgsearch.testing import FakeEncoder, remove_index
from tests.support.kibana_queries import SavedObjects
from tests.support.query_builder import QueryBuilder, open_query_builder

COUNT: Final = 24
NOW: Final = datetime.now(tz=UTC)


@pytest.fixture(scope="package")
def shelf(es_url: str) -> Iterator[tuple[Store, Settings]]:
    """An index with every field, failures and searches, which the tests only read."""
    settings = load_settings({"es_url": es_url, "index": f"t-{uuid.uuid4().hex[:12]}"})
    store = Store(connect(settings), settings.index)
    encoder = FakeEncoder()
    store.generations.create(new_meta(seal_of(encoder), "balanced", "cosine"))
    create_searches_index(store)
    fill(store, encoder)
    yield store, settings
    remove_index(store, Companion.SEARCHES.alias(store.index))
    remove_index(store)


def fill(store: Store, encoder: FakeEncoder) -> None:
    vectors = encoder.embed_texts([f"rgb({10 * n}, 90, {250 - 10 * n})" for n in range(COUNT)])
    writes = [Write(f"{n:032x}", picture(n, vectors[n])) for n in range(COUNT)]
    assert set(store.documents.write(writes).values()) == {None}
    bulk = "".join(
        f"{json.dumps({'create': {'_index': failures_alias(store.index), '_id': f'f{n}'}})}\n"
        f"{json.dumps(failure(n))}\n"
        for n in range(6)
    )
    searches = Companion.SEARCHES.alias(store.index)
    bulk += "".join(
        f"{json.dumps({'create': {'_index': searches}})}\n{json.dumps(search(n))}\n"
        for n in range(20)
    )
    answer = store.connection.request("POST", "/_bulk?refresh=true", bulk)
    assert not answer["errors"], answer
    store.refresh()


def picture(n: int, vector: np.ndarray) -> dict[str, Any]:
    at = NOW - timedelta(hours=n)
    return {
        "image_id": f"{n:032x}",
        "image_name": f"IMG_{n}.jpg",
        "root": f"root{n % 2}",
        "relative_path": f"2024/IMG_{n}.jpg",
        "folder": f"2024/{n % 4}",
        # Pairs of the same bytes, and of the same moment.
        "content_id": f"{n // 2:064x}",
        "size_bytes": 2_000_000 * (n + 1),
        "mtime_ns": 1,
        "format": ("jpeg", "png")[n % 2],
        "width": 400 + 100 * n,
        "height": 300,
        "orientation": ("landscape", "portrait")[n % 2],
        "modified_at": at.isoformat(),
        "taken_at": (NOW - timedelta(days=40 * (n // 2))).isoformat(),
        # The camera's own clock, in Tokyo, written as if UTC.
        "taken_local": (NOW - timedelta(days=40 * (n // 2), hours=-9)).isoformat(),
        "indexed_at": at.isoformat(),
        "camera": f"camera {n % 3}",
        "location": {"lat": 52.5 - n, "lon": 13.4 + n},
        "colours": ["red", "grey"],
        "tags": ["dog" if n % 2 else "cat"],
        "caption": "an animal",
        "ingest_lag_ms": 500 + n,
        "embed_ms": 12.5,
        "describe_errors": ["colours: it failed"],
        "image_embedding": vector,
    }


def failure(n: int) -> dict[str, Any]:
    return {
        "image_id": f"f{n:031x}",
        "image_name": f"bad{n}.jpg",
        "root": f"root{n % 2}",
        "relative_path": f"bad{n}.jpg",
        "folder": f"2024/{n % 4}",
        "size_bytes": 10,
        "failed_at": NOW.isoformat(),
        "error_class": ("corrupt", "truncated")[n % 2],
        "message": "It ends too early.",
        "attempts": 1,
    }


def search(n: int) -> dict[str, Any]:
    return {
        "searched_at": NOW.isoformat(),
        "text": f"words {n % 3}",
        "kind": "text",
        "mode": "vector",
        "k": 10,
        "hits": 0 if n % 4 == 0 else 10,
        "num_candidates": 50,
        "best_score": 0.3,
        "best_relevance": 0.1 * (n % 10),
        "duration_ms": 12.0,
        "took_ms": 3.0,
        "exact": False,
        "host": "here",
    }


@pytest.fixture(scope="package")
def saved(shelf: tuple[Store, Settings]) -> SavedObjects:
    store, settings = shelf
    with ImageSearch(settings=settings, encoder=FakeEncoder()) as client:
        builder = create_builder(settings, client.info.properties)
        objects = builder.build_all(vectorise_queries(client, ["red", "navy"]))
    assert find_problems(objects, index_field_types(settings, store.info().properties)) == []
    return SavedObjects(parse_ndjson(to_ndjson(objects)))


@pytest.fixture(scope="package")
def query_builder() -> Iterator[QueryBuilder]:
    with open_query_builder() as builder:
        yield builder
