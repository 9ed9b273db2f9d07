"""Calibrating a real index, and what `relevance` and `min_relevance` then say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from es_imgsearch import ImageSearch
from es_imgsearch.cli import main
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, Companion, new_meta
from es_imgsearch.elastic.meta_entries import Curve
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import FileInvalid, NotCalibrated, UsageError
from es_imgsearch.quality.calibrate import calibrate
from es_imgsearch.quality.labels import Labels, queries_by_label
from es_imgsearch.search.query import StoredPicture
from es_imgsearch.search.relevance import IMAGE, TEXT, sample_background
from es_imgsearch.search.request_flow import run_flow
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder

COLOURS = (
    "red", "green", "blue", "yellow", "cyan", "magenta", "white", "black", "orange", "purple",
    "brown", "pink", "navy", "lime", "teal", "olive", "maroon", "gold", "coral", "indigo",
)  # fmt: skip
EACH = 6


def pictures_of(colours: tuple[str, ...], seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Paths and vectors of pictures near a colour, some nearer than others."""
    generator = np.random.default_rng(seed)
    pure = FakeEncoder().embed_texts(colours)
    paths, vectors = [], []
    for colour, vector in zip(colours, pure, strict=True):
        for number in range(EACH):
            noisy = vector + generator.normal(0, 0.03 + 0.04 * number, len(vector))
            vectors.append(noisy / np.linalg.norm(noisy))
            paths.append(f"{colour}/{number}.png")
    return paths, np.asarray(vectors, np.float32)


def fill(store: Store, paths: list[str], vectors: np.ndarray) -> None:
    writes = []
    for path, vector in zip(paths, vectors, strict=True):
        image_id = path.replace("/", "-")
        document = {
            "image_id": image_id, "root": "r", "relative_path": path, "image_name": path,
            "folder": path.split("/")[0], "content_id": f"content {path}",
            "tags": [path.split("/")[0]], VECTOR_FIELD: vector,
        }  # fmt: skip
        writes.append(Write(image_id, document))
    assert not any(store.documents.write(writes).values())
    store.refresh()


def labels_of(paths: list[str]) -> Labels:
    pictures = {path: (path.split("/")[0],) for path in paths}
    return Labels(queries_by_label(pictures), pictures)


@pytest.fixture
def store(real_store: Store) -> Iterator[Store]:
    """An index of 20 colours, 6 pictures each; its background is removed with it."""
    real_store.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine"))
    fill(real_store, *pictures_of(COLOURS))
    yield real_store
    names = [f"{Companion.BACKGROUND.alias(real_store.index)}-{n:06}" for n in (1, 2, 3)]
    real_store.connection.client.indices.delete(index=names, ignore_unavailable=True)


@pytest.fixture
def search(store: Store, settings: Settings) -> ImageSearch:
    return ImageSearch(settings=settings, encoder=FakeEncoder())


def run(settings: Settings, *arguments: str) -> Result:
    return CliRunner(env={"ES_URL": settings.es_url}).invoke(
        main, [*arguments, "--index", settings.index]
    )


def test_calibrated_hits_carry_the_probability_of_the_formula(search: ImageSearch, store: Store):
    paths, vectors = pictures_of(COLOURS)
    found = calibrate(search, labels_of(paths))
    assert found.background == len(paths)
    assert found.quality[TEXT].brier < found.quality[TEXT].brier_of_share
    curves = search.info.meta.relevance
    assert curves == found.curves
    encoder = FakeEncoder()
    by_id = dict(zip([path.replace("/", "-") for path in paths], vectors, strict=True))
    cases = {TEXT: "red", IMAGE: StoredPicture("blue-0.png")}
    for kind, query in cases.items():
        vector = encoder.embed_texts(["red"])[0] if kind == TEXT else by_id["blue-0.png"]
        foreign = np.array([each @ vector for each in vectors if each @ vector < 0.9999])
        curve = curves[kind]
        hits = search.search(query, k=20, mode="vector")
        assert len(hits) == 20
        for hit in hits:
            cosine = by_id[hit.image_id] @ vector
            z = (cosine - foreign.mean()) / foreign.std()
            odds = curve.intercept + curve.z_weight * z + curve.cosine_weight * cosine
            assert hit.relevance == pytest.approx(1 / (1 + np.exp(-odds)), abs=2e-3)
        assert [hit.relevance for hit in hits] == sorted(
            (hit.relevance for hit in hits), reverse=True
        )


