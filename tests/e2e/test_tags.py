"""Tags on a real index: from a vocabulary and a classifier, for new and stored pictures."""

from __future__ import annotations

import csv
import io
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from sklearn.metrics import average_precision_score

from es_imgsearch import ImageSearch
from es_imgsearch.cli import main
from es_imgsearch.describe.registry import load_describers
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, Companion, new_meta
from es_imgsearch.elastic.meta_entries import Curve
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed import context
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import EncoderMismatch, FileInvalid, StoreUnreachable, UsageError
from es_imgsearch.manage import redescribe as describing
from es_imgsearch.manage.redescribe import redescribe_pictures
from es_imgsearch.pipeline.engines import intake
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.quality.labels import Labels, queries_by_label
from es_imgsearch.search.relevance import IMAGE
from es_imgsearch.settings import Settings
from es_imgsearch.tags.describer import load_tagger
from es_imgsearch.tags.identify import UNKNOWN, identify
from es_imgsearch.tags.storage import load_tags, store_vocabulary
from es_imgsearch.tags.train import TRAINED, ZERO_SHOT, evaluate_tags, train_tags
from es_imgsearch.tags.vocabulary import default_vocabulary, parse_vocabulary
from es_imgsearch.testing import FakeEncoder, remove_index
from tests.support.house import House, described, pixels, until
from tests.support.old_schemas import put_meta

COLOURS = ("red", "lime", "blue", "white")
# Words that mean no colour are grey to the fake encoder.
WORDS = parse_vocabulary(
    '[colour]\nanswers = "one"\nlabels = ["red", "lime", "blue", "white", "yellow"]\n'
    '[object]\nlabels = ["orange", "purple"]\n',
    "words",
)
OTHERS = 60
VECTORS = (VECTOR_FIELD, "colour_embedding", "perceptual_hash")


def near(colour: str, number: int, noise: float = 0.05) -> np.ndarray:
    (vector,) = FakeEncoder().embed_texts([colour])
    # crc of nothing: a seed that is the same in every process
    seed = sum(colour.encode()) * 1000 + number
    moved = vector + np.random.default_rng(seed).normal(0, noise, len(vector))
    return (moved / np.linalg.norm(moved)).astype(np.float32)


def fill(store: Store, colours: tuple[str, ...] = COLOURS, each: int = 12, **more: object) -> None:
    """So many pictures near each colour, and 60 that are of no colour."""
    vectors = {f"{colour}/{n}.png": near(colour, n) for colour in colours for n in range(each)}
    random = np.random.default_rng(0).normal(size=(OTHERS, FakeEncoder.dims))
    vectors |= {
        f"other/{n}.png": (vector / np.linalg.norm(vector)).astype(np.float32)
        for n, vector in enumerate(random)
    }
    writes = []
    for path, vector in vectors.items():
        image_id = path.replace("/", "-")
        document = {
            "image_id": image_id, "root": "r", "relative_path": path, "image_name": path,
            "content_id": f"content {path}", VECTOR_FIELD: vector, **more,
        }  # fmt: skip
        writes.append(Write(image_id, document))
    assert not any(store.documents.write(writes).values())
    store.refresh()


def labels_of(colours: tuple[str, ...] = COLOURS, each: int = 12) -> Labels:
    pictures = {f"{colour}/{n}.png": (f"colour:{colour}",) for colour in colours
                for n in range(each)}  # fmt: skip
    return Labels(queries_by_label(pictures), pictures)


def written(labels: Labels, file: Path) -> Path:
    with io.StringIO() as text:
        rows = csv.writer(text)
        rows.writerow(["path", "label"])
        rows.writerows([path, *names] for path, names in labels.pictures.items())
        file.write_text(text.getvalue())
    return file


def documents(store: Store) -> dict[str, dict]:
    """By path, every stored field, and every vector as the server gives it back."""
    store.refresh()
    body = {"size": 1000, "_source": True, "docvalue_fields": list(VECTORS)}
    hits = store.connection.request("POST", f"/{store.index}/_search", body)["hits"]["hits"]
    return {
        hit["_source"]["relative_path"]: {**hit["_source"], **hit.get("fields", {})} for hit in hits
    }


