"""`tune` on the real server reaches its target, also on queries that it never saw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from elasticsearch import Elasticsearch

from es_imgsearch import ImageSearch
from es_imgsearch.cli import main
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, new_meta
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.meta_entries import TunedK, Tuning
from es_imgsearch.elastic.queries import knn_body
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import TextUnsupported, UsageError
from es_imgsearch.quality.tune import tune
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder

DIMS = 96
TARGET = 0.95


def clustered(count: int, seed: int, dims: int = DIMS) -> np.ndarray:
    """Unit vectors around 40 centres."""
    centres = np.random.default_rng(1).normal(size=(40, dims))
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(40, size=count)] + random.normal(size=(count, dims))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def fill(
    store: Store,
    vectors: np.ndarray,
    profile: str = "balanced",
    *,
    contents: Sequence[str] | None = None,
    seal: Seal | None = None,
    similarity: str = "cosine",
) -> None:
    """An id is the vector's position; contents differ unless they are given."""
    store.generations.create(
        new_meta(seal or Seal("f", "1", vectors.shape[1], "1"), profile, similarity)
    )
    for start in range(0, len(vectors), 500):
        writes = []
        for n in range(start, min(start + 500, len(vectors))):
            fields = {
                "image_id": str(n),
                "image_name": f"{n}.jpg",
                "root": "r",
                "relative_path": f"{n}.jpg",
                "content_id": contents[n] if contents else f"c{n}",
                VECTOR_FIELD: vectors[n],
            }
            writes.append(Write(str(n), document=fields))
        assert set(store.documents.write(writes).values()) == {None}
    store.refresh()
    store.generations.merge(wait_seconds=120)


def recall_of(store: Store, k: int, stored: np.ndarray, queries: np.ndarray) -> float:
    """Beside NumPy, with the setting that is stored now."""
    tuning = store.info().meta.tuning
    found = 0
    for query in queries:
        answer = store.searches.search(knn_body(query, k, tuning, source=False))
        right = set(map(str, np.argsort(-(stored @ query))[:k]))
        found += len(right & {hit["_id"] for hit in answer["hits"]["hits"]})
    return found / (k * len(queries))


@pytest.mark.parametrize("profile", ["balanced", "compact", "binary"])
def test_the_target_is_reached_on_new_queries(real_store: Store, profile: str):
    stored = clustered(2500, seed=2)
    fill(real_store, stored, profile)
    outcome = tune(real_store, target_recall=TARGET, queries=160)
    assert outcome.missed == ()
    assert [each.k for each in outcome.tuning.per_k] == [1, 10, 100]
    for each in outcome.tuning.per_k:
        assert each.recall >= TARGET
        assert each.num_candidates >= each.k
        assert each.num_candidates < 2500
    fresh = clustered(150, seed=3)
    for k in (1, 10, 100):
        # Three standard deviations of the mean of 150 queries.
        slack = 3 * (0.2 if k == 1 else 0.07) / 150**0.5
        assert recall_of(real_store, k, stored, fresh) >= TARGET - slack
    # What was measured of the held-back half is what was stored.
    stored_tuning = real_store.info().meta.tuning
    assert stored_tuning == outcome.tuning
    assert stored_tuning.pictures == 2500
    assert (stored_tuning.queries_tuned_on, stored_tuning.queries_held_back) == (80, 80)


def test_a_plateau_raises_the_oversample_not_the_candidates(real_store: Store):
    """1-bit codes that are not compared again find about half, with however many candidates."""
    fill(real_store, clustered(2000, seed=2), "binary")
    outcome = tune(real_store, target_recall=TARGET, queries=80, oversamples=(0.0, 1.0, 2.0))
    of_ten = [point for point in outcome.curve if point.k == 10 and not point.held_back]
    flat = [point for point in of_ten if point.oversample == 0]
    assert max(point.recall for point in flat) < 0.8
    # It gave up after three, where the most would have been 2,000 candidates.
    assert max(point.num_candidates for point in flat) <= 50
    assert outcome.tuning.oversample == 1.0
    assert outcome.missed == ()


