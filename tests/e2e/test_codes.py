"""Binary codes on the real server: trained, applied, searched, kept up with what comes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from es_imgsearch import ImageSearch
from es_imgsearch.cli import main
from es_imgsearch.codes.apply import CodeStep, apply_codes
from es_imgsearch.codes.coder import Coder
from es_imgsearch.codes.storage import load_coder
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, Companion, new_meta
from es_imgsearch.elastic.meta_entries import CODE_FIELD
from es_imgsearch.elastic.queries import parse_vector
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.reduction import fit
from es_imgsearch.errors import FileInvalid, GenerationSwitched, IndexConflict, UsageError
from es_imgsearch.manage.status import index_status
from es_imgsearch.manage.transfer.export import export_pictures
from es_imgsearch.manage.transfer.importing import ImportOptions, import_pictures
from es_imgsearch.quality.code_training import train_codes
from es_imgsearch.quality.labels import Labels, queries_by_label
from es_imgsearch.records import image_id
from es_imgsearch.search.query import StoredPicture
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder, remove_index
from tests.support.house import House, until

DIMS, COUNT, KINDS = FakeEncoder.dims, 300, 6


def pictures(count: int = COUNT, seed: int = 0) -> np.ndarray:
    """Unit vectors around the centres of six kinds, the n-th of kind n % 6."""
    centres = np.random.default_rng(99).normal(size=(KINDS, DIMS))
    noise = np.random.default_rng(seed).normal(size=(count, DIMS))
    rows = centres[np.arange(count) % KINDS] + noise + 0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def fields(n: int) -> dict:
    path = f"{n:04}.jpg"
    return {
        "image_id": image_id("shop", path),
        "root": "shop",
        "relative_path": path,
        "image_name": path,
        "content_id": f"content-{n // 2}",
        "tags": ["even" if n % 2 == 0 else "odd"],
    }


def number_of(hit) -> int:
    return int(hit.relative_path.removesuffix(".jpg"))


def labels() -> Labels:
    known = {f"{n:04}.jpg": (f"kind {n % KINDS}",) for n in range(0, COUNT, 2)}
    return Labels(queries_by_label(known), known)


@pytest.fixture
def filled(real_store: Store) -> Iterator[Store]:
    real_store.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine"))
    vectors = pictures()
    documents = [fields(n) | {VECTOR_FIELD: vectors[n]} for n in range(COUNT)]
    results = real_store.documents.write(
        [Write(each["image_id"], document=each) for each in documents]
    )
    assert not any(results.values())
    real_store.refresh()
    yield real_store
    remove_index(real_store, Companion.CODES.alias(real_store.index))


@pytest.fixture
def search(filled: Store, settings: Settings) -> ImageSearch:
    return ImageSearch(
        filled.connection.client, filled.index, encoder=FakeEncoder(), settings=settings
    )


def coder_in(store: Store) -> Coder:
    found = load_coder(store, store.info().meta)
    assert found is not None
    return found


def stored(store: Store) -> dict[str, tuple[str | None, np.ndarray]]:
    """Code and vector of every picture, by its path."""
    store.refresh()
    body = {"size": 1000, "_source": ["relative_path", CODE_FIELD]}
    answer = store.searches.search({**body, "docvalue_fields": [VECTOR_FIELD]})
    return {
        hit["_source"]["relative_path"]: (
            hit["_source"].get(CODE_FIELD),
            parse_vector(hit["fields"][VECTOR_FIELD]),
        )
        for hit in answer["hits"]["hits"]
    }


def wrong_codes(store: Store) -> list[str]:
    """Paths of pictures whose code is not that of their vector."""
    coder = coder_in(store)
    return [path for path, (code, vector) in stored(store).items() if code != coder.code(vector)]


def unpacked(coder: Coder, vectors: np.ndarray) -> np.ndarray:
    return np.unpackbits(coder.pack(vectors), axis=1)


# -- training and searching --------------------------------------------------------------------


@pytest.mark.parametrize(("method", "bits"), [("sign", DIMS), ("lsh", 64), ("learned", 48)])
def test_the_best_of_the_nearest_codes_are_found(search, filled, method, bits):
    before = stored(filled)
    given = {"sign": {}, "lsh": {"bits": 64}, "learned": {"labels": labels(), "bits": 48}}[method]
    trained = train_codes(search, method, **given)
    assert (trained.entry.method, trained.entry.bits, trained.changed) == (method, bits, COUNT)
    assert trained.sample_size == (COUNT // 2 if method == "learned" else COUNT)
    after = stored(filled)
    assert all((before[path][1] == vector).all() for path, (_, vector) in after.items())
    assert len(after) == COUNT
    assert wrong_codes(filled) == []

    coder, vectors = coder_in(filled), pictures()
    codes = unpacked(coder, vectors)
    right = 0
    for query in pictures(20, seed=5):
        distances = (codes != unpacked(coder, query[None])[0]).sum(axis=1)
        hits = search.search(query, k=10, codes=True, num_candidates=60)
        found = [number_of(hit) for hit in hits]
        cosines = vectors @ query
        assert np.allclose([hit.score for hit in hits], cosines[found], atol=1e-5)
        assert [hit.score for hit in hits] == sorted((h.score for h in hits), reverse=True)
        # Which of those at the very last distance are among the 60, is nowhere said.
        last = np.sort(distances)[59]
        assert distances[found].max() <= last
        surely = [n for n in np.argsort(-cosines) if distances[n] < last]
        wanted = [n for n in surely[:10] if cosines[n] > cosines[found].min() - 1e-6]
        right += len(set(wanted) & set(found)) / max(1, len(wanted))
    assert right / 20 > 0.98


def test_few_candidates_find_less_and_the_default_finds_the_nearest(search):
    train_codes(search, "lsh", bits=128)
    vectors = pictures()

    def recall(**given) -> float:
        found = 0
        for query in pictures(20, seed=5):
            truth = set(np.argsort(-(vectors @ query))[:10].tolist())
            hits = search.search(query, k=10, codes=True, **given)
            found += len(truth & {number_of(hit) for hit in hits})
        return found / 200

    assert recall(num_candidates=10) < 0.8
    assert recall() > 0.99


def test_codes_go_with_the_other_options(search):
    train_codes(search, "lsh")
    vectors = pictures()
    (query,) = pictures(1, seed=8)
    order = np.argsort(-(vectors @ query)).tolist()
    even = search.search(query, k=10, codes=True, filters={"tags": "even"}, facets=["tags"])
    assert [number_of(hit) for hit in even] == [n for n in order if n % 2 == 0][:10]
    assert even.facets["tags"] == {"even": 10}
    every = search.search(query, k=30, codes=True)
    page = search.search(query, k=30, codes=True, offset=10, size=5)
    assert [hit.image_id for hit in page] == [hit.image_id for hit in every[10:15]]
    single = search.search(query, k=20, codes=True, collapse=True)
    contents = [hit.fields["content_id"] for hit in single]
    assert len(set(contents)) == 20
    told = search.search(query, k=2, codes=True, explain=True, fields=["tags"])
    assert told[0].explanation["parts"]["content"]["cosine"] == pytest.approx(told[0].score)
    assert len(search.search(["0007.jpg", query], k=5, mode="hybrid", codes=True)) == 5
    similar = search.search(StoredPicture(fields(7)["image_id"]), k=5, codes=True)
    nearest = np.argsort(-(vectors @ vectors[7])).tolist()
    assert [number_of(hit) for hit in similar] == nearest[1:6]


def test_without_codes_it_is_said_how_to_make_them(search, filled):
    (query,) = pictures(1)
    with pytest.raises(UsageError, match="codes train"):
        search.search(query, codes=True)
    with pytest.raises(UsageError, match="codes train"):
        apply_codes(filled)


# -- training again ----------------------------------------------------------------------------


def test_training_again_replaces_all_codes_and_keeps_their_length(search, filled):
    first = train_codes(search, "lsh", bits=48)
    second = train_codes(search, labels=labels())
    assert (second.entry.method, second.entry.bits) == ("learned", 48)
    assert second.entry.hash != first.entry.hash
    assert wrong_codes(filled) == []
    # The client that trained asks with the new coder.
    vectors = pictures()
    assert number_of(search.search(vectors[11], k=1, codes=True)[0]) == 11
    with pytest.raises(IndexConflict, match="48 bits, which cannot become 64"):
        train_codes(search, "lsh", bits=64)
    assert filled.info().meta.codes == second.entry


def test_arguments_that_exclude_each_other_are_refused(search, filled):
    with pytest.raises(UsageError, match="Learned codes need LABELS"):
        train_codes(search, "learned")
    with pytest.raises(UsageError, match="learns nothing from labels"):
        train_codes(search, "lsh", labels=labels())
    with pytest.raises(UsageError, match="a bit for each of the 48 dims"):
        train_codes(search, "sign", bits=64)
    one = Labels((), {f"{n:04}.jpg": ("same",) for n in range(9)})
    with pytest.raises(FileInvalid, match="have the same label, 'same'"):
        train_codes(search, labels=one)
    assert filled.info().meta.codes is None
    assert CODE_FIELD not in filled.info().properties


def test_an_index_of_reduced_vectors_has_none(real_store, settings):
    reduction = fit(pictures(), 12)
    meta = new_meta(seal_of(FakeEncoder()), "reduced", "cosine", reduction.entry())
    real_store.generations.create(meta)
    search = ImageSearch(real_store.connection.client, real_store.index, settings=settings)
    with pytest.raises(UsageError, match="index of whole vectors"):
        train_codes(search, "lsh")


@pytest.mark.parametrize("harm", ["changed", "removed"])
def test_a_coder_that_is_lost_or_another_is_refused_and_trained_anew(search, filled, harm):
    train_codes(search, "lsh")
    place = f"/{Companion.CODES.alias(filled.index)}/_doc/{filled.info().meta.codes.hash}"
    if harm == "changed":
        document = dict(filled.connection.request("GET", place)["_source"])
        document["thresholds"] = document["thresholds"][:-8] + "AAAAAAA="
        filled.connection.request("PUT", place, document, params={"refresh": "true"})
    else:
        filled.connection.request("DELETE", place, params={"refresh": "true"})
    search.reload()
    with pytest.raises(IndexConflict, match="codes train"):
        search.search(pictures(1)[0], codes=True)
    train_codes(search, "lsh")
    assert number_of(search.search(pictures()[4], k=1, codes=True)[0]) == 4


# -- what comes later --------------------------------------------------------------------------


def test_what_lost_its_code_is_counted_and_gets_it_again(search, filled):
    train_codes(search, "lsh")
    vectors = pictures()
    assert index_status(filled)["codes"]["missing"] == 0
    documents = [fields(n) | {VECTOR_FIELD: vectors[n]} for n in range(10)]
    documents += [fields(10) | {VECTOR_FIELD: vectors[10], CODE_FIELD: "00" * 16}]
    filled.documents.write([Write(each["image_id"], document=each) for each in documents])
    filled.refresh()
    assert index_status(filled)["codes"]["missing"] == 10
    assert apply_codes(filled) == 11
    assert wrong_codes(filled) == []
    assert apply_codes(filled) == 0


def test_an_import_makes_codes_and_an_export_leaves_them_out(search, filled, settings, tmp_path):
    train_codes(search, "sign")
    path = tmp_path / "out.h5"
    export_pictures(filled, path)
    elsewhere = Store(filled.connection.client, f"{filled.index}-other")
    try:
        done = import_pictures(elsewhere, settings, path, ImportOptions())
        assert done.stored == COUNT
        assert elsewhere.info().meta.codes is None
        other = ImageSearch(filled.connection.client, elsewhere.index, settings=settings)
        train_codes(other, "lsh")
        import_pictures(elsewhere, settings, path, ImportOptions())
        assert wrong_codes(elsewhere) == []
        assert coder_in(elsewhere).hash != coder_in(filled).hash
    finally:
        remove_index(elsewhere, Companion.CODES.alias(elsewhere.index))


def test_a_daemon_takes_up_what_is_trained_while_it_runs(real_store, settings, tmp_path):
    house = House(real_store, settings, tmp_path)
    house.pictures(25)
    search = ImageSearch(real_store.connection.client, real_store.index, settings=settings)
    try:
        with house.watched(poll_seconds=0.2) as running:
            house.settle()
            train_codes(search, "lsh")
            assert wrong_codes(real_store) == []
            wanted = real_store.info().meta.codes.hash
            until(lambda: (coder := running.indexer._post_embed.coder) and coder.hash == wanted)
            house.picture("new.png", 100)
            shutil.copy2(house.folder / "003.png", house.folder / "copy.png")
            house.settle()
            assert wrong_codes(real_store) == []
    finally:
        remove_index(real_store, Companion.CODES.alias(real_store.index))


def test_what_was_written_with_the_coder_before_is_recoded(search, filled):
    train_codes(search, "lsh", bits=48)
    old, vectors = coder_in(filled), pictures()
    step = CodeStep(filled, old)
    step.refresh()
    assert step.coder is old
    train_codes(search, labels=labels())
    now = datetime.now(tz=UTC)
    # The second by a machine whose clock is slow, or it waited for Elasticsearch.
    for n, indexed_at in ((1, now), (2, now - timedelta(hours=1))):
        document = fields(n) | {VECTOR_FIELD: vectors[n], CODE_FIELD: old.code(vectors[n])}
        document["indexed_at"] = indexed_at.isoformat()
        filled.documents.write([Write(document["image_id"], document=document)])
    step.refresh()
    taken_up = step.coder
    assert taken_up is not None
    assert taken_up.hash == coder_in(filled).hash
    # What is on its way may still have a code of the old one.
    assert wrong_codes(filled) == ["0001.jpg", "0002.jpg"]
    step.refresh()
    assert step.coder is taken_up
    assert wrong_codes(filled) == []


def test_a_daemon_that_recodes_when_its_index_is_switched_tells_of_nobodys_command(search, filled):
    train_codes(search, "lsh", bits=48)
    kept = filled.pinned()
    step = CodeStep(kept, coder_in(kept))
    train_codes(search, labels=labels())
    step.refresh()
    taken_up = step.coder
    following = filled.generations.begin_next(filled.info().meta)
    filled.switching.switch_to(following)
    step.refresh()
    assert step.coder is taken_up
    with pytest.raises(GenerationSwitched, match=r"begin again\.$"):
        kept.switching.check_serving()


# -- the command line --------------------------------------------------------------------------


def test_the_command_line_trains_applies_and_searches(filled, settings, es_url, tmp_path: Path):
    places = ["--index", filled.index, "--es-url", es_url]

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, *places])

    first = fields(0)["image_id"]
    refused = run("similar", first, "--codes")
    assert refused.exit_code == 2
    assert f"codes train --index {filled.index}" in refused.stderr
    file = tmp_path / "labels.csv"
    lines = [f"{n:04}.jpg,kind {n % KINDS}" for n in range(100)] + ["gone.jpg,kind 1"]
    file.write_text("\n".join(["path,label", *lines]))
    done = run("codes", "train", str(file), "--bits", "48", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["method"], told["bits"], told["changed"]) == ("learned", 48, COUNT)
    assert (told["sample_size"], told["missing"]) == (100, ["gone.jpg"])
    assert "1 of the labelled pictures are not there" in done.stderr
    assert "codes learned, 48 bits\n" in run("status").stdout
    found = json.loads(run("similar", first, "--codes", "--json-hits", "-k", "3").stdout)
    order = np.argsort(-(pictures() @ pictures()[0])).tolist()
    assert [each["relative_path"] for each in found] == [f"{n:04}.jpg" for n in order[1:4]]
    vector = pictures()[5]
    filled.documents.write(
        [Write(fields(5)["image_id"], document=fields(5) | {VECTOR_FIELD: vector})]
    )
    filled.refresh()
    assert "without one: 1 picture: run `es-imgsearch codes apply --index" in run("status").stdout
    assert run("codes", "apply").stdout == "1 picture has new codes\n"
    wrong = run("codes", "apply", "--bits", "48")
    assert wrong.exit_code == 2
    assert "takes no options" in wrong.stderr