def run(settings: Settings, *arguments: str) -> Result:
    runner = CliRunner(env={"ES_URL": settings.es_url})
    return runner.invoke(main, [*arguments, "--index", settings.index])


@pytest.fixture
def store(real_store: Store) -> Iterator[Store]:
    real_store.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine"), described())
    yield real_store
    remove_index(
        real_store,
        Companion.TAGS.alias(real_store.index),
        Companion.BACKGROUND.alias(real_store.index),
    )


@pytest.fixture
def search(store: Store, settings: Settings) -> ImageSearch:
    return ImageSearch(settings=settings, encoder=FakeEncoder())


def test_stored_pictures_get_the_tags_of_a_new_vocabulary_and_keep_everything_else(
    store: Store, settings: Settings
):
    fill(store, each=4, caption="a caption", colour_embedding=[0.1] * 108)
    before = documents(store)
    store_vocabulary(store, WORDS)
    encoder = FakeEncoder()
    done = redescribe_pictures(store, settings, only=["tags"], encoder=encoder)
    assert (done.describers, done.pictures, done.written, done.refused) == (("tags",), 76, 76, {})
    assert encoder.pictures_embedded == 0
    after = documents(store)
    for path, document in after.items():
        colour = path.split("/")[0]
        assert document.pop("tags") == ([] if colour == "other" else [colour])
        scores = document.pop("tag_scores")
        assert colour == "other" or scores[colour] > 0.5
        assert document == before[path]
    # What is so already is not written again, and new words are.
    again = redescribe_pictures(store, settings, only=["tags"], encoder=encoder)
    assert (again.pictures, again.written) == (76, 0)
    store_vocabulary(store, parse_vocabulary('[tint]\nlabels = ["blue", "black"]\n', "words"))
    redescribe_pictures(store, settings, only=["tags"], encoder=encoder)
    tagged = {path: document["tags"] for path, document in documents(store).items()}
    assert tagged["blue/3.png"] == ["blue"]
    assert tagged["red/3.png"] == []


def test_a_trained_classifier_tags_stored_and_new_pictures_and_embeds_nothing(
    store: Store, settings: Settings, search: ImageSearch, tmp_path: Path
):
    fill(store, each=8)
    store_vocabulary(store, WORDS)
    named = {
        "red": "ours:apples",
        "lime": "ours:leaves",
        "blue": "ours:seas",
        "white": "ours:suns",
    }
    pictures = {f"{colour}/{n}.png": (name,) for colour, name in named.items() for n in range(8)}
    done = train_tags(search, Labels(queries_by_label(pictures), pictures), one_of=["ours"])
    assert [(each.facet, each.answers) for each in done.classifier.facets] == [("ours", "one")]
    assert done.classifier.pictures == 32
    redescribe_pictures(store, settings, only=["tags"], encoder=FakeEncoder())
    for path, document in documents(store).items():
        if path.startswith("other/"):
            continue
        # The vocabulary's own word stands beside it.
        assert named[path.split("/")[0]].split(":")[1] in document["tags"], path
    # A new picture, by way of the folder.
    house = House(store, settings, tmp_path)
    Image.new("RGB", (32, 32), "red").save(house.folder / "new.png")
    indexer = house.indexer()
    sync(indexer)
    indexer.pipeline.close()
    assert documents(store)["new.png"]["tags"][0] == "apples"
    assert "describe_errors" not in documents(store)["new.png"]