@pytest.mark.parametrize("similarity", ["dot_product", "l2_norm"])
def test_every_similarity_and_the_exact_profile(real_store: Store, similarity: str):
    fill(real_store, clustered(400, seed=2), "exact", similarity=similarity)
    outcome = tune(real_store, target_recall=1.0, queries=40)
    assert outcome.missed == ()
    # Nothing was quantised, and every vector is compared whatever is asked for.
    assert [(each.num_candidates, each.oversample) for each in outcome.tuning.per_k] == [
        (20, None), (20, None), (100, None),
    ]  # fmt: skip


def test_every_content_counts_once(real_store: Store):
    """Each is stored 30 times; 60 pictures are drawn of 40 contents."""
    different = clustered(40, seed=2)
    stored = np.repeat(different, 30, axis=0)
    fill(real_store, stored, contents=[f"c{n // 30}" for n in range(len(stored))])
    outcome = tune(real_store, target_recall=TARGET, queries=60)
    assert outcome.missed == ()
    tuning = outcome.tuning
    assert tuning.queries_tuned_on is not None
    assert tuning.queries_held_back is not None
    assert tuning.queries_tuned_on + tuning.queries_held_back <= 40


def test_equal_vectors_of_different_contents_are_all_right(real_store: Store):
    stored = np.repeat(clustered(10, seed=2), 60, axis=0)
    fill(real_store, stored)
    assert tune(real_store, target_recall=1.0, queries=20).missed == ()


def test_fewer_pictures_than_k(real_store: Store):
    fill(real_store, clustered(12, seed=2))
    outcome = tune(real_store, target_recall=1.0)
    assert outcome.missed == ()
    assert real_store.info().meta.tuning.pictures == 12


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_pictures_raise(real_store: Store, count: int):
    fill(real_store, clustered(count, seed=2))
    with pytest.raises(UsageError, match=r"too few different pictures .* sync"):
        tune(real_store)
    assert real_store.info().meta.tuning == Tuning(50, 2.0)


def test_an_unreachable_target_is_reported_and_the_best_setting_stored(real_store: Store):
    """Without a second comparison 1-bit codes never find everything."""
    fill(real_store, clustered(600, seed=2), "binary")
    outcome = tune(real_store, target_recall=1.0, queries=40, oversamples=(0.0,))
    assert 10 in outcome.missed
    stored = real_store.info().meta.tuning
    of_ten = next(each for each in stored.per_k if each.k == 10)
    assert of_ten.recall == pytest.approx(
        max(p.recall for p in outcome.curve if p.k == 10 and p.held_back), abs=1e-4
    )


def test_texts_are_queries_too(real_store: Store):
    encoder = FakeEncoder()
    pictures = np.random.default_rng(0).integers(0, 256, (600, 32, 32, 3), np.uint8)
    fill(real_store, encoder.embed_images(pictures), seal=seal_of(encoder))
    texts = [f"#{n:02x}{255 - n:02x}80" for n in range(0, 250, 10)]
    outcome = tune(real_store, queries=40, encoder=encoder, texts=texts)
    assert outcome.missed == ()
    for point in outcome.curve:
        assert point.recall_by_kind.keys() == {"picture", "text"}
        assert point.recall == min(point.recall_by_kind.values())
    with pytest.raises(TextUnsupported):
        tune(real_store, queries=40, encoder=FakeEncoder(supports_text=False), texts=texts)


def test_the_client_uses_what_was_stored(
    real_store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    encoder = FakeEncoder()
    pictures = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), np.uint8)
    fill(real_store, encoder.embed_images(pictures), seal=seal_of(encoder))
    search = ImageSearch(settings=settings, encoder=encoder)
    before = search.search_text("red", k=10, mode="vector")
    sent: list[dict] = []
    perform = Elasticsearch.perform_request

    def watched(self, method, path, *, body=None, **given):
        if isinstance(body, bytes) and b'"knn"' in body:
            sent.append(json.loads(body))
        return perform(self, method, path, body=body, **given)

    per_k = (TunedK(1, 4, 1.0, 1.0), TunedK(10, 23, 5.0, 1.0), TunedK(100, 140, 1.0, 1.0))
    real_store.generations.update_meta(lambda meta: replace(meta, tuning=Tuning(23, 5.0, per_k)))
    search.reload()
    monkeypatch.setattr(Elasticsearch, "perform_request", watched)
    after = search.search_text("red", k=10, mode="vector")
    search.search_text("red", k=10, mode="vector", num_candidates=31)
    tuned, by_hand = (body["knn"] for body in sent)
    assert (tuned["num_candidates"], tuned["rescore_vector"]) == (23, {"oversample": 5.0})
    assert by_hand["num_candidates"] == 31
    assert [hit.image_id for hit in after] == [hit.image_id for hit in before]


