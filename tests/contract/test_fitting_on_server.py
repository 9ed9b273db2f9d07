"""What `fit` leaves of a document is taken by the real server, and what it takes is left alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from es_imgsearch.describe.fitting import fit
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import failures_body, load_json, new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.records import Grid, iso_timestamp
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import FakeEncoder, remove_index
from tests.support.house import described
from tests.support.odd_values import odd_value, plain_value

pytestmark = pytest.mark.es

# Types that describers of other packages may map; mappings/ has the others.
COMMON = load_json("mappings", "common.json")["mappings"]["properties"]
FLAT = {"type": "dense_vector", "dims": 3, "index_options": {"type": "flat"}}
OTHERS: dict[str, Any] = {
    "a_short": {"type": "short"},
    "a_half": {"type": "half_float"},
    "a_double": {"type": "double"},
    "an_object": {
        "properties": {"at": {"type": "date"}, "deep": {"properties": {"n": {"type": "byte"}}}}
    },
    "a_blob": {"type": "object", "enabled": False},
    "a_code": {"type": "keyword", "normalizer": "lowercase"},
    "a_name": {"type": "text", "analyzer": COMMON["image_name"]["analyzer"]},
    "bytes": {**FLAT, "element_type": "byte"},
    "unit": {**FLAT, "similarity": "dot_product"},
    "far": {**FLAT, "similarity": "l2_norm"},
    "unindexed": {"type": "dense_vector", "dims": 3, "index": False},
}


@pytest.fixture(scope="module")
def store(es_url: str) -> Iterator[Store]:
    import uuid

    settings = load_settings(
        {"es_url": es_url, "index": f"t-{uuid.uuid4().hex[:12]}"}, environment={}
    )
    store = Store(connect(settings), settings.index)
    meta = new_meta(seal_of(FakeEncoder()), "exact", "cosine", grid=Grid(2, 2))
    store.generations.create(meta, [*described(), OTHERS])
    yield store
    remove_index(store)
    store.connection.client.close()


def few(number: int) -> Any:
    return examples(
        max_examples=number,
        deadline=None,
        derandomize=True,
        # To shrink sends hundreds of bulks; what is refused is shown alone.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def errors_of(
    store: Store, documents: list[dict[str, Any]], *, failures: bool = False
) -> list[str]:
    writes = [
        Write(f"{n}", failure=each) if failures else Write(f"{n}", document=each)
        for n, each in enumerate(documents)
    ]
    found = store.documents.write(writes)
    return [str(found[each.image_id] or "") for each in writes]


def drawn(data: st.DataObject, properties: Mapping[str, Any], number: int) -> list[dict[str, Any]]:
    """So many documents of one field, and one that has all."""
    names = [data.draw(st.sampled_from(sorted(properties))) for _ in range(number)]
    alone = [{name: data.draw(odd_value(properties[name]))} for name in names]
    return [*alone, {name: data.draw(odd_value(each)) for name, each in properties.items()}]


def refused(documents: list[dict[str, Any]], errors: list[str]) -> list[str]:
    return [
        f"{repr(each)[:200]} {error[:300]}"
        for each, error in zip(documents, errors, strict=True)
        if error
    ]


@given(data=st.data())
@few(25)
def test_what_is_left_of_any_document_is_taken(store: Store, data: st.DataObject):
    properties = store.info().properties
    documents = drawn(data, properties, 25)
    fitted = [fit(each, properties).fields for each in documents]
    assert refused(fitted, errors_of(store, fitted)) == []
    # Nothing more is left out of it then.
    assert [each for each in (fit(one, properties).left_out for one in fitted) if each] == []


@given(data=st.data())
@few(12)
def test_what_is_left_of_any_failure_is_taken(store: Store, data: st.DataObject):
    properties = failures_body()["mappings"]["properties"]
    documents = [
        {**each, "attempts": 1, "failed_at": iso_timestamp()}
        for each in drawn(data, properties, 20)
    ]
    fitted = [fit(each, properties).fields for each in documents]
    assert refused(fitted, errors_of(store, fitted, failures=True)) == []


@given(data=st.data())
@few(25)
def test_what_the_server_takes_is_left_as_it_is(store: Store, data: st.DataObject):
    properties = store.info().properties
    names = [data.draw(st.sampled_from(sorted(properties))) for _ in range(50)]
    documents = [{name: data.draw(plain_value(properties[name]))} for name in names]
    errors = errors_of(store, copy.deepcopy(documents))
    for name, document, error in zip(names, documents, errors, strict=True):
        fitted = fit(document, properties)
        shown = f"{repr(document)[:300]} {fitted.left_out} {error[:300]}"
        assert bool(fitted.left_out) == bool(error), shown
        assert error or orjson.dumps(fitted.fields) == orjson.dumps(document), (name, shown)