def test_evaluation_agrees_with_scikit_learn_and_numpy(store: Store, search: ImageSearch):
    fill(store)
    store_vocabulary(store, WORDS)
    labels = labels_of()
    report = evaluate_tags(search, labels)
    assert [(each.facet, each.way) for each in report.facets] == [
        ("colour", ZERO_SHOT), ("colour", TRAINED),
    ]  # fmt: skip
    paths = list(labels.pictures)
    vectors = np.stack([near(*_numbered(path)) for path in paths])
    info = search.info
    tagger = load_tagger(store.index, info.meta, FakeEncoder(), store.send)
    (colour,) = [each for each in tagger.scores(vectors) if each.facet == "colour"]
    zero_shot, trained = report.facets
    for each in zero_shot.labels:
        right = np.array([path.startswith(each.label) for path in paths])
        column = colour.labels.index(each.label)
        assert each.average_precision == pytest.approx(
            average_precision_score(right, colour.scores[:, column])
        )
        given = colour.holds[:, column]
        assert each.recall == pytest.approx((given & right).sum() / right.sum())
        assert each.pictures == 12
    # Every picture stands in the row of its label, once.
    assert zero_shot.confusion.sum(axis=1).tolist() == [12] * 4
    assert trained.confusion.sum() == 48
    assert trained.mean_average_precision > 0.95
    assert np.trace(trained.confusion[:, :4]) >= 44
    assert load_tags(store.index, store.send).classifier is None


def _numbered(path: str) -> tuple[str, int]:
    colour, name = path.split("/")
    return colour, int(name.removesuffix(".png"))


def test_train_without_labels_uses_those_of_the_last_training(store: Store, search: ImageSearch):
    fill(store, each=6)
    store_vocabulary(store, WORDS)
    with pytest.raises(UsageError, match="tags train LABELS --index"):
        train_tags(search)
    first = train_tags(search, labels_of(each=6)).classifier
    again = train_tags(search).classifier
    for one, other in zip(first.facets, again.facets, strict=True):
        assert one.labels == other.labels
        assert np.allclose(one.weights, other.weights, atol=1e-4)
    # A few labels of pictures that are not there are told, and too few of one are left out.
    labels = {
        **labels_of(each=6).pictures,
        "gone.png": ("colour:red",),
        "red/0.png": ("colour:pink",),
    }
    done = train_tags(search, Labels((), labels))
    assert done.missing == ("gone.png",)
    assert done.too_few == {"pink": 1}
    with pytest.raises(FileInvalid, match="has the 5 pictures that training needs"):
        train_tags(search, labels_of(each=3))


def test_the_classifier_of_another_encoder_is_refused_and_the_vocabulary_still_used(
    store: Store, settings: Settings, search: ImageSearch
):
    fill(store, each=8)
    store_vocabulary(store, WORDS)
    train_tags(search, labels_of(each=8))
    other = FakeEncoder(revision="2")
    put_meta(store, replace(store.info().meta, seal=seal_of(other)).to_body())
    info = store.info()
    tagger = load_tagger(store.index, info.meta, other, store.send)
    assert tagger.classifier is None
    assert "train it again" in tagger.note
    assert tagger.fields(near("red", 0)[None])[0]["tags"] == ["red"]
    with pytest.raises(EncoderMismatch, match="differs in revision: train it again"):
        load_tags(store.index, store.send).classifier.check(info.meta, store.index)
    listed = run(settings, "tags", "list")
    assert listed.exit_code == 2
    assert "es-imgsearch tags train --index" in listed.stderr
    # As it says.
    train_tags(ImageSearch(settings=settings, encoder=other))
    assert load_tagger(store.index, info.meta, other, store.send).note is None


def test_with_an_encoder_of_pictures_only_the_classifier_alone_tags(
    real_store: Store, settings: Settings
):
    encoder = FakeEncoder(supports_text=False)
    real_store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"), described())
    try:
        fill(real_store, each=8)
        redescribe_pictures(real_store, settings, only=["tags"], encoder=encoder)
        assert {tuple(each["tags"]) for each in documents(real_store).values()} == {()}
        search = ImageSearch(settings=settings, encoder=encoder)
        report = evaluate_tags(search, labels_of(each=8))
        assert [each.way for each in report.facets] == [TRAINED]
        train_tags(search, labels_of(each=8))
        done = redescribe_pictures(real_store, settings, only=["tags"], encoder=encoder)
        assert done.written == 32 + OTHERS
        for path, document in documents(real_store).items():
            if not path.startswith("other/"):
                assert document["tags"] == [path.split("/")[0]]
    finally:
        remove_index(real_store, Companion.TAGS.alias(real_store.index))


