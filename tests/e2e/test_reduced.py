"""An index of the profile `reduced` on the real server: made, filled, searched, put in order."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from es_imgsearch.cli import main
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, Companion, new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import open_context
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.reduction import Reduction, load_reduction
from es_imgsearch.errors import (
    EncoderMismatch,
    IndexConflict,
    NotCalibrated,
    StoreRejected,
    UsageError,
)
from es_imgsearch.manage.init import create_index
from es_imgsearch.manage.status import index_status
from es_imgsearch.manage.transfer.export import export_pictures
from es_imgsearch.manage.transfer.importing import ImportOptions, import_pictures
from es_imgsearch.manage.verify import verify
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.quality.labels import Labels
from es_imgsearch.records import image_id
from es_imgsearch.search.client import ImageSearch
from es_imgsearch.search.reduced import register_imported_originals, register_originals
from es_imgsearch.search.relevance import BackgroundSample, read_background, store_background
from es_imgsearch.search.request_flow import run_flow
from es_imgsearch.settings import Settings
from es_imgsearch.tags.train import TRAINED, ZERO_SHOT, evaluate_tags
from es_imgsearch.testing import FakeEncoder, remove_index
from es_imgsearch.watch.roots import parse_roots, register_roots
from tests.support.house import described, paint, pixels

DIMS, KEPT, COUNT = FakeEncoder.dims, 12, 400


def vectors_of_pictures(count: int = COUNT, seed: int = 0) -> np.ndarray:
    """Unit vectors around 30 centres, more spread in some directions than in others."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(30, DIMS))
    spread = 1.0 / np.sqrt(np.arange(1, DIMS + 1))
    near = random.normal(size=(count, DIMS)) * 0.6
    return unit((centres[random.integers(30, size=count)] + near) * spread)