def test_min_relevance_leaves_out_what_is_below(search: ImageSearch, store: Store):
    calibrate(search, labels_of(pictures_of(COLOURS)[0]))
    whole = search.search_text("red", k=40)
    for at_least in (0.0, 0.1, 0.5, 0.9, 1.0):
        wanted = [hit.image_id for hit in whole if hit.relevance >= at_least]
        kept = search.search_text("red", k=40, min_relevance=at_least)
        assert [hit.image_id for hit in kept] == wanted
        page = search.search_text("red", k=40, min_relevance=at_least, offset=1, size=2)
        assert [hit.image_id for hit in page] == wanted[1:3]
    # Facets and collapsing see what is left.
    least = whole[5].relevance
    some = search.search_text("red", k=40, min_relevance=least)
    assert 6 <= len(some) < 40
    counted = search.search_text("red", k=40, min_relevance=least, facets=["tags"], collapse=True)
    assert sum(counted.facets["tags"].values()) == len(some)


def test_half_means_the_same_for_every_query_and_absent_things_are_few(
    search: ImageSearch, store: Store
):
    """Fitted on ten colours, asked for ten others, among them five without a picture."""
    known, others = COLOURS[::2], COLOURS[1::2]
    calibrate(search, labels_of(pictures_of(known)[0]))
    gone = others[:5]
    store.documents.delete([f"{colour}-{n}.png" for colour in gone for n in range(EACH)])
    store.refresh()
    right = shown = 0
    for colour in others[5:]:
        hits = search.search_text(colour, k=20, min_relevance=0.5)
        shown += len(hits)
        right += sum(hit.fields["folder"] == colour for hit in hits)
    assert right / shown >= 0.5
    accepted = sum(len(search.search_text(c, k=1, min_relevance=0.9)) for c in gone)
    assert accepted <= 2


def test_the_background_stays_while_the_index_grows(search: ImageSearch, store: Store):
    calibrate(search, labels_of(pictures_of(COLOURS)[0]))
    before = [hit.relevance for hit in search.search_text("red", k=3)]
    generator = np.random.default_rng(9)
    vectors = FakeEncoder().embed_texts(["red"]) + generator.normal(0, 0.6, (60, 48))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    fill(store, [f"more/{n}.png" for n in range(60)], vectors.astype(np.float32))
    search.reload()
    assert [hit.relevance for hit in search.search_text("red", k=3)] == before
    # Calibrated again, the sample is drawn again; one index stands behind the alias.
    found = calibrate(search, labels_of(pictures_of(COLOURS)[0]))
    assert found.background == len(COLOURS) * EACH + 60
    alias = Companion.BACKGROUND.alias(store.index)
    assert list(store.connection.request("GET", f"/{alias}")) == [f"{alias}-000002"]
    assert store.connection.request("GET", f"/{alias}/_count")["count"] == found.background


def test_the_sample_is_the_same_whoever_draws_it_and_holds_each_content_once(store: Store):
    paths, vectors = pictures_of(COLOURS)
    writes = [
        Write(f"copy {n}", {
            "image_id": f"copy {n}", "root": "r", "relative_path": f"copy/{n}.png",
            "content_id": f"content {paths[0]}", VECTOR_FIELD: vectors[0],
        })
        for n in range(5)
    ]  # fmt: skip
    store.documents.write(writes)
    store.refresh()
    whole = run_flow(sample_background(store.index), store.send)
    assert sorted(whole.content_ids) == sorted(f"content {path}" for path in paths)
    by_content = dict(zip((f"content {path}" for path in paths), vectors, strict=True))
    for content_id, vector in zip(whole.content_ids, whole.vectors, strict=True):
        np.testing.assert_allclose(vector, by_content[content_id], atol=1e-6)
    part = run_flow(sample_background(store.index, 30), store.send)
    assert part.content_ids == whole.content_ids[:30]


def test_a_background_of_another_encoder_is_not_compared_with(search: ImageSearch, store: Store):
    calibrate(search, labels_of(pictures_of(COLOURS)[0]))
    before = [hit.relevance for hit in search.search_text("red", k=3, mode="vector")]
    alias = Companion.BACKGROUND.alias(store.index)
    mapping = store.connection.request("GET", f"/{alias}")[f"{alias}-000001"]["mappings"]["_meta"]
    mapping["encoder"]["fingerprint"] = "another"
    store.connection.request("PUT", f"/{alias}/_mapping", {"_meta": mapping})
    store.documents.delete([f"{colour}-{n}.png" for colour in COLOURS[10:] for n in range(EACH)])
    store.refresh()
    search.reload()
    # The sample is that of what is left in the index.
    after = [hit.relevance for hit in search.search_text("red", k=3, mode="vector")]
    assert None not in after
    assert after != before


