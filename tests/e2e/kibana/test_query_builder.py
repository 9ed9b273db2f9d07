"""Every query as Kibana's own builder makes it, on the real server: the right rows come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from es_imgsearch import ImageSearch
from es_imgsearch.elastic.store import Store
from es_imgsearch.kibana.objects import search_source
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder
from tests.e2e.kibana.conftest import COUNT, NOW, failure, picture, search
from tests.support.kibana_queries import (
    AUTO_INTERVAL,
    SavedObjects,
    lens_layer,
    lens_request,
    session_request,
    session_times,
    time_fields,
    vega_requests,
)
from tests.support.lens_rows import answered_rows, expected_rows, matches, runtime_fields
from tests.support.query_builder import QueryBuilder, loaded_view

pytestmark = pytest.mark.process

Body = dict[str, Any]
ALWAYS = {"gte": "now-50y", "lte": "now"}
PICTURES = [picture(n, np.zeros(1)) for n in range(COUNT)]


def documents(store: Store, view: Mapping[str, Any]) -> Sequence[Body]:
    """What is stored in the index of a data view, with its runtime fields."""
    if view["title"] == store.index:
        return [runtime_fields(each, view) for each in PICTURES]
    if view["title"].endswith("-failures"):
        return [failure(n) for n in range(6)]
    return [search(n) for n in range(20)]


def ask(store: Store, index: str, body: Body) -> Body:
    answer = store.connection.request("POST", f"/{index}/_search", body)
    assert answer["_shards"]["failed"] == 0, answer
    return answer


def names(saved: SavedObjects, kind: str) -> list[str]:
    return sorted(each["id"] for each in saved.of(kind))


def lens_query(
    builder: QueryBuilder,
    store: Store,
    each: Body,
    view: Mapping[str, Any],
    *,
    filters: Sequence[Mapping[str, Any]] = (),
    since: str = ALWAYS["gte"],
    **given: Any,
) -> Body:
    """What esaggs has the builder make: one filter of time for each field that it goes by."""
    loaded = loaded_view(store, view)
    fields = time_fields(each, view)
    queries = [each["attributes"]["state"]["query"]]
    if lens_layer(each).get("ignoreGlobalFilters"):
        queries, filters, given = [], (), {}
    ranges = [{"meta": {}, "range": {name: {**ALWAYS, "gte": since}}} for name in fields]
    return builder.build(loaded, queries=queries, filters=[*filters, *ranges], **given)


def test_every_lens_panel_has_the_rows_of_its_documents(
    shelf: tuple[Store, Settings], saved: SavedObjects, query_builder: QueryBuilder
):
    store, _ = shelf
    for each in saved.of("lens"):
        view, title = saved.view_of(each), each["attributes"]["title"]
        query = lens_query(query_builder, store, each, view)
        loaded = loaded_view(store, view)

        def translate(words: str, loaded: Body = loaded) -> Body:
            return query_builder.build(loaded, queries=[{"language": "kuery", "query": words}])

        body = lens_request(each, view, query=query, translate=translate)
        answer = ask(store, view["title"], body)
        words = each["attributes"]["state"]["query"]["query"]
        found = [one for one in documents(store, view) if matches(one, words)]
        rows = answered_rows(lens_layer(each), answer)
        wanted = expected_rows(lens_layer(each), found)
        assert rows.keys() == wanted.keys(), title
        for key, values in rows.items():
            for name, value in values.items():
                right = wanted[key][name]
                if isinstance(right, tuple):
                    assert right[0] <= value <= right[1], (title, key, name)
                elif isinstance(right, str):
                    assert value == right, (title, key, name)
                else:
                    assert value == pytest.approx(right, rel=1e-5), (title, key, name)


def test_the_time_range_chooses_pictures_by_when_they_were_indexed(
    shelf: tuple[Store, Settings], saved: SavedObjects, query_builder: QueryBuilder
):
    """Also where a panel draws another date: 'By date taken' goes by its data view's own time."""
    store, _ = shelf
    since = (NOW - timedelta(hours=5, minutes=30)).isoformat()
    for each in saved.of("lens"):
        view = saved.view_of(each)
        if view["title"] != store.index:
            continue
        title = each["attributes"]["title"]
        query = lens_query(query_builder, store, each, view, since=since)
        answer = ask(store, view["title"], lens_request(each, view, query=query))
        recent = documents(store, view)[:6]
        rows, wanted = (
            answered_rows(lens_layer(each), answer),
            expected_rows(lens_layer(each), recent),
        )
        assert answer["hits"]["total"]["value"] == len(recent), title
        assert rows.keys() == wanted.keys(), title


