"""`plan` on a real server: an index is measured, and what is measured tells its own size."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from es_imgsearch.cli import main
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.manage.production.plan import measure_index
from es_imgsearch.testing import FakeEncoder

PICTURES = 1500


def write(store: Store, first: int, count: int) -> None:
    vectors = np.random.default_rng(first).normal(size=(count, FakeEncoder.dims))
    for start in range(0, count, 500):
        writes = [
            Write(
                f"{number:032x}",
                document={
                    "image_id": f"{number:032x}", "root": "photos", "content_id": f"{number:064x}",
                    "relative_path": f"2024/{number}.jpg", "embed_ms": 10.0 + number % 5,
                    "image_embedding": vector.astype(np.float32),
                },
            )
            for number, vector in enumerate(vectors[start : start + 500], first + start)
        ]  # fmt: skip
        assert not any(store.documents.write(writes).values())
    store.refresh()


@pytest.fixture
def store(real_store: Store) -> Store:
    real_store.generations.create(new_meta(seal_of(FakeEncoder()), "balanced", "cosine"))
    return real_store


def plan(store: Store, *options: str) -> dict[str, object]:
    arguments = ["plan", "--index", store.index, "--json", *options]
    url = f"http://{store.connection.address.partition('://')[2]}"
    ran = CliRunner(env={"ES_URL": url}).invoke(main, arguments)
    assert ran.exit_code == 0, ran.output
    made: dict[str, object] = json.loads(ran.stdout)
    return made


def test_an_index_that_is_there_is_measured(store: Store):
    write(store, 0, PICTURES)
    measured = measure_index(store)
    assert (measured.encoder, measured.dims, measured.pictures) == ("fake", 48, PICTURES)
    assert measured.embed_ms == pytest.approx(12, abs=0.5)
    # Whole vectors, their quantised copies and the graph.
    assert measured.vector_bytes is not None
    assert 48 * 4 + 48 + 4 < measured.vector_bytes < 48 * 4 + 48 + 4 + 64
    assert measured.document_bytes is not None
    assert 50 < measured.document_bytes < 1000
    made = plan(store, "--pictures", str(PICTURES), "--profile", "balanced")
    (only,) = made["profiles"]  # type: ignore[misc]
    stored = store.connection.request("GET", f"/{store.index}/_stats/store")
    size = stored["_all"]["primaries"]["store"]["size_in_bytes"]
    # It still has the copies that are kept for replicas for some time.
    assert 0.3 * size < only["sizes"]["disk_bytes"] < 1.1 * size
    assert made["embed_ms"] == pytest.approx(12, abs=0.5)


def test_few_pictures_say_nothing_of_sizes(store: Store):
    write(store, 0, 20)
    made = plan(store, "--pictures", "1000000")
    assert made["document_bytes"] == 700
    assert made["encoder"] == "fake"
    assert any("too few to measure" in each for each in made["basis"])  # type: ignore[attr-defined]


def test_without_an_index_or_a_server_it_plans_all_the_same(es_url: str):
    for url, said in ((es_url, "There is no index 'nothing'"), ("http://127.0.0.1:1", "measured")):
        ran = CliRunner(env={"ES_URL": url}).invoke(
            main, ["plan", "--pictures", "10000000", "--nodes", "3", "--index", "nothing"]
        )
        assert ran.exit_code == 0, ran.output
        assert said in ran.stderr
        assert "balanced  66.6 GB     11.6 GB  3 of 11.1 GB" in ran.stdout
        assert "es-imgsearch init --index nothing --encoder clip --profile binary" in ran.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pictures", "0"], "0 is not in the range"),
        (["--pictures", "many"], "not a valid integer"),
        (["--pictures", "10", "--replicas", "1"], "--nodes 2"),
        (["--pictures", "10", "--nodes", "0"], "0 is not in the range"),
        (["--pictures", "10", "--profile", "tiny"], "There is no profile 'tiny'"),
        (["--pictures", "10", "--encoder", "unheard/of"], "give --dims N"),
        ([], "--pictures"),
    ],
)
def test_wrong_use(es_url: str, options: list[str], said: str):
    ran = CliRunner(env={"ES_URL": es_url}).invoke(main, ["plan", "--index", "nothing", *options])
    assert ran.exit_code == 2
    assert said in ran.stderr


def test_what_an_unknown_encoder_needs_is_taken(es_url: str):
    options = ["--index", "nothing", "--pictures", "10", "--encoder", "unheard/of", "--dims", "7"]
    ran = CliRunner(env={"ES_URL": es_url}).invoke(main, ["plan", *options])
    assert ran.exit_code == 0
    assert "7 dims (unheard/of)" in ran.stdout