def test_too_few_pictures_have_no_relevance(search: ImageSearch, store: Store):
    store.generations.update_meta(_calibrated)
    search.reload()
    assert search.search_text("red", k=1)[0].relevance is not None
    store.documents.delete([f"{colour}-{n}.png" for colour in COLOURS[4:] for n in range(EACH)])
    store.refresh()
    search.reload()
    assert search.search_text("red", k=1)[0].relevance is None
    few = "holds 24 different pictures; relevance needs 30"
    assert search.search_text("red", k=1).notes == (
        f"Index {store.index!r} {few}, so hits have no percentage.",
    )
    with pytest.raises(NotCalibrated, match=rf"{few}: add pictures with `es-imgsearch sync DIR"):
        search.search_text("red", k=1, min_relevance=0.3)
    with pytest.raises(UsageError, match="24 different pictures, too few"):
        calibrate(search, labels_of(pictures_of(COLOURS)[0]))


def _calibrated(meta):
    from dataclasses import replace

    return replace(meta, relevance={TEXT: Curve(-3, 1, 1)})


def test_a_vector_has_no_relevance_and_a_kind_without_fitted_curve_a_derived_one(
    search: ImageSearch, store: Store
):
    store.generations.update_meta(_calibrated)
    search.reload()
    vector = FakeEncoder().embed_texts(["red"])[0]
    assert search.search(vector, k=1)[0].relevance is None
    with pytest.raises(NotCalibrated, match="a vector"):
        search.search(vector, k=1, min_relevance=0.5)
    assert search.similar("red-0.png", k=1)[0].relevance is not None


def test_labels_that_are_too_few_raise(search: ImageSearch):
    paths = pictures_of(COLOURS)[0]
    with pytest.raises(UsageError, match="too few to calibrate"):
        calibrate(search, labels_of(paths[:2]))
    with pytest.raises(FileInvalid, match="labels of pictures, not queries"):
        calibrate(search, Labels(queries_by_label({paths[0]: ("x",)}), {}))
    with pytest.raises(FileInvalid, match="holds none of the 1 pictures of the file"):
        calibrate(search, labels_of(["elsewhere/1.png"]))
    assert search.info.meta.relevance == {}


def test_the_command_line_without_labels(store: Store, settings: Settings, tmp_path: Path):
    queries = tmp_path / "q.csv"
    queries.write_text("query,path\nred,red/0.png\n")
    done = run(settings, "calibrate", str(queries))
    assert done.exit_code == 2
    assert "(path,label), not queries" in done.stderr


def test_an_encoder_of_pictures_only_is_calibrated_and_searched_on_the_command_line(
    real_store: Store, settings: Settings, tmp_path: Path
):
    """The command line has no fake encoder, so this one is known by its pictures only."""
    encoder = FakeEncoder(supports_text=False)
    real_store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"))
    paths, vectors = pictures_of(COLOURS)
    fill(real_store, paths, vectors)
    file = tmp_path / "labels.csv"
    file.write_text("path,label\n" + "".join(f"{p},{p.split('/')[0]}\n" for p in paths))
    try:
        done = run(settings, "calibrate", str(file), "--json")
        assert done.exit_code == 0, done.stderr
        told = json.loads(done.stdout)
        assert set(told["curves"]) == {IMAGE}
        assert told["quality"][IMAGE]["brier"] < told["quality"][IMAGE]["brier_of_share"]
        plain = run(settings, "calibrate", str(file))
        assert "false acceptances" in plain.stdout
        assert f"Calibrated queries by image of index {settings.index!r}" in plain.stderr
        arguments = ("similar", "red-0.png", "-k", "30", "--json-hits")
        whole = json.loads(run(settings, *arguments).stdout)
        least = whole[5]["relevance"]
        kept = json.loads(run(settings, *arguments, "--min-relevance", str(least)).stdout)
        assert kept == [hit for hit in whole if hit["relevance"] >= least]
        assert 0 < len(kept) < len(whole)
    finally:
        names = [f"{Companion.BACKGROUND.alias(settings.index)}-{n:06}" for n in (1, 2, 3)]
        real_store.connection.client.indices.delete(index=names, ignore_unavailable=True)


def test_imported_pictures_without_content_ids_are_a_background(search: ImageSearch, store: Store):
    paths, vectors = pictures_of(COLOURS[:8])
    store.documents.delete([path.replace("/", "-") for path in pictures_of(COLOURS)[0]])
    writes = [
        Write(f"{n}", {
            "image_id": f"{n}", "root": "r", "relative_path": path,
            # Vectors made elsewhere need not be of unit length.
            VECTOR_FIELD: vector * 30,
        })
        for n, (path, vector) in enumerate(zip(paths, vectors, strict=True))
    ]  # fmt: skip
    assert not any(store.documents.write(writes).values())
    store.generations.update_meta(_calibrated)
    store.refresh()
    search.reload()
    assert search.search_text("red", k=1)[0].relevance is not None
    drawn = run_flow(sample_background(store.index), store.send)
    assert sorted(drawn.image_ids) == sorted(each.image_id for each in writes)
    np.testing.assert_allclose(np.linalg.norm(drawn.vectors, axis=1), 1, atol=1e-6)
