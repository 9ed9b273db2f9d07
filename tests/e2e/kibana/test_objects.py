"""Every query of every saved object, as Kibana would send it, on a filled index."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from es_imgsearch import ImageSearch
from es_imgsearch.cli import main
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import Companion, new_meta
from es_imgsearch.elastic.naming import failures_alias
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.kibana.build import (
    create_builder,
    index_field_types,
    vectorise_queries,
    vectorise_query,
)
from es_imgsearch.kibana.check import find_problems, parse_ndjson
from es_imgsearch.kibana.objects import to_ndjson
from es_imgsearch.search.search_log import create_searches_index
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder, remove_index
from tests.support.fake_kibana import FakeKibana
from tests.support.kibana_queries import (
    SavedObjects,
    leaf_buckets,
    lens_request,
    session_request,
    vega_requests,
)

pytestmark = pytest.mark.process

CHECKOUT = Path(__file__).resolve().parents[2]
COUNT = 24
NOW = datetime.now(tz=UTC)


@pytest.fixture(scope="module")
def shelf(es_url: str) -> Iterator[tuple[Store, Settings]]:
    """An index with every field, failures and searches, which the tests only read."""
    from es_imgsearch.elastic.client import connect
    from es_imgsearch.settings import load_settings

    settings = load_settings({"es_url": es_url, "index": "t-kibana-shelf"})
    store = Store(connect(settings), settings.index)
    remove_index(store, Companion.SEARCHES.alias(store.index))
    encoder = FakeEncoder()
    store.generations.create(new_meta(seal_of(encoder), "balanced", "cosine"))
    create_searches_index(store)
    fill(store, encoder)
    yield store, settings
    remove_index(store, Companion.SEARCHES.alias(store.index))


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
        "root": "root0",
        "relative_path": f"bad{n}.jpg",
        "folder": ".",
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


@pytest.fixture(scope="module")
def saved(shelf: tuple[Store, Settings]) -> SavedObjects:
    store, settings = shelf
    with ImageSearch(settings=settings, encoder=FakeEncoder()) as client:
        builder = create_builder(settings, client.info.properties)
        objects = builder.build_all(vectorise_queries(client, ["red", "navy"]))
    assert find_problems(objects, index_field_types(settings, store.info().properties)) == []
    return SavedObjects(parse_ndjson(to_ndjson(objects)))


def ask(store: Store, index: str, body: dict[str, Any]) -> dict[str, Any]:
    return store.connection.request("POST", f"/{index}/_search", body)


CHOSEN = {"root": "root0", "tags": "cat"}


def test_every_lens_panel_has_something_to_show(shelf: tuple[Store, Settings], saved: SavedObjects):
    store, _ = shelf
    for each in saved.of("lens"):
        view, title = saved.view_of(each), each["attributes"]["title"]
        answer = ask(store, view["title"], lens_request(each, view))
        assert answer["hits"]["total"]["value"] > 0, title
        columns = each["attributes"]["state"]["datasourceStates"]["formBased"]["layers"]["layer"]
        names = columns["columnOrder"]
        if columns["columns"][names[0]]["isBucketed"]:
            buckets = leaf_buckets(answer["aggregations"])
            assert buckets, title
            assert any(each["doc_count"] for each in buckets), title
            has_values = buckets[0]
        else:
            has_values = answer.get("aggregations", {})
        for name in names:
            if isinstance(value := has_values.get(name), dict):
                assert number_of(value), f"{title}: {name}"


def number_of(value: dict[str, Any]) -> Any:
    if "values" in value:
        (value,) = value["values"].values()
        return value
    return value.get("value", value.get("doc_count"))


def test_the_controls_of_a_dashboard_reach_its_panels(
    shelf: tuple[Store, Settings], saved: SavedObjects
):
    store, _ = shelf
    (library,) = [each for each in saved.of("dashboard") if each["id"].endswith("-library")]
    for each in saved.panels(library):
        if each["type"] != "lens" or saved.view_of(each)["title"] != store.index:
            continue
        view = saved.view_of(each)
        everything = ask(store, store.index, lens_request(each, view))
        chosen = ask(store, store.index, lens_request(each, view, chosen=CHOSEN))
        assert everything["hits"]["total"]["value"] == COUNT
        assert chosen["hits"]["total"]["value"] == COUNT // 2


def test_the_time_range_reaches_every_panel(shelf: tuple[Store, Settings], saved: SavedObjects):
    store, _ = shelf
    for each in saved.of("lens"):
        view = saved.view_of(each)
        body = lens_request(each, view, since="now-60y", until="now-59y")
        assert ask(store, view["title"], body)["hits"]["total"]["value"] == 0


def test_every_session_finds_its_columns(shelf: tuple[Store, Settings], saved: SavedObjects):
    store, _ = shelf
    for each in saved.of("search"):
        view, title = saved.view_of(each), each["attributes"]["title"]
        hits = ask(store, view["title"], session_request(each, view))["hits"]["hits"]
        assert hits, title
        for column in each["attributes"]["columns"]:
            assert any(column in hit["fields"] for hit in hits), f"{title}: {column}"
        assert all("image_embedding" not in hit.get("_source", {}) for hit in hits)


def test_the_session_of_duplicates_has_equal_files_side_by_side(
    shelf: tuple[Store, Settings], saved: SavedObjects
):
    store, _ = shelf
    (each,) = [each for each in saved.of("search") if each["id"].endswith("-duplicates")]
    view = saved.view_of(each)
    hits = ask(store, view["title"], session_request(each, view))["hits"]["hits"]
    contents = [hit["_source"]["content_id"] for hit in hits]
    assert contents[::2] == contents[1::2]


def test_large_files_are_those_of_10_mb_and_more(
    shelf: tuple[Store, Settings], saved: SavedObjects
):
    store, _ = shelf
    (each,) = [each for each in saved.of("search") if each["id"].endswith("-large-files")]
    view = saved.view_of(each)
    hits = ask(store, view["title"], session_request(each, view))["hits"]["hits"]
    sizes = [hit["_source"]["size_bytes"] for hit in hits]
    assert sizes == sorted((2_000_000 * (n + 1) for n in range(COUNT) if n >= 4), reverse=True)


def test_every_vega_panel_gets_data(shelf: tuple[Store, Settings], saved: SavedObjects):
    store, _ = shelf
    for each in saved.of("visualization"):
        title = each["attributes"]["title"]
        for index, body in vega_requests(each, chosen={"root": "root0"}):
            answer = ask(store, index, body)
            assert answer["hits"]["total"]["value"] == COUNT // 2, title
        for index, body in vega_requests(each):
            answer = ask(store, index, body)
            if body["size"]:
                assert len(answer["hits"]["hits"]) == COUNT, title
            else:
                buckets = leaf_buckets(answer["aggregations"])
                assert buckets, title
                assert sum(bucket["doc_count"] for bucket in buckets) == COUNT, title


def test_a_saved_search_gives_the_clients_own_order(
    shelf: tuple[Store, Settings], saved: SavedObjects
):
    store, settings = shelf
    (session,) = [each for each in saved.of("search") if each["id"].endswith("-nearest-navy")]
    view = saved.view_of(session)
    body = session_request(session, view)
    assert session["attributes"]["sort"] == [["_score", "desc"]]
    found = [hit["_id"] for hit in ask(store, store.index, body)["hits"]["hits"]]
    with ImageSearch(settings=settings, encoder=FakeEncoder()) as client:
        hits = client.search_text("navy", k=COUNT)
    assert found == [hit.image_id for hit in hits]


def test_the_pill_of_a_saved_search_filters_the_gallery(
    shelf: tuple[Store, Settings], saved: SavedObjects
):
    store, _ = shelf
    (board,) = [each for each in saved.of("dashboard") if each["id"].endswith("-nearest-red")]
    source = json.loads(board["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
    (pill,) = source["filter"]
    assert pill["meta"]["alias"] == "red"
    pill["query"]["knn"] |= {"k": 5, "num_candidates": COUNT}
    (gallery,) = [each for each in saved.panels(board) if each["type"] == "visualization"]
    ((index, body),) = vega_requests(gallery, pills=(pill,))
    assert len(ask(store, index, body)["hits"]["hits"]) == 5


def test_a_saved_search_by_picture_and_words(shelf: tuple[Store, Settings], photographs: Path):
    _, settings = shelf
    with ImageSearch(settings=settings, encoder=FakeEncoder()) as client:
        picture = photographs / "coffee.png"
        query = vectorise_query(client, "red", picture, None)
        assert query.title == "red + coffee.png"
        both = client.embed("red") + client.embed(picture)
    both /= np.linalg.norm(both)
    assert np.allclose(query.knn["query_vector"], both, atol=1e-6)


def test_build_and_check_on_the_command_line(shelf: tuple[Store, Settings], tmp_path: Path):
    _, settings = shelf
    given = ["--index", settings.index, "--es-url", settings.es_url]
    file = tmp_path / "objects.ndjson"
    built = CliRunner().invoke(
        main, ["kibana", "build", "--no-searches", "--output", str(file), *given]
    )
    assert built.exit_code == 0, built.stderr
    printed = CliRunner().invoke(main, ["kibana", "build", "--no-searches", *given])
    assert printed.stdout.encode() == file.read_bytes()
    checked = CliRunner().invoke(main, ["kibana", "check", str(file), *given])
    assert (checked.exit_code, checked.stdout) == (0, "")
    # The file says which index it was built for.
    unsaid = CliRunner().invoke(main, ["kibana", "check", str(file), *given[2:]])
    assert (unsaid.exit_code, unsaid.stdout) == (0, "")
    file.write_bytes(file.read_bytes().replace(b'\\"camera\\"', b'\\"kamera\\"'))
    checked = CliRunner().invoke(main, ["kibana", "check", str(file), *given, "--json"])
    assert checked.exit_code == 1
    problems = json.loads(checked.stdout)
    assert any("'kamera'" in each["what"] for each in problems)


def test_make_kibana(settings: Settings, real_store: Store, starter: Encoder):
    """As somebody runs it in a checkout, with the encoder whose words the ready searches are."""
    real_store.generations.create(new_meta(seal_of(starter), "balanced", "cosine"))
    kibana = FakeKibana()
    try:
        environment = {**os.environ, "ES_URL": settings.es_url, "KIBANA_URL": kibana.url}
        command = ["make", "kibana", f"INDEX={settings.index}", "SPACE=photos"]
        given = {"cwd": CHECKOUT, "env": environment, "capture_output": True, "text": True}
        made = subprocess.run(command, check=False, **given)
        assert made.returncode == 0, made.stderr
        assert {space for space, _, _ in kibana.objects} == {"photos"}
        written = list(kibana.objects.values())
        assert "No problems" in made.stderr
        assert (
            f"{len(written)} saved objects in Kibana at {kibana.url}, space photos" in made.stderr
        )
        assert (
            find_problems(written, index_field_types(settings, real_store.info().properties)) == []
        )
        ready = [each["id"] for each in written if "-nearest-" in each["id"]]
        # A session and a gallery for each of kibana/queries.yaml.
        assert len(ready) == 2 * 6
    finally:
        kibana.close()
