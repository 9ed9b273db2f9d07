"""Every query of every saved object, as Kibana would send it, on a filled index."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from es_imgsearch import ImageSearch
from es_imgsearch.cli import main
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.kibana.build import (
    create_builder,
    index_field_types,
    vectorise_query,
)
from es_imgsearch.kibana.check import find_problems, parse_ndjson
from es_imgsearch.kibana.objects import to_ndjson
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder
from tests.e2e.kibana.conftest import COUNT
from tests.support.fake_kibana import FakeKibana
from tests.support.kibana_queries import (
    SavedObjects,
    leaf_buckets,
    lens_request,
    session_request,
    vega_requests,
)

pytestmark = pytest.mark.process

CHECKOUT = Path(__file__).resolve().parents[3]


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
    if "hits" in value:
        return value["hits"]["hits"]
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
            if "-nearest-" in each["id"]:
                assert 0 < answer["hits"]["total"]["value"] <= COUNT // 2, title
            else:
                assert answer["hits"]["total"]["value"] == COUNT // 2, title
        for index, body in vega_requests(each):
            answer = ask(store, index, body)
            if "-nearest-" in each["id"]:
                assert 0 < len(answer["hits"]["hits"]) < COUNT, title
            elif body["size"]:
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
    assert found == [hit.image_id for hit in hits[: len(found)]]
    assert 0 < len(found) < COUNT


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


def run(*words: str) -> Any:
    return CliRunner().invoke(main, ["kibana", *words])


def test_without_a_log_of_searches_its_dashboard_is_left_out_or_named(
    settings: Settings, real_store: Store, tmp_path: Path
):
    """As after a plain `init`, which makes no index of searches."""
    real_store.generations.create(new_meta(seal_of(FakeEncoder()), "balanced", "cosine"))
    given = ["--index", settings.index, "--es-url", str(settings.es_url)]
    file = tmp_path / "objects.ndjson"
    assert run("build", "--no-searches", "--output", str(file), *given).exit_code == 0
    assert f"{settings.index}-searches" not in file.read_text()
    assert run("check", str(file), *given).exit_code == 0
    # A file of an earlier version, or of another cluster.
    everything = create_builder(settings).build_all()
    file.write_bytes(to_ndjson(everything))
    checked = run("check", str(file), *given)
    assert checked.exit_code == 1
    assert checked.stdout.count("\n") == 1
    assert f"there is no index '{settings.index}-searches'" in checked.stdout
    # What the message advises helps.
    environment = {"ES_IMGSEARCH_LOG_SEARCHES": "true"}
    made = CliRunner(env=environment).invoke(main, ["init", *given])
    assert made.exit_code == 0, made.stderr
    assert run("check", str(file), *given).exit_code == 0
    built = CliRunner(env=environment).invoke(
        main, ["kibana", "build", "--no-searches", "--output", str(file), *given]
    )
    assert built.exit_code == 0
    assert file.read_bytes() == to_ndjson(everything)


def test_a_saved_search_in_a_file_has_no_problems(
    settings: Settings, real_store: Store, starter: Encoder, tmp_path: Path
):
    real_store.generations.create(new_meta(seal_of(starter), "balanced", "cosine"))
    given = ["--es-url", str(settings.es_url)]
    file = tmp_path / "search.ndjson"
    saved = run(
        "save-search", "a dog", "--min-relevance", "0.5", "--output", str(file),
        "--index", settings.index, *given,
    )  # fmt: skip
    assert saved.exit_code == 0, saved.stderr
    objects = parse_ndjson(file.read_bytes())
    assert [each["type"] for each in objects] == ["query", "search", "visualization", "dashboard"]
    # Without --index: the objects say which it is.
    checked = run("check", str(file), *given)
    assert (checked.exit_code, checked.stdout) == (0, "")
    for gone in ("search", "visualization"):
        left = [each for each in objects if each["type"] != gone]
        file.write_bytes(to_ndjson(left))
        checked = run("check", str(file), *given)
        assert checked.exit_code == 1
        assert f"leads to {gone}/" in checked.stdout


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
        # A query, a session, a gallery and its dashboard for each of kibana/queries.yaml.
        assert len(ready) == 4 * 6
        assert "Left out the dashboard on searches" in made.stderr
        assert not [each for each in written if "searches" in str(each["attributes"])]
    finally:
        kibana.close()