# -- the command ---------------------------------------------------------------------------


def run(settings: Settings, *arguments: str) -> Result:
    address = ["--index", settings.index, "--es-url", settings.es_url]
    return CliRunner().invoke(main, ["tune", *arguments, *address])


def test_the_command_prints_the_curve_and_says_what_it_stored(
    real_store: Store, settings: Settings, tmp_path: Path
):
    fill(real_store, clustered(500, seed=2))
    plot = tmp_path / "curve.png"
    done = run(settings, "--queries", "40", "--no-texts", "--plot", str(plot))
    assert done.exit_code == 0, done.output
    table = done.stdout.splitlines()
    assert table[0].split() == [
        "k", "candidates", "oversample", "recall", "pictures", "took", "ms", "wall", "ms",
        "queries",
    ]  # fmt: skip
    assert {line.split()[0] for line in table[1:]} == {"1", "10", "100"}
    assert {line.rpartition("  ")[2] for line in table[1:]} == {"tuned on", "held back"}
    assert "Stored in" in done.stderr
    assert "20 queries held back" in done.stderr
    assert plot.read_bytes().startswith(b"\x89PNG")
    shown = CliRunner().invoke(
        main, ["status", "--json", "--index", settings.index, "--es-url", settings.es_url]
    )
    assert json.loads(shown.stdout)["tuning"]["target_recall"] == 0.95


def test_a_plot_that_cannot_be_written_costs_no_measurement(
    real_store: Store, settings: Settings, tmp_path: Path
):
    fill(real_store, clustered(300, seed=2))
    (tmp_path / "full.png").symlink_to("/dev/full")
    plot = ("--plot", str(tmp_path / "full.png"))
    done = run(settings, "--queries", "20", "--no-texts", "--json", *plot)
    assert done.exit_code == 2, done.output
    assert "full.png' cannot be written" in done.stderr.splitlines()[-1]
    assert "Stored in" in done.stderr
    assert json.loads(done.stdout)["curve"]


def test_the_command_as_json_and_without_the_model(real_store: Store, settings: Settings):
    """No encoder is called `f`: what needs no model goes on without it."""
    fill(real_store, clustered(300, seed=2))
    done = run(settings, "--queries", "20", "--target-recall", "0.9", "--json")
    assert done.exit_code == 0, done.output
    assert "Tuning with stored pictures only" in done.stderr
    found = json.loads(done.stdout)
    assert found["reached"] is True
    assert found["tuning"]["target_recall"] == 0.9
    assert {point["k"] for point in found["curve"]} == {1, 10, 100}
    assert all(0 <= point["recall"] <= 1 for point in found["curve"])


def test_the_command_ends_with_1_where_the_target_is_out_of_reach(
    real_store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    fill(real_store, clustered(600, seed=2), "binary")
    monkeypatch.setitem(tune.__kwdefaults__, "oversamples", (0.0,))
    done = run(settings, "--queries", "20", "--target-recall", "1", "--no-texts")
    assert done.exit_code == 1
    assert "was not reached for k" in done.stderr
    assert "Stored in" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target-recall", "0"], "target-recall"),
        (["--target-recall", "1.1"], "target-recall"),
        (["--queries", "1"], "queries"),
        (["--texts", "no-such-file"], "cannot be read"),
        (["--texts", "no-such-file", "--no-texts"], "exclude each other"),
    ],
)
def test_wrong_use_prints_what_is_wrong(settings: Settings, arguments: list[str], words: str):
    done = run(settings, *arguments)
    assert done.exit_code == 2
    assert words in done.stderr


def test_texts_without_the_model_are_refused(real_store: Store, settings: Settings, tmp_path: Path):
    fill(real_store, clustered(20, seed=2))
    texts = tmp_path / "texts"
    texts.write_text("a cat\n\na dog\n", encoding="utf-8")
    assert run(settings, "--texts", str(texts)).exit_code == 2
    texts.write_text("a cat\n", encoding="utf-8")
    done = run(settings, "--texts", str(texts))
    assert done.exit_code == 2
    assert "fewer than two" in done.stderr
