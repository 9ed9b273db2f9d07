"""The cut to bytes against NumPy's own decompositions, and originals read from files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from es_imgsearch.elastic.mapping import index_body, new_meta
from es_imgsearch.elastic.meta import Meta, Seal
from es_imgsearch.elastic.meta_entries import ReductionEntry
from es_imgsearch.embed.reduced_encoder import ReducedEncoder
from es_imgsearch.embed.reduction import Reduction, fit
from es_imgsearch.errors import EncoderMismatch, IndexConflict, UsageError
from es_imgsearch.files.columns import Column, ColumnKind, Origin
from es_imgsearch.files.hdf5 import Hdf5Writer
from es_imgsearch.records import image_id
from es_imgsearch.search.reduced import Originals, ReducedVectors
from es_imgsearch.testing import FakeEncoder

DIMS, KEPT = 64, 16
SEAL = Seal("some", "1", DIMS, "f")


def photographs(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors as encoders give them: a mean, groups, and few strong directions."""
    random = np.random.default_rng(7)
    strengths = 1.0 / np.arange(1, DIMS + 1)
    rotation = np.linalg.qr(random.normal(size=(DIMS, DIMS)))[0]
    centres = random.normal(size=(40, DIMS)) * strengths
    random = np.random.default_rng(seed)
    near = 0.4 * random.normal(size=(count, DIMS)) * strengths
    vectors = (centres[random.integers(40, size=count)] + near + 0.3 * strengths) @ rotation
    return unit(vectors)