# -- in the pipeline ----------------------------------------------------------------------------


def test_an_outage_costs_no_picture_its_tags(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fill(store, each=1)
    store_vocabulary(store, WORDS)
    house = House(store, settings, tmp_path)
    house.pictures(2)
    Image.new("RGB", (32, 32), "red").save(house.folder / "red.png")
    indexer = house.indexer(describers=("tags",))
    send, asked = indexer._store.send, 0

    def away_at_first(request):
        nonlocal asked
        asked += 1
        if asked in {1, 3}:
            raise StoreUnreachable("Elasticsearch does not answer.")
        return send(request)

    monkeypatch.setattr(indexer._store, "send", away_at_first)
    try:
        sync(indexer)
    finally:
        indexer.pipeline.close()
    assert asked > 3
    assert documents(store)["red.png"]["tags"] == ["red"]
    assert not any("describe_errors" in each for each in documents(store).values())


def test_a_stop_waits_for_words_that_are_being_embedded(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A process that ends with a thread inside the model is ended by SIGABRT."""
    words = [f"nobody embedded {uuid.uuid4()}" for _ in range(40)]
    store_vocabulary(store, parse_vocabulary(f"[object]\nlabels = {json.dumps(words)}\n", "words"))
    monkeypatch.setattr(intake, "_END_SECONDS", 0.0)
    house = House(store, settings, tmp_path)
    house.pictures(1)
    began, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    embed_texts = house.encoder.embed_texts

    def slow(texts):
        began.set()
        go_on.wait(30)
        ended.set()
        return embed_texts(texts)

    monkeypatch.setattr(house.encoder, "embed_texts", slow)
    indexer = house.indexer(describers=("tags",))
    try:
        indexer.reconcile(indexer.roots[0])
        indexer.submit_settled()
        until(lambda: indexer.submit_settled() or began.is_set())
        closing = threading.Thread(target=indexer.pipeline.close)
        closing.start()
        until(indexer.pipeline.stopping.is_set)
        closing.join(0.2)
        assert closing.is_alive()
    finally:
        go_on.set()
    closing.join(30)
    assert ended.is_set()
    assert not closing.is_alive()


# -- describe ------------------------------------------------------------------------------------


def test_describe_reads_originals_again_and_embeds_nothing(
    store: Store, settings: Settings, tmp_path: Path
):
    house = House(store, settings, tmp_path)
    house.pictures(5)
    indexer = house.indexer()
    sync(indexer)
    indexer.pipeline.close()
    before = documents(store)
    assert all("perceptual_hash" in each for each in before.values())

    def spoil(document: dict) -> dict:
        kept = {
            n: v for n, v in document.items() if n not in {"perceptual_hash", "colour_embedding"}
        }
        return {**kept, "describe_errors": ["hashes: ValueError: once", "other: stays"]}

    store.rewrites.rewrite([each["image_id"] for each in before.values()], spoil)
    assert not any("perceptual_hash" in each for each in documents(store).values())
    # One file has changed since, one is gone, one cannot be read.
    (house.folder / "001.png").unlink()
    house.picture("002.png", seed=77)
    (house.folder / "003.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"broken" * 40)
    embedded = house.encoder.pictures_embedded
    seen: list[tuple[int, int]] = []
    done = redescribe_pictures(
        store, settings, only=["hashes"], encoder=house.encoder,
        on_progress=lambda *at: seen.append(at),
    )  # fmt: skip
    assert house.encoder.pictures_embedded == embedded
    assert (done.written, done.changed, done.unreadable, done.elsewhere) == (2, 2, 1, 0)
    assert seen[-1] == (5, 5)
    after = documents(store)
    for path in ("000.png", "004.png"):
        assert after[path]["perceptual_hash"] == before[path]["perceptual_hash"]
        assert after[path]["describe_errors"] == ["other: stays"]
        # Only what was asked for was made anew.
        assert "colour_embedding" not in after[path]
    for path in ("001.png", "002.png", "003.png"):
        assert "perceptual_hash" not in after[path]
    for path, document in after.items():
        assert document[VECTOR_FIELD] == before[path][VECTOR_FIELD]
    # All of them, which restores the rest of the two.
    redescribe_pictures(store, settings, encoder=house.encoder)
    restored = documents(store)["004.png"]
    assert restored["colour_embedding"] == before["004.png"]["colour_embedding"]


def test_describers_that_share_a_field_look_together(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    class Fruit:
        name, mapping = "fruit", {"title": {"type": "text"}, "creator": {"type": "keyword"}}

    class Signed:
        name, mapping = "signed", {"creator": {"type": "keyword"}}

    class Other:
        name, mapping = "other", {"camera": {"type": "keyword"}}

    known = {each.name: each for each in (Fruit(), Signed(), Other())}
    monkeypatch.setattr(describing, "load_describers", lambda names: [known[n] for n in names])
    monkeypatch.setattr(describing, "chosen_describers", lambda _asked: list(known.values()))
    mapped = {"title": {}, "creator": {}, "camera": {}}
    assert describing._add_sharing(["signed"], mapped, settings) == ["fruit", "signed"]
    assert describing._add_sharing(["other"], mapped, settings) == ["other"]
    # One whose fields the index lacks would have the whole document refused.
    assert describing._add_sharing(["signed"], {"creator": {}}, settings) == ["signed"]


@pytest.fixture
def two_describers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Two that share a field, in place of those installed; what each does is set by the test."""
    does: dict[str, Any] = {}

    class Describer:
        source, mapping = "vector", {"title": {"type": "text"}, "rating": {"type": "byte"}}

        def __init__(self, name: str) -> None:
            self.name = name

        def begin(self, _space: object) -> None:
            pass

        def describe_vectors(self, vectors: np.ndarray) -> list[dict]:
            return [does[self.name]() for _ in vectors]

    one, other = Describer("one"), Describer("other")
    other.mapping = {"title": {"type": "text"}}
    monkeypatch.setattr(context, "mapped_describers", lambda *_: ["one", "other"])
    monkeypatch.setattr(describing, "_add_sharing", lambda names, *_: names)
    monkeypatch.setattr(describing, "load_describers", lambda _names: [one, other])
    return does


def test_what_a_failing_describer_gave_is_not_erased_by_one_that_shares_the_field(
    store: Store, settings: Settings, two_describers: dict[str, Any]
):
    fill(store, ("red",), each=1, title="of the sidecar", rating=3)
    ids = ["red-0.png"]

    def fails() -> dict:
        raise RuntimeError("not today")

    two_describers["one"] = lambda: {"rating": 4}
    two_describers["other"] = fails
    redescribe_pictures(store, settings, encoder=FakeEncoder())
    document = documents(store)["red/0.png"]
    assert (document["title"], document["rating"]) == ("of the sidecar", 4)
    assert document["describe_errors"] == ["other: RuntimeError: not today"]
    # Who can tell again, says it; and nobody's failure stays noted.
    two_describers["other"] = lambda: {"title": "again"}
    redescribe_pictures(store, settings, encoder=FakeEncoder())
    document = documents(store)["red/0.png"]
    assert (document["title"], "describe_errors" in document) == ("again", False)
    # Of what nothing is stored the other's word is better than none.
    store.rewrites.rewrite(ids, lambda now: {name: now[name] for name in now if name != "title"})
    two_describers |= {"one": lambda: {"title": "of one"}, "other": fails}
    redescribe_pictures(store, settings, encoder=FakeEncoder())
    assert documents(store)["red/0.png"]["title"] == "of one"


def test_what_elasticsearch_refuses_of_a_describer_costs_the_others_nothing(
    store: Store, settings: Settings, two_describers: dict[str, Any]
):
    fill(store, ("red",), each=1, title="before", rating=3)
    two_describers["one"] = lambda: {"rating": "five stars"}
    two_describers["other"] = lambda: {"title": "now"}
    done = redescribe_pictures(store, settings, encoder=FakeEncoder())
    assert (done.refused, done.written) == ({}, 1 + OTHERS)
    document = documents(store)["red/0.png"]
    assert document["title"] == "now"
    assert "rating" not in document
    (note,) = document["describe_errors"]
    assert note.startswith("one: left out: rating: ")


def test_describe_gives_its_only_process_all_cores(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    seen: list[int] = []
    monkeypatch.setattr(
        "es_imgsearch.embed.index_encoder.load_encoder", lambda *_, **__: FakeEncoder()
    )
    monkeypatch.setattr("es_imgsearch.embed.index_encoder.run_for_queries", lambda *_: None)
    monkeypatch.setattr(
        "es_imgsearch.embed.context.run_for_pictures",
        lambda _, given: seen.append(given.workers),
    )
    redescribe_pictures(store, settings.model_copy(update={"workers": 4}), only=["tags"])
    assert seen == [1]


def test_what_a_failing_describer_said_before_stays(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    fill(store, each=4, tags=["mine"])

    def fails(*_: object) -> None:
        raise RuntimeError("no tagger today")

    monkeypatch.setattr("es_imgsearch.tags.describer.Tags.describe_vectors", fails)
    done = redescribe_pictures(store, settings, only=["tags"], encoder=FakeEncoder())
    assert done.with_errors == done.written == 76
    for document in documents(store).values():
        assert document["tags"] == ["mine"]
        assert document["describe_errors"] == ["tags: RuntimeError: no tagger today"]


# -- identify ------------------------------------------------------------------------------------


def test_in_too_small_an_index_neighbours_are_shown_but_do_not_decide(
    store: Store, search: ImageSearch
):
    fill(store, ("red", "lime"), product_id="R2")
    store.documents.delete([f"other-{n}.png" for n in range(OTHERS)])
    store.refresh()
    found = identify(search, Image.new("RGB", (40, 30), "red"))
    assert found.by != "product_id"
    assert found.votes[0].relevance is None
    assert "needs 30 different pictures" in found.notes[0]
    assert f"es-imgsearch sync DIR --index {store.index}`" in found.notes[0]


def test_identify_by_neighbours_by_words_and_not_at_all(
    store: Store, settings: Settings, search: ImageSearch
):
    fill(store, ("red", "lime"))
    store_vocabulary(store, WORDS)
    store.rewrites.rewrite(
        ["red-0.png", "red-1.png"], lambda document: {**document, "product_id": "R2"}
    )
    store.rewrites.rewrite(["red-2.png"], lambda document: {**document, "product_id": "R1"})
    store.refresh()
    picture = Image.new("RGB", (40, 30), "red")
    # Relevance 1/2 at the cosine .9, whatever the background.
    curve = Curve(intercept=-45.0, z_weight=0.0, cosine_weight=50.0)
    store.generations.update_meta(lambda meta: _calibrated(meta, curve))
    search.reload()
    found = identify(search, picture, neighbours=24)
    assert (found.answer, found.by) == ("R2", "product_id")
    one, other = found.votes
    weights = {
        n: 1
        / (1 + np.exp(45.0 - 50.0 * float(near("red", n) @ FakeEncoder().embed_texts(["red"])[0])))
        for n in range(3)
    }
    assert one.share == pytest.approx((weights[0] + weights[1]) / sum(weights.values()), abs=2e-3)
    assert one.relevance == pytest.approx(max(weights[0], weights[1]), abs=2e-3)
    assert set(one.pictures) == {"red-0.png", "red-1.png"}
    assert (other.name, other.pictures) == ("R1", ("red-2.png",))
    assert identify(search, picture, min_relevance=1.0).by == "colour"
    # Nothing near, and no word for it.
    grey = identify(search, Image.fromarray(pixels(5)))
    assert (grey.answer, grey.by) == (UNKNOWN, None)
    # Only a part of the picture.
    half = Image.new("RGB", (40, 40), "grey")
    half.paste("lime", (0, 0, 20, 40))
    assert identify(search, half, box=(0, 0, 20, 40)).answer == "lime"


def test_neighbours_vote_by_what_is_within_a_field(
    store: Store, settings: Settings, search: ImageSearch
):
    fill(store, ("red", "lime"), each=4)
    brands = {"red-0.png": "Acme", "red-1.png": ["Acme", "Zeta"], "red-2.png": "Zeta"}
    for image_id, brand in brands.items():
        attributes = {"brand.name": brand, "made": {"in": "Ghent"}}
        store.rewrites.rewrite(
            [image_id], lambda now, given=attributes: {**now, "attributes": given}
        )
    store.refresh()
    curve = Curve(intercept=-45.0, z_weight=0.0, cosine_weight=50.0)
    store.generations.update_meta(lambda meta: _calibrated(meta, curve))
    picture = Image.new("RGB", (40, 30), "red")
    found = identify(search, picture, fields=["attributes.made.in"])
    assert (found.answer, found.by) == ("Ghent", "attributes.made.in")
    assert set(found.votes[0].pictures) == set(brands)
    named = identify(search, picture, fields=["attributes.brand.name"])
    assert {each.name: set(each.pictures) for each in named.votes} == {
        "Acme": {"red-0.png", "red-1.png"}, "Zeta": {"red-1.png", "red-2.png"},
    }  # fmt: skip
    for name in ("brand", "title.keyword"):
        with pytest.raises(UsageError, match=f"no field '{name}'"):
            identify(search, picture, fields=[name])


def test_every_facet_answers_and_what_is_said_of_a_thing_comes_last(
    store: Store, search: ImageSearch
):
    fill(store, each=8)
    store_vocabulary(store, parse_vocabulary(
        '[first]\nanswers = "one"\nlabels = ["red", "crimson", "firebrick"]\n'
        '[second]\nlabels = ["tomato", "#fe0000"]\ntexts = {"#fe0000" = "#fe0000"}\n',
        "words",
    ))  # fmt: skip
    found = identify(search, Image.new("RGB", (40, 30), "red"))
    assert [each.by for each in found.answers] == ["second", "first"]
    assert (found.answer, found.by) == (found.answers[0].name, "second")
    tags = {each.label: each for each in found.labels if each.is_tag}
    for each in found.answers:
        best = max((t for t in tags.values() if t.facet == each.by), key=lambda tag: tag.score)
        assert (each.name, each.source, each.score) == (best.label, ZERO_SHOT, best.score)


@pytest.mark.parametrize("described", [True, False])
def test_a_trained_facet_of_few_labels_does_not_outvote_what_is_more_specific(
    store: Store, settings: Settings, search: ImageSearch, described: bool
):
    """As "animals" of a facet that tells animals from food did for a duck."""
    fill(store)
    pictures = {}
    for path in labels_of().pictures:
        colour = path.split("/")[0]
        pictures[path] = (f"name:{colour}", f"kind:{'warm' if colour == 'red' else 'other'}")
    train_tags(search, Labels(queries_by_label(pictures), pictures), one_of=["name", "kind"])
    if described:
        redescribe_pictures(store, settings, only=["tags"], encoder=FakeEncoder())
    search.reload()
    for colour, kind in (("red", "warm"), ("blue", "other"), ("lime", "other")):
        found = identify(search, Image.new("RGB", (40, 30), colour), min_relevance=0.0)
        answers = [(each.name, each.by) for each in found.answers if each.by != "colour"]
        assert (colour, "name") in answers, found
        if kind == "other":
            assert answers[:2] == [(colour, "name"), (kind, "kind")]


def _calibrated(meta, curve: Curve):

    return replace(meta, relevance={IMAGE: curve})


# -- the command line ----------------------------------------------------------------------------


def test_the_commands_from_vocabulary_to_identify(
    real_store: Store, settings: Settings, photographs: Path, tmp_path: Path
):
    """With `starter` and real photographs, as somebody would do it."""
    folder = tmp_path / "photos"
    folder.mkdir()
    names = ("chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
    for name in names:
        (folder / name).write_bytes((photographs / name).read_bytes())
    try:
        assert run(settings, "init", "--encoder", "starter").exit_code == 0
        synced = run(settings, "sync", f"photos={folder}")
        assert synced.exit_code == 0, synced.output
        found = documents(real_store)
        assert "cat" in found["chelsea.png"]["tags"]
        assert found["chelsea.png"]["tag_scores"]["cat"] > 0.5
        assert "cat" not in found["coffee.png"]["tags"]
        assert "rocket" in found["rocket.jpg"]["tags"]
        assert "motorcycle" in found["motorcycle_left.png"]["tags"]

        told = run(settings, "tags", "vocabulary")
        assert told.exit_code == 0
        assert "chess" in parse_vocabulary(told.stdout, "told").labels
        words = tmp_path / "words.toml"
        # Few words, since embedding them takes most of this test's time.
        few = [*default_vocabulary().labels[::8], "tabby cat"]
        words.write_text(f"[object]\nlabels = {json.dumps(few)}\n")
        assert run(settings, "tags", "vocabulary", str(words)).exit_code == 0
        listed = json.loads(run(settings, "tags", "list", "--json").stdout)
        assert "tabby cat" in listed["vocabulary"]["object"]["labels"]
        assert not listed["is_default"]
        assert listed["trained"] == {}
        described_again = run(settings, "describe", "--only", "tags")
        assert described_again.exit_code == 0, described_again.output
        assert "tags: " in described_again.stderr
        assert "tabby cat" in documents(real_store)["chelsea.png"]["tags"]

        told = run(settings, "identify", str(photographs / "chelsea.png"), "--json")
        answer = json.loads(told.stdout)
        assert "tabby cat" in {each["label"] for each in answer["labels"] if each["is_tag"]}
        assert answer["answer"] != UNKNOWN
        assert run(settings, "identify", str(tmp_path / "no.png")).exit_code == 2
        assert run(settings, "describe", "--only", "nobody").exit_code == 2
    finally:
        remove_index(real_store, Companion.TAGS.alias(real_store.index))


def test_train_and_evaluate_from_the_command_line(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fill(store)
    store_vocabulary(store, WORDS)
    # The index is sealed to a fake encoder, which is in no registry.
    monkeypatch.setattr(
        "es_imgsearch.embed.index_encoder.load_encoder", lambda *_, **__: FakeEncoder()
    )
    labels = written(labels_of(), tmp_path / "labels.csv")
    refused = run(settings, "tags", "evaluate")
    assert (refused.exit_code, "tags train LABELS" in refused.stderr) == (2, True)
    trained = run(settings, "tags", "train", str(labels), "--json")
    assert trained.exit_code == 0, trained.output
    assert json.loads(trained.stdout)["facets"] == {"colour": sorted(COLOURS)}
    plot = tmp_path / "confusion.png"
    told = run(settings, "tags", "evaluate", "--plot", str(plot))
    assert told.exit_code == 0, told.output
    assert "colour, zero-shot: 48 pictures, mean average precision" in told.stdout
    assert "colour, trained: 48 pictures, mean average precision" in told.stdout
    with Image.open(plot) as drawn:
        assert drawn.format == "PNG"
        assert np.asarray(drawn.convert("L")).std() > 10
    (tmp_path / "full.png").symlink_to("/dev/full")
    undrawn = run(settings, "tags", "evaluate", "--plot", str(tmp_path / "full.png"))
    assert (undrawn.exit_code, undrawn.stdout) == (2, told.stdout)
    assert "cannot be written" in undrawn.stderr
    as_json = json.loads(run(settings, "tags", "evaluate", str(labels), "--json").stdout)
    assert as_json["facets"][0]["confusion"]["given"][-1] == "(none)"
    described_now = run(settings, "describe", "--only", "tags", "--json")
    assert json.loads(described_now.stdout)["written"] == 48 + OTHERS
    assert "trained: colour (one)" in run(settings, "tags", "list").stdout
    assert "Removed the trained classifier" in run(settings, "tags", "forget").stderr
    assert "no trained classifier" in run(settings, "tags", "forget").stderr
    queries = tmp_path / "queries.csv"
    queries.write_text("query,path\nred,red/0.png\n")
    assert "not queries" in run(settings, "tags", "train", str(queries)).stderr


def test_tags_is_one_of_the_describers():
    assert "tags" in {each.name for each in load_describers()}