def test_growth_ends_with_all_that_was_added(
    shelf: tuple[Store, Settings], saved: SavedObjects, query_builder: QueryBuilder
):
    """Lens sums the counts up by root, in the order of the buckets."""
    store, _ = shelf
    (each,) = [each for each in saved.of("lens") if each["id"].endswith("-growth")]
    view = saved.view_of(each)
    layer = lens_layer(each)
    assert layer["columns"]["total"]["references"] == ["total_each"]
    query = lens_query(query_builder, store, each, view)
    rows = answered_rows(layer, ask(store, view["title"], lens_request(each, view, query=query)))
    totals: dict[str, int] = {}
    for (root, _), values in sorted(rows.items()):
        totals[root] = totals.get(root, 0) + values["total_each"]
    assert totals == {"root0": COUNT // 2, "root1": COUNT // 2}


def test_the_backlog_is_how_many_files_were_on_their_way(
    shelf: tuple[Store, Settings], saved: SavedObjects, query_builder: QueryBuilder
):
    store, _ = shelf
    (each,) = [each for each in saved.of("lens") if each["id"].endswith("-backlog")]
    view, layer = saved.view_of(each), lens_layer(each)
    query = lens_query(query_builder, store, each, view)
    rows = answered_rows(layer, ask(store, view["title"], lens_request(each, view, query=query)))
    metric, interval = layer["columns"]["waitingX2"]["params"]["tinymathAst"]["args"]
    assert interval == "waitingX1"
    bucket_ms = int(AUTO_INTERVAL.removesuffix("d")) * 86_400_000
    waiting = sum(values[metric] / bucket_ms for values in rows.values())
    # Little's law: each was on its way for half a second of thirty days.
    assert waiting == pytest.approx(sum(500 + n for n in range(COUNT)) / bucket_ms)


CHOICES: list[dict[str, list[Any]]] = [
    {"root": ["root0"]},
    {"root": ["root0", "root1"]},
    {"folder": ["2024/1"]},
    {"tags": ["cat"]},
    {"colours": ["red"]},
    {"camera": ["camera 1", "camera 2"]},
    {"year_taken": [NOW.year]},
    {"root": ["root1"], "tags": ["dog"]},
]


def is_chosen(document: Mapping[str, Any], chosen: Mapping[str, Sequence[Any]]) -> bool:
    for name, values in chosen.items():
        own = document.get(name)
        if not set(own if isinstance(own, list) else [own]) & set(values):
            return False
    return True


@pytest.mark.parametrize("chosen", CHOICES, ids=str)
def test_what_a_control_chooses_reaches_every_panel_and_empties_none(
    shelf: tuple[Store, Settings],
    saved: SavedObjects,
    query_builder: QueryBuilder,
    chosen: dict[str, list[Any]],
):
    store, _ = shelf
    for board in saved.of("dashboard"):
        if not chosen.keys() <= saved.controls(board):
            continue
        for each in saved.panels(board):
            title = f"{board['id']}: {each['attributes']['title']}"
            if each["type"] == "lens":
                view = saved.view_of(each)
                query = lens_query(query_builder, store, each, view, chosen=chosen)
                body, index = lens_request(each, view, query=query), view["title"]
                right = [one for one in documents(store, view) if is_chosen(one, chosen)]
                if lens_layer(each).get("ignoreGlobalFilters"):
                    right = list(documents(store, view))
            elif each["type"] == "visualization":
                view = saved.view(store.index)
                loaded = loaded_view(store, view)
                query = query_builder.build(loaded, chosen=chosen)
                ((index, body),) = vega_requests(each, query=query, view=view)
                right = [one for one in documents(store, view) if is_chosen(one, chosen)]
            else:
                view = saved.view_of(each)
                loaded = loaded_view(store, view)
                own = search_source(each)["query"]
                query = query_builder.build(loaded, queries=[own], chosen=chosen)
                body, index = session_request(each, view, query=query), view["title"]
                right = [one for one in documents(store, view) if is_chosen(one, chosen)]
            answer = ask(store, index, body)
            if "nearest" in each["id"]:
                assert answer["hits"]["total"]["value"] <= len(right), title
            else:
                assert answer["hits"]["total"]["value"] == len(right), title
                assert right, title


def test_every_session_opened_in_discover_shows_its_documents(
    shelf: tuple[Store, Settings], saved: SavedObjects, query_builder: QueryBuilder
):
    store, _ = shelf
    for each in saved.of("search"):
        view, title = saved.view_of(each), each["attributes"]["title"]
        times = session_times(each)
        query = query_builder.build(
            loaded_view(store, view),
            queries=[search_source(each)["query"]],
            time={"field": view["timeFieldName"], "gte": times["since"], "lte": times["until"]},
        )
        answer = ask(store, view["title"], session_request(each, view, query=query))
        own = search_source(each)["query"]
        if own["language"] == "lucene":
            assert 0 < answer["hits"]["total"]["value"] <= COUNT, title
            continue
        right = [one for one in documents(store, view) if matches(one, own["query"])]
        if times["since"] == "now-24h":
            right = right[:24]
        assert answer["hits"]["total"]["value"] == len(right), title


@pytest.mark.parametrize("name", ["red", "navy"])
@pytest.mark.parametrize("typed", ["", "root: root0"])
def test_the_nearest_are_in_order_of_nearness_and_end_where_they_are_no_longer_near(
    shelf: tuple[Store, Settings],
    saved: SavedObjects,
    query_builder: QueryBuilder,
    name: str,
    typed: str,
):
    store, settings = shelf
    (board,) = [each for each in saved.of("dashboard") if each["id"].endswith(f"-nearest-{name}")]
    source = search_source(board)
    view = saved.view(store.index)
    typed_query = {"language": "kuery", "query": typed}
    queries = [typed_query] if typed else [source["query"]]
    query = query_builder.build(loaded_view(store, view), queries=queries, filters=source["filter"])
    (gallery,) = [each for each in saved.panels(board) if each["type"] == "visualization"]
    ((index, body),) = vega_requests(gallery, query=query, view=view)
    hits = ask(store, index, body)["hits"]["hits"]
    with ImageSearch(settings=settings, encoder=FakeEncoder()) as client:
        filters = {"root": "root0"} if typed else {}
        nearest = [each.image_id for each in client.search_text(name, k=COUNT, filters=filters)]
    assert [each["_id"] for each in hits] == nearest[: len(hits)]
    assert len({each["_score"] for each in hits}) == len(hits)
    # Half of the pictures are of the other end of the rainbow.
    assert 0 < len(hits) < len(nearest)


def test_a_saved_query_finds_what_its_session_finds(
    shelf: tuple[Store, Settings], saved: SavedObjects, query_builder: QueryBuilder
):
    store, _ = shelf
    view = saved.view(store.index)
    loaded = loaded_view(store, view)
    sessions = {each["id"]: each for each in saved.of("search")}
    assert len(saved.of("query")) == 2
    for each in saved.of("query"):
        found = [
            [hit["_id"] for hit in ask(store, store.index, body)["hits"]["hits"]]
            for query in (each["attributes"]["query"], search_source(sessions[each["id"]])["query"])
            for body in [{"query": query_builder.build(loaded, queries=[query]), "size": COUNT}]
        ]
        assert found[0] == found[1]
        assert 0 < len(found[0]) < COUNT


def test_a_choice_above_a_filter_by_hand_reaches_failures_as_nothing(
    shelf: tuple[Store, Settings], saved: SavedObjects, query_builder: QueryBuilder
):
    """What the map adds is no error in a panel on failures, which have no place."""
    store, _ = shelf
    box = {"top": 60.0, "left": 0.0, "bottom": 40.0, "right": 40.0}
    pill = {
        "meta": {"disabled": False, "negate": False},
        "query": {"geo_bounding_box": {"ignore_unmapped": True, "location": box}},
    }
    for each in saved.of("lens"):
        view = saved.view_of(each)
        query = lens_query(query_builder, store, each, view, filters=[pill])
        found = ask(store, view["title"], lens_request(each, view, query=query))
        count = found["hits"]["total"]["value"]
        if view["title"] == store.index:
            assert 0 < count < COUNT
        else:
            apart = lens_layer(each).get("ignoreGlobalFilters")
            assert count == (len(documents(store, view)) if apart else 0)
