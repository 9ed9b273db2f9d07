"""The simulated server answers as the real one: random sequences of requests, sent to both."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.conformance import Both
from tests.support.document_requests import BODY, DocumentRequests
from tests.support.index_requests import IndexRequests


@pytest.fixture(scope="module")
def both(es_url: str) -> Iterator[Both]:
    both = Both(es_url)
    yield both
    both.close()


@pytest.fixture(scope="module")
def documents(both: Both) -> Iterator[DocumentRequests]:
    """An index with an alias on both servers; its documents have equal numbers on both."""
    index = f"t-{uuid.uuid4().hex[:12]}"
    made = DocumentRequests(both, index)
    made.send("PUT", f"/{index}", {**BODY, "aliases": {f"{index}-alias": {"is_write_index": True}}})
    yield made
    made.send("DELETE", f"/{index}")


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_documents_and_searches_are_answered_alike(
    documents: DocumentRequests, data: st.DataObject
):
    try:
        documents.run(data, steps=15)
    finally:
        documents.clean()


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_indices_and_aliases_are_answered_alike(both: Both, data: st.DataObject):
    indices = IndexRequests(both, f"t-{uuid.uuid4().hex[:12]}")
    try:
        indices.run(data, steps=12)
    finally:
        indices.clean()
