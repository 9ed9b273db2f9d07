"""Coders against what their definitions say, worked out in NumPy."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest

from es_imgsearch.codes.coder import Coder
from es_imgsearch.codes.fitting import fit_learned, fit_lsh, fit_sign, label_targets
from es_imgsearch.codes.queries import code_body
from es_imgsearch.elastic.mapping import index_body, new_meta
from es_imgsearch.elastic.meta import Meta, Seal
from es_imgsearch.elastic.meta_entries import CODE_FIELD, CodesEntry
from es_imgsearch.errors import IndexConflict, UsageError
from es_imgsearch.files.columns import mapped_columns
from es_imgsearch.search.options import SearchPlan

DIMS = 64
SEAL = Seal("some", "1", DIMS, "f")


def positive(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors without negative numbers, as features of a CNN are."""
    rows = np.random.default_rng(seed).gamma(2.0, size=(count, DIMS)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def bits_of(codes: list[str]) -> np.ndarray:
    return np.array(
        [[int(digit) for digit in f"{int(code, 16):0{4 * len(code)}b}"] for code in codes]
    )


def grouped(seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of five groups, which differ in 8 dims and are noisy in all; and their groups."""
    random = np.random.default_rng(seed)
    centres = np.zeros((5, DIMS))
    centres[:, :8] = np.random.default_rng(9).normal(size=(5, 8)) * 1.5
    groups = np.arange(300) % 5
    return (centres[groups] + noise * random.normal(size=(300, DIMS))).astype(np.float32), groups


@pytest.fixture(scope="module")
def learned() -> Coder:
    vectors, groups = grouped(1)
    return fit_learned(vectors, label_targets([(f"g{each}",) for each in groups])[0], 48)


def test_signs_are_those_around_the_mean():
    vectors = positive(200)
    coder = fit_sign(vectors)
    assert (coder.bits, coder.dims, coder.sample_size) == (DIMS, DIMS, 200)
    found = bits_of(coder.codes(vectors))
    assert np.array_equal(found, vectors > vectors.mean(axis=0))
    # Around 0 all of them would be alike.
    assert 0.3 < found.mean() < 0.7


def test_hyperplanes_go_through_the_mean_and_their_bits_tell_the_angle():
    vectors = positive(200)
    mean = vectors.mean(axis=0)
    coder = fit_lsh(vectors, 4096)
    found = bits_of(coder.codes(vectors[:40]))
    assert coder.matrix is not None
    assert np.array_equal(found, (vectors[:40] - mean) @ coder.matrix.T > 0)
    # Charikar: bits differ with the probability angle / pi.
    around = vectors[:40] - mean
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    angles = np.arccos(np.clip(around @ around.T, -1, 1)) / np.pi
    shares = (found[:, None, :] != found[None, :, :]).mean(axis=2)
    assert np.abs(angles - shares).max() < 5 * 0.5 / np.sqrt(4096)


def test_a_learned_code_is_the_sigmoid_above_a_half():
    vectors, groups = grouped(1)
    targets, names = label_targets([(f"g{each}",) for each in groups])
    assert names == [f"g{n}" for n in range(5)]
    assert np.array_equal(targets.argmax(axis=1), groups)
    coder = fit_learned(vectors, targets, 48)
    again = fit_learned(vectors, targets, 48)
    assert (coder.method, coder.bits, coder.dims) == ("learned", 48, DIMS)
    assert coder.hash == again.hash


def test_learned_codes_bring_the_same_label_together_where_random_ones_do_not(learned: Coder):
    """Of pictures that were not learned from, the nearest codes are of the same group."""

    def precision(coder: Coder) -> float:
        vectors, groups = grouped(2)
        bits = bits_of(coder.codes(vectors))
        distances = (bits[:, None] != bits[None]).sum(axis=2).astype(float)
        np.fill_diagonal(distances, np.inf)
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :10]
        return float((groups[nearest] == groups[:, None]).mean())

    assert precision(learned) > precision(fit_lsh(grouped(1)[0], 48)) + 0.2


def test_a_picture_of_two_labels_counts_for_both():
    targets, names = label_targets([("a", "b"), ("b",), ("c", "c")])
    assert names == ["a", "b", "c"]
    assert targets.tolist() == [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("method", ["sign", "lsh", "learned"])
def test_it_comes_back_from_its_document(method: str, learned: Coder):
    vectors = positive(100)
    coder = {"sign": fit_sign(vectors), "lsh": fit_lsh(vectors, 32), "learned": learned}[method]
    document = coder.to_document()
    back = Coder.from_document(document, coder.hash, "images")
    assert back.codes(vectors) == coder.codes(vectors)
    assert back.code(vectors[3]) == coder.codes(vectors)[3]
    assert (back.method, back.hash) == (method, coder.hash)


@pytest.mark.parametrize("harm", ["thresholds", "bits", "matrix", "absent"])
def test_another_coder_is_refused(harm: str):
    coder = fit_lsh(positive(100), 32)
    document = coder.to_document()
    if harm == "absent":
        del document["matrix"]
    elif harm == "bits":
        document["bits"] = 40
    else:
        raw = bytearray(base64.b64decode(document[harm]))
        raw[5] ^= 1
        document[harm] = base64.b64encode(bytes(raw)).decode()
    with pytest.raises(IndexConflict, match="codes train"):
        Coder.from_document(document, coder.hash, "images")


def test_lengths_do_not_count():
    vectors = positive(100)
    for coder in (fit_sign(vectors), fit_lsh(vectors, 64)):
        # A power of two, so that not even the rounding differs.
        assert coder.codes(vectors * np.float32(8)) == coder.codes(vectors)


def test_invalid_bits_and_samples_are_refused():
    vectors = positive(100)
    for bits in (0, 12, -8, 4104):
        with pytest.raises(UsageError, match="multiple of 8"):
            fit_lsh(vectors, bits)
    with pytest.raises(UsageError, match="--method lsh"):
        fit_sign(vectors[:, :60])
    with pytest.raises(UsageError, match="store pictures first"):
        fit_sign(vectors[:19])


def test_the_meta_and_the_mapping_follow_the_entry():
    plain = new_meta(SEAL, "binary", "cosine")
    entry = CodesEntry("abc", "lsh", 128, "2026-01-01T00:00:00+00:00")
    meta = replace(plain, codes=entry)
    assert Meta.from_body(meta.to_body(), "images").with_documents(meta.to_documents()) == meta
    assert Meta.from_body(plain.to_body(), "images").codes is None
    properties = index_body(meta)["mappings"]["properties"]
    assert properties[CODE_FIELD]["dims"] == 128
    assert CODE_FIELD not in index_body(plain)["mappings"]["properties"]
    # An export leaves out what another index makes by a coder of its own.
    assert CODE_FIELD not in {each.name for each in mapped_columns(properties)}


def test_candidates_are_twenty_a_hit_and_never_fewer_than_hits():
    def knn(k: int, **given: int) -> tuple[int, int]:
        body = code_body("00", [1.0], k, "cosine", **given)
        assert body["rescore"]["window_size"] == body["knn"]["k"]
        return body["knn"]["k"], body["knn"]["num_candidates"]

    assert knn(10) == (200, 200)
    assert knn(10, num_candidates=30) == (30, 30)
    assert knn(1000) == (10_000, 10_000)


@pytest.mark.parametrize(
    "other",
    [{"exact": True}, {"regions": True}, {"weights": {"content": 1.0}}, {"mode": "text"}],
    ids=lambda other: next(iter(other)),
)
def test_codes_go_with_a_search_of_the_content_only(other: dict):
    with pytest.raises(UsageError, match="or codes"):
        SearchPlan.parse(10, {"codes": True, **other})


def test_fewer_candidates_than_hits_are_refused():
    with pytest.raises(UsageError, match="at least k"):
        SearchPlan.parse(10, {"codes": True, "num_candidates": 9})