def unit(vectors: np.ndarray) -> np.ndarray:
    rows = np.asarray(vectors, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def fields(n: int, content: str | None = None) -> dict:
    path = f"{n:04}.jpg"
    return {
        "image_id": image_id("shop", path),
        "root": "shop",
        "relative_path": path,
        "image_name": path,
        "content_id": content or f"content-{n}",
        "size_bytes": n,
        "mtime_ns": n,
        "tags": ["even" if n % 2 == 0 else "odd"],
    }


def number_of(hit) -> int:
    return int(hit.relative_path.removesuffix(".jpg"))


@pytest.fixture
def whole(real_store: Store) -> Iterator[Store]:
    """An index of COUNT whole vectors, from which samples and originals come."""
    store = Store(real_store.connection.client, f"{real_store.index}-whole")
    store.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine"), described())
    vectors = vectors_of_pictures()
    documents = [fields(n) | {VECTOR_FIELD: vectors[n]} for n in range(COUNT)]
    results = store.documents.write([Write(each["image_id"], document=each) for each in documents])
    assert not any(results.values())
    store.refresh()
    yield store
    remove_index(store)


@pytest.fixture
def reduced(whole: Store, real_store: Store, settings: Settings) -> Iterator[Store]:
    """An empty reduced index."""
    said = create_index(real_store, settings, profile="reduced", sample=whole.index, dims_kept=KEPT)
    assert f"{KEPT} dims kept" in said
    yield real_store
    remove_index(real_store, Companion.REDUCTION.alias(real_store.index))


@pytest.fixture
def originals(whole: Store, tmp_path: Path) -> Path:
    path = tmp_path / "originals.h5"
    assert export_pictures(whole, path) == COUNT
    return path


@pytest.fixture
def filled(reduced: Store, originals: Path, settings: Settings) -> Store:
    """The reduced index with the pictures of the whole one."""
    done = import_pictures(reduced, settings, originals, ImportOptions())
    assert (done.stored, done.bad) == (COUNT, 0)
    return reduced


def reduction_in(store: Store) -> Reduction:
    found = load_reduction(store, store.info().meta)
    assert found is not None
    return found


# -- making ------------------------------------------------------------------------------------


def test_without_a_sample_it_is_said_what_to_give(real_store, settings):
    with pytest.raises(UsageError, match="--sample FROM"):
        create_index(real_store, settings, profile="reduced")
    with pytest.raises(UsageError, match="takes no sample"):
        create_index(real_store, settings, profile="balanced", sample="images")
    with pytest.raises(UsageError, match="by cosine only"):
        create_index(real_store, settings, profile="reduced", similarity="l2_norm", sample="x")


@pytest.mark.parametrize("suffix", ["h5", "parquet"])
def test_a_file_serves_as_the_sample(whole, real_store, settings, tmp_path, suffix):
    path = tmp_path / f"sample.{suffix}"
    export_pictures(whole, path, fields=[VECTOR_FIELD])
    create_index(real_store, settings, profile="reduced", sample=str(path), dims_kept=KEPT)
    try:
        meta = real_store.info().meta
        assert meta.seal == whole.info().meta.seal
        assert meta.reduction is not None
        assert reduction_in(real_store).sample_size == COUNT
    finally:
        remove_index(real_store, Companion.REDUCTION.alias(real_store.index))


def test_made_once_more_it_stays_as_it_is(reduced, whole, settings):
    before = reduced.info().meta
    again = create_index(reduced, settings, profile="reduced", sample=whole.index)
    assert "is there already" in again
    assert reduced.info().meta == before
    with pytest.raises(IndexConflict, match="dims-kept"):
        create_index(reduced, settings, dims_kept=KEPT + 1)


def test_a_reduced_index_is_no_sample(reduced, settings):
    with pytest.raises(UsageError, match="stores reduced vectors"):
        create_index(
            Store(reduced.connection.client, f"{reduced.index}-other"),
            settings,
            profile="reduced",
            sample=reduced.index,
        )


@pytest.mark.parametrize("harm", ["changed", "removed"])
def test_a_matrix_that_is_lost_or_another_is_refused_by_daemon_and_client(filled, settings, harm):
    alias, wanted = Companion.REDUCTION.alias(filled.index), filled.info().meta.reduction.hash
    if harm == "changed":
        document = dict(filled.connection.request("GET", f"/{alias}/_doc/{wanted}")["_source"])
        document["stretch"] += 0.5
        filled.connection.request(
            "PUT", f"/{alias}/_doc/{wanted}", document, params={"refresh": "true"}
        )
    else:
        filled.connection.request("DELETE", f"/{alias}/_doc/{wanted}", params={"refresh": "true"})
    with pytest.raises(IndexConflict, match="make another --index"):
        open_context(filled, settings, FakeEncoder())
    search = ImageSearch(
        filled.connection.client, filled.index, encoder=FakeEncoder(), settings=settings
    )
    with pytest.raises(IndexConflict, match="make another --index"):
        search.search_text("red")


# -- keeping it like a folder ------------------------------------------------------------------


def test_a_folder_is_kept_and_a_copy_reuses_the_stored_bytes(reduced, settings, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(20):
        paint(folder / f"{n:02}.png", n)
    encoder = FakeEncoder()
    roots = parse_roots([str(folder)])
    register_roots(reduced, roots, settings.host)

    def pass_over() -> Indexer:
        indexer = Indexer(open_context(reduced, settings, encoder), roots, settings)
        sync(indexer)
        indexer.pipeline.close()
        return indexer

    assert pass_over().counts.embedded == 20
    shutil.copy2(folder / "03.png", folder / "copy.png")
    (folder / "04.png").rename(folder / "moved.png")
    assert pass_over().counts.embedded == 0
    assert encoder.pictures_embedded == 20
    assert list(verify(reduced, roots, settings)) == []
    assert index_status(reduced)["profile"] == "reduced"

    reduction = reduction_in(reduced)
    names = {"03.png": 3, "copy.png": 3, "moved.png": 4, "19.png": 19}
    whole = encoder._vectors(np.stack([pixels(n) for n in names.values()]))
    for name, wanted in zip(names, reduction.reduce(whole), strict=True):
        assert (reduced.documents.vector(image_id("photos", name)) == wanted).all()
    hits = ImageSearch(reduced.connection.client, reduced.index, encoder=encoder, settings=settings)
    assert hits.search_image(folder / "07.png", k=3)[0].relative_path == "07.png"


# -- searching ---------------------------------------------------------------------------------


def client(store: Store, settings: Settings) -> ImageSearch:
    return ImageSearch(
        store.connection.client, store.index, encoder=FakeEncoder(), settings=settings
    )


def best(scores: np.ndarray, k: int) -> list[int]:
    return np.argsort(-scores, kind="stable")[:k].tolist()


@pytest.mark.parametrize("exact", [False, True])
def test_by_bytes_hits_come_in_the_order_of_the_bytes_cosine(filled, settings, exact):
    reduction, vectors = reduction_in(filled), vectors_of_pictures()
    of_bytes = unit(reduction.reduce(vectors))
    search = client(filled, settings)
    for query in vectors_of_pictures(10, seed=5):
        cosines = of_bytes @ unit(reduction.reduce(query[None]))[0]
        hits = search.search(query, k=10, exact=exact)
        assert np.allclose(
            [hit.score for hit in hits],
            reduction.estimate_cosines(cosines[best(cosines, 10)], query),
            atol=2e-3,
        )


def test_with_originals_hits_and_scores_are_those_of_whole_vectors(filled, settings, originals):
    vectors = vectors_of_pictures()
    search = client(filled, settings.model_copy(update={"originals": originals}))
    right = 0
    for query in vectors_of_pictures(20, seed=5):
        hits = search.search(query, k=10)
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        assert np.allclose(scores, [vectors[number_of(hit)] @ query for hit in hits], atol=1e-5)
        right += len({number_of(hit) for hit in hits} & set(best(vectors @ query, 10)))
    assert right / 200 >= 0.95


def test_every_shape_of_search_works_on_whole_vectors(filled, settings, originals):
    vectors = vectors_of_pictures()
    register_originals(filled, settings, originals)
    search = client(filled, settings)
    (query,) = vectors_of_pictures(1, seed=8)
    every = search.search(query, k=50)
    page = search.search(query, k=50, offset=20, size=10)
    assert [hit.image_id for hit in page] == [hit.image_id for hit in every[20:30]]
    even = search.search(query, k=10, filters={"tags": "even"}, facets=["tags"])
    wanted = [n for n in best(vectors @ query, COUNT) if n % 2 == 0][:10]
    assert len({number_of(hit) for hit in even} & set(wanted)) >= 9
    assert even.facets["tags"] == {"even": 10}
    few = search.search(query, k=3, fields=["tags"], explain=True)
    assert few[0].cosine == few[0].score
    assert search.search(query, k=COUNT)[-1].score == pytest.approx(
        float((vectors @ query).min()), abs=1e-5
    )
    hybrid = search.search(["red.jpg", query], k=5, mode="hybrid")
    assert len(hybrid) == 5
    first, second = (fields(n)["image_id"] for n in (0, 1))
    a, b = vectors[0], vectors[1]
    similar = search.similar(first, k=5)
    assert [number_of(hit) for hit in similar] == best(vectors @ a, 6)[1:]
    assert similar[0].score == pytest.approx(np.sort(vectors @ a)[-2], abs=1e-5)
    from es_imgsearch.search.query import StoredPicture

    assert search.similarity(StoredPicture(first), StoredPicture(second)) == pytest.approx(
        float(a @ b), abs=1e-5
    )
    with pytest.raises(NotCalibrated, match="reduced vectors"):
        search.search(query, min_relevance=0.5)


def test_similar_without_originals_follows_the_stored_bytes(filled, settings):
    reduction, vectors = reduction_in(filled), vectors_of_pictures()
    of_bytes = unit(reduction.reduce(vectors))
    hits = client(filled, settings).similar(fields(7)["image_id"], k=10)
    wanted = best(of_bytes @ of_bytes[7], 11)[1:]
    assert len({number_of(hit) for hit in hits} & set(wanted)) >= 9
    assert all(number_of(hit) != 7 for hit in hits)


def test_copies_are_one_hit_where_contents_are_collapsed(filled, settings, originals):
    vectors, reduction = vectors_of_pictures(), reduction_in(filled)
    copies = [
        fields(1000 + n, content="content-5") | {VECTOR_FIELD: reduction.reduce(vectors[5:6])[0]}
        for n in range(30)
    ]
    filled.documents.write([Write(each["image_id"], document=each) for each in copies])
    filled.refresh()
    search = client(filled, settings.model_copy(update={"originals": originals}))
    hits = search.search(vectors[5], k=10, collapse=True)
    contents = [hit.fields["content_id"] for hit in hits]
    assert len(set(contents)) == 10
    assert contents[0] == "content-5"


def test_a_picture_whose_content_changed_keeps_the_score_of_its_bytes(filled, settings, originals):
    vectors, reduction = vectors_of_pictures(), reduction_in(filled)
    register_originals(filled, settings, originals)
    (changed,) = vectors_of_pictures(1, seed=21)
    document = fields(3, content="new") | {VECTOR_FIELD: reduction.reduce(changed[None])[0]}
    filled.documents.write([Write(document["image_id"], document=document)])
    filled.refresh()
    hits = client(filled, settings).search(changed, k=5)
    assert number_of(hits[0]) == 3
    assert hits[0].score == pytest.approx(1.0, abs=0.02)
    for hit in hits[1:]:
        assert hit.score == pytest.approx(float(vectors[number_of(hit)] @ changed), abs=1e-5)


# -- originals and files -----------------------------------------------------------------------


def test_an_import_remembers_its_file_and_a_file_that_is_gone_is_done_without(
    filled, settings, originals
):
    said = register_imported_originals(filled, settings, originals)
    assert "its vectors put the hits" in str(said)
    entry = filled.info().meta.reduction
    assert entry.originals == {"path": str(originals), "host": settings.host}
    assert register_imported_originals(filled, settings, originals) is None
    (query,) = vectors_of_pictures(1, seed=8)
    nearest = float((vectors_of_pictures() @ query).max())
    assert client(filled, settings).search(query, k=5)[0].score == pytest.approx(nearest, abs=1e-5)
    originals.unlink()
    assert len(client(filled, settings).search(query, k=5)) == 5
    elsewhere = settings.model_copy(update={"originals": originals})
    with pytest.raises(UsageError, match="no file"):
        client(filled, elsewhere).search(query)


def test_originals_of_another_encoder_or_for_another_profile_are_refused(
    whole, filled, settings, originals, tmp_path
):
    with pytest.raises(UsageError, match="stores whole vectors"):
        register_originals(whole, settings, originals)
    other = Store(filled.connection.client, f"{filled.index}-o")
    seal = replace(whole.info().meta.seal, revision="2")
    other.generations.create(new_meta(seal, "exact", "cosine"))
    try:
        path = tmp_path / "other.h5"
        export_pictures(other, path)
        with pytest.raises(EncoderMismatch):
            register_originals(filled, settings, path)
    finally:
        remove_index(other)


def test_the_command_line_makes_fills_and_searches_it(whole, originals, settings, es_url):
    index = f"{settings.index}-cli"
    store = Store(whole.connection.client, index)
    places = ["--index", index, "--es-url", es_url]

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, [*arguments, *places])
        assert result.exit_code == 0, result.output
        return result.output

    try:
        wrong = CliRunner().invoke(main, ["init", "--profile", "reduced", *places])
        assert wrong.exit_code == 2
        assert "--sample FROM" in wrong.output
        sample = ["--sample", whole.index, "--dims-kept", str(KEPT)]
        assert "12 dims kept" in run("init", "--profile", "reduced", *sample)
        assert "its vectors put the hits" in run("import", str(originals))
        assert "400" in run("status")
        assert "0001.jpg" in run("similar", fields(0)["image_id"], "-k", "399")
    finally:
        remove_index(store, Companion.REDUCTION.alias(index))


def test_tags_are_not_held_against_a_sample_of_whole_vectors(filled: Store, settings: Settings):
    """As `calibrate` left it, before the index was reduced."""
    meta = filled.info().meta
    ids = [f"{n}" for n in range(40)]
    try:
        store_background(filled, meta.seal, BackgroundSample(ids, ids, vectors_of_pictures(40)))
        whole = run_flow(read_background(filled.index, meta, DIMS), filled.send)
        np.testing.assert_allclose(
            np.sort(whole, 0), np.sort(vectors_of_pictures(40), 0), atol=1e-6
        )
        drawn = run_flow(read_background(filled.index, meta, KEPT), filled.send)
        assert (len(drawn), drawn.shape[1]) == (COUNT, KEPT)
        assert run_flow(read_background(filled.index, meta, 5), filled.send).shape == (0, 5)
        labels = {f"{n:04}.jpg": ("parity:odd" if n % 2 else "parity:even",) for n in range(30)}
        search = ImageSearch(settings=settings, encoder=FakeEncoder())
        report = evaluate_tags(search, Labels((), labels), one_of=["parity"])
        assert [each.way for each in report.facets] == [ZERO_SHOT, TRAINED]
    finally:
        remove_index(filled, Companion.BACKGROUND.alias(filled.index))


# -- the plain request of the tutorials ----------------------------------------------------------


def test_the_plain_knn_request_takes_the_vector_of_knn_query(filled: Store, settings: Settings):
    """Elasticsearch itself answers, so a whole vector is refused: docs/how-to says what to send."""
    search = ImageSearch(settings=settings, encoder=FakeEncoder())
    whole_vector = [float(each) for each in vectors_of_pictures()[3]]
    plain = {"field": VECTOR_FIELD, "query_vector": whole_vector, "k": 10, "num_candidates": 100}
    path = f"/{filled.index}/_search"
    with pytest.raises(StoreRejected, match=r"vectors only support|dimensions"):
        filled.connection.request("POST", path, {"knn": plain})
    sent = search.knn_query(np.asarray(whole_vector, np.float32), k=10)
    plain["query_vector"] = sent["query_vector"]
    hits = filled.connection.request("POST", path, {"knn": plain})["hits"]["hits"]
    assert len(hits) == 10
    assert hits[0]["_id"] == fields(3)["image_id"]