def unit(vectors: np.ndarray) -> np.ndarray:
    rows = np.asarray(vectors, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return photographs(2000)


@pytest.fixture(scope="module")
def reduction(vectors: np.ndarray) -> Reduction:
    return fit(vectors, KEPT)


def test_the_directions_kept_are_the_first_right_singular_vectors(vectors, reduction):
    right = np.linalg.svd(vectors, full_matrices=False)[2][:KEPT]
    assert np.allclose(np.abs(np.sum(right * reduction.matrix, axis=1)), 1.0, atol=1e-3)
    assert np.allclose(reduction.matrix @ reduction.matrix.T, np.eye(KEPT), atol=1e-5)


def test_the_variance_kept_is_what_is_left_of_the_squared_lengths(vectors, reduction):
    left = np.mean(np.sum((vectors @ reduction.matrix.T) ** 2, axis=1))
    assert reduction.variance_kept == pytest.approx(left, abs=1e-4)


def test_every_vector_uses_the_whole_range_of_its_bytes(vectors, reduction):
    reduced = reduction.reduce(1000.0 * vectors)
    assert reduced.dtype == np.int8
    assert (np.abs(reduced.astype(int)).max(axis=1) == 127).all()
    assert (reduced == reduction.reduce(vectors)).all()


def test_what_was_reduced_once_is_reduced_to_the_same_bytes_again(vectors, reduction):
    reduced = reduction.reduce(vectors)
    whole = reduction.expand(reduced)
    assert np.allclose(np.linalg.norm(whole, axis=1), 1.0, atol=1e-5)
    assert (reduction.reduce(whole) == reduced).all()


def test_bytes_have_the_cosines_of_the_cut_vectors(vectors, reduction):
    cut = unit(vectors[:200] @ reduction.matrix.T)
    of_bytes = unit(reduction.reduce(vectors[:200]))
    assert np.abs(cut @ cut.T - of_bytes @ of_bytes.T).max() < 0.02


def test_a_vector_of_which_nothing_is_left_becomes_zeros(reduction):
    outside = np.random.default_rng(0).normal(size=DIMS).astype(np.float32)
    outside -= reduction.matrix.T @ (reduction.matrix @ outside)
    assert not reduction.reduce(outside[None] * 1e-3).any()
    assert not reduction.reduce(np.zeros((1, DIMS))).any()


def test_nearly_all_true_neighbours_are_among_five_times_as_many_by_bytes(vectors, reduction):
    queries = photographs(100, seed=1)
    by_whole = np.argsort(-queries @ vectors.T, axis=1)[:, :10]
    bytes_stored, bytes_asked = unit(reduction.reduce(vectors)), unit(reduction.reduce(queries))
    by_bytes = np.argsort(-bytes_asked @ bytes_stored.T, axis=1)[:, :50]
    found = [len(set(a) & set(b)) for a, b in zip(by_whole, by_bytes, strict=True)]
    assert np.mean(found) >= 9.5


def test_estimated_cosines_are_near_the_true_ones_in_order_and_one_for_the_same(vectors, reduction):
    queries = photographs(50, seed=1)
    for query in queries:
        asked = unit(reduction.reduce(query[None]))[0]
        of_bytes = unit(reduction.reduce(vectors)) @ asked
        nearest = np.argsort(-of_bytes)[:10]
        estimated = reduction.estimate_cosines(of_bytes[nearest], query)
        assert (np.diff(estimated) <= 0).all()
        assert np.abs(estimated - vectors[nearest] @ query).max() < 0.1
    assert reduction.estimate_cosines(1.0, vectors[0]) == pytest.approx(1.0)


def test_a_query_that_points_away_from_all_pictures_has_small_scores(vectors, reduction):
    inside = reduction.matrix.T @ (reduction.matrix @ vectors[0])
    inside /= np.linalg.norm(inside)
    outside = np.linalg.svd(reduction.matrix)[2][-1]
    text = (0.3 * inside + np.sqrt(1 - 0.3**2) * outside).astype(np.float32)
    assert reduction.estimate_cosines(1.0, text) <= 0.3 / reduction.least_kept + 1e-3


def test_the_same_sample_gives_the_same_hash_and_another_one_another(vectors, reduction):
    assert fit(vectors, KEPT).hash == reduction.hash
    assert fit(vectors[:1000], KEPT).hash != reduction.hash
    assert fit(vectors, KEPT + 1).hash != reduction.hash


@pytest.mark.parametrize("kept", [0, -1, DIMS + 1])
def test_dims_that_cannot_be_kept_are_refused(vectors, kept):
    with pytest.raises(UsageError, match="--dims-kept must be from 1 to"):
        fit(vectors, kept)


def test_a_sample_that_is_too_small_is_refused(vectors):
    with pytest.raises(UsageError, match="give a larger --sample"):
        fit(vectors[: 2 * KEPT - 1], KEPT)
    assert fit(vectors[: 2 * KEPT], KEPT).dims_kept == KEPT


def test_a_sample_of_one_vector_many_times_can_be_fitted(vectors):
    alike = fit(np.repeat(vectors[:1], 100, axis=0), 4)
    assert alike.stretch == 1.0
    assert (alike.reduce(vectors[:1]) == alike.reduce(2 * vectors[:1])).all()


def test_a_matrix_comes_back_as_it_was_stored(reduction):
    again = Reduction.from_document(reduction.to_document(), reduction.hash, "images")
    assert again.hash == reduction.hash
    assert (again.matrix == reduction.matrix).all()
    assert replace(again, matrix=reduction.matrix) == reduction


@pytest.mark.parametrize("harm", ["matrix", "stretch", "least_kept", "short", "garbage", "missing"])
def test_a_matrix_that_is_not_the_index_s_own_is_refused(reduction, harm):
    document = reduction.to_document()
    if harm == "matrix":
        other = reduction.matrix.copy()
        other[0, 0] += 1e-6
        document["matrix"] = base64.b64encode(other.tobytes()).decode()
    elif harm == "short":
        document["matrix"] = document["matrix"][:400]
    elif harm == "garbage":
        document["matrix"] = "no base64!"
    elif harm == "missing":
        del document["matrix"]
    else:
        document[harm] += 0.001
    with pytest.raises(IndexConflict, match="images-reduction is not the one"):
        Reduction.from_document(document, reduction.hash, "images")


# -- what an index knows of it -----------------------------------------------------------------


def test_meta_remembers_the_reduction_and_maps_the_dims_that_are_kept(reduction):
    meta = new_meta(SEAL, "reduced", "cosine", reduction.entry())
    entry = meta.reduction
    assert entry is not None
    assert (entry.hash, entry.dims_kept) == (reduction.hash, KEPT)
    assert Meta.from_body(meta.to_body(), "i") == meta
    moved = replace(meta, reduction=entry.with_originals("/x.h5", "here"))
    assert Meta.from_body(moved.to_body(), "i").with_documents(moved.to_documents()) == moved
    field = index_body(meta)["mappings"]["properties"]["image_embedding"]
    assert (field["dims"], field["element_type"]) == (KEPT, "byte")


def test_meta_of_other_profiles_has_no_reduction():
    body = new_meta(SEAL, "balanced", "cosine").to_body()
    assert "reduction" not in body
    assert Meta.from_body(body, "i").reduction is None


def test_a_damaged_entry_is_an_error(reduction):
    body = new_meta(SEAL, "reduced", "cosine", reduction.entry()).to_body()
    body["reduction"] = {"hash": "x"}
    with pytest.raises(IndexConflict, match="damaged"):
        Meta.from_body(body, "i")


def test_profiles_and_samples_go_together(reduction):
    with pytest.raises(UsageError, match="--sample FROM"):
        new_meta(SEAL, "reduced", "cosine")
    with pytest.raises(UsageError, match="by cosine only"):
        new_meta(SEAL, "reduced", "l2_norm", reduction.entry())
    with pytest.raises(UsageError, match="takes no sample"):
        new_meta(SEAL, "balanced", "cosine", reduction.entry())


def test_a_reduced_encoder_gives_whole_numbers_and_keeps_what_is_not_finite(reduction):
    class Two(FakeEncoder):
        dims = DIMS

        def embed_images(self, pictures):
            rows = np.ones((len(pictures), DIMS), np.float32)
            rows[0, 3] = np.nan
            return rows

    found = ReducedEncoder(Two(), reduction).embed_images(np.zeros((2, 32, 32, 3), np.uint8))
    assert found.shape == (2, KEPT)
    assert np.isnan(found[0]).all()
    assert (found[1] == np.rint(found[1])).all()
    assert not np.signbit(found[1][found[1] == 0]).any()


# -- originals ---------------------------------------------------------------------------------


def originals_file(path: Path, vectors: np.ndarray, *, ids: str = "content_id", **given) -> Path:
    with h5py.File(path, "w") as file:
        file[ids] = [f"id{n}" for n in range(len(vectors))]
        file.create_dataset("image_embedding", data=vectors, **given)
    return path


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("chunks", [None, (7, DIMS), (64, DIMS)])
@pytest.mark.parametrize("ids", ["content_id", "image_id"])
def test_originals_are_found_by_their_key_in_any_order(tmp_path, vectors, dtype, chunks, ids):
    rows = vectors[:300].astype(dtype)
    path = originals_file(tmp_path / "o.h5", rows, ids=ids, chunks=chunks)
    originals = Originals(path, SEAL, "images")
    assert len(originals) == 300
    found = originals(["id299", "nothing", "id0", "", "id150", "zzz"])
    assert sorted(found) == [0, 2, 4]
    for place, row in ((0, 299), (2, 0), (4, 150)):
        assert np.allclose(found[place], unit(rows[row : row + 1])[0], atol=1e-6)


def test_originals_that_an_export_wrote_are_found_by_content_and_by_place(tmp_path, vectors):
    path = tmp_path / "o.h5"
    names = ("root", "relative_path", "content_id")
    columns = [
        *(Column(n, ColumnKind.TEXT) for n in names),
        Column("image_embedding", ColumnKind.VECTOR, DIMS),
    ]
    writer = Hdf5Writer(path, columns, Origin(SEAL, "cosine", "exact", {}))
    for start in (0, 50):
        rows = vectors[start : start + 50].copy()
        rows[1] = np.nan
        values = {
            "root": ["shop"] * 50,
            "relative_path": [f"{start + n}.jpg" for n in range(50)],
            "content_id": [None if n < 25 else f"c{start + n}" for n in range(50)],
            "image_embedding": rows,
            "other_values": [None] * 50,
        }
        writer.write(values)
    writer.close()
    originals = Originals(path, SEAL, "images")
    at_place = [image_id("shop", f"{n}.jpg") for n in (0, 1, 30)]
    found = originals(["c49", *at_place, "c99"])
    # The second has no vector; the fourth has a content, by which alone it is found.
    assert sorted(found) == [0, 1, 4]
    assert np.allclose(found[1], vectors[0], atol=1e-6)
    with pytest.raises(EncoderMismatch):
        Originals(path, replace(SEAL, revision="2"), "images")


def test_files_that_cannot_be_originals_are_refused(tmp_path, vectors):
    def refused(path: Path, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            Originals(path, SEAL, "images")

    refused(tmp_path / "o.parquet", "write an .h5 file")
    refused(tmp_path / "none.h5", "no file")
    refused(originals_file(tmp_path / "a.h5", vectors[:, :9]), "vectors of 9 dims")
    zipped = originals_file(tmp_path / "b.h5", vectors, compression="gzip")
    refused(zipped, "compressed")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["image_embedding"] = vectors
    refused(tmp_path / "c.h5", "neither content_id nor image_id")


# -- putting hits in order -----------------------------------------------------------------------


def raw_hits(reduction: Reduction, stored: np.ndarray, query: np.ndarray) -> list[dict]:
    of_bytes = unit(reduction.reduce(stored)) @ unit(reduction.reduce(query[None]))[0]
    order = np.argsort(-of_bytes)[:50]
    return [
        {"_id": str(n), "_score": (1 + of_bytes[n]) / 2, "_source": {"content_id": f"c{n}"}}
        for n in order
    ]


def lookup(vectors: np.ndarray, having: set[int]):
    def find(keys: Sequence[str]) -> dict[int, np.ndarray]:
        numbers = [int(key[1:]) for key in keys]
        return {place: vectors[n] for place, n in enumerate(numbers) if n in having}

    return find


def test_hits_with_originals_have_exact_cosines_and_the_true_order(vectors, reduction):
    searched = ReducedVectors(reduction, 5.0, lookup(vectors, set(range(len(vectors)))))
    for query in photographs(20, seed=3):
        reranking = searched.reranking(query, is_whole=True)
        assert reranking.depth(10) == 50
        reranked = reranking.rerank(raw_hits(reduction, vectors, query))
        cosines = [2 * hit["_score"] - 1 for hit in reranked]
        assert cosines == sorted(cosines, reverse=True)
        assert np.allclose(cosines, [vectors[int(h["_id"])] @ query for h in reranked], atol=1e-6)


def test_hits_without_an_original_stand_where_their_estimate_puts_them(vectors, reduction):
    half = set(range(0, len(vectors), 2))
    searched = ReducedVectors(reduction, 5.0, lookup(vectors, half))
    (query,) = photographs(1, seed=3)
    hits = raw_hits(reduction, vectors, query)
    estimates = {
        hit["_id"]: float(reduction.estimate_cosines(2 * hit["_score"] - 1, query)) for hit in hits
    }
    reranked = searched.reranking(query, is_whole=True).rerank(hits)
    scores = [2 * hit["_score"] - 1 for hit in reranked]
    assert scores == sorted(scores, reverse=True)
    for hit, score in zip(reranked, scores, strict=True):
        number = int(hit["_id"])
        wanted = vectors[number] @ query if number in half else estimates[hit["_id"]]
        assert score == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("has_originals", [True, False])
def test_without_a_whole_query_or_originals_the_order_of_the_bytes_stays(
    vectors, reduction, has_originals
):
    originals = lookup(vectors, set(range(len(vectors)))) if has_originals else None
    searched = ReducedVectors(reduction, 5.0, originals)
    (query,) = photographs(1, seed=3)
    hits = raw_hits(reduction, vectors, query)
    reranking = searched.reranking(query, is_whole=not has_originals)
    assert reranking.depth(10) == 10
    assert [hit["_id"] for hit in reranking.rerank(hits)] == [hit["_id"] for hit in hits]


def test_an_entry_names_where_its_originals_are():
    entry = ReductionEntry("h", 4, 0.5, 5.0)
    assert "originals" not in entry.to_body()
    assert entry.with_originals("/o.h5", "here").originals == {"path": "/o.h5", "host": "here"}
