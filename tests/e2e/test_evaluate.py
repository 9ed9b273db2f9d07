"""`evaluate` on a real index, against rankings worked out in NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from es_imgsearch import ImageSearch
from es_imgsearch.cli import main
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import FileInvalid, TextUnsupported, UsageError
from es_imgsearch.quality.evaluate import compare_reports, evaluate
from es_imgsearch.quality.labels import LabelledQuery, Labels, queries_by_label
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple")
EACH = 8


def made() -> tuple[list[str], np.ndarray]:
    """Pictures near six colours, so noisy that not every right one comes first."""
    generator = np.random.default_rng(0)
    pure = FakeEncoder().embed_texts(COLOURS)
    vectors = np.repeat(pure, EACH, axis=0) + generator.normal(0, 0.25, (len(pure) * EACH, 48))
    paths = [f"{colour}/{number}.png" for colour in COLOURS for number in range(EACH)]
    return paths, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def document(root: str, path: str, vector: np.ndarray, **more: object) -> Write:
    image_id = f"{root}-{path}".replace("/", "-")
    fields = {
        "image_id": image_id, "root": root, "relative_path": path, "image_name": path,
        "content_id": f"{root} {path}", VECTOR_FIELD: vector,
    }  # fmt: skip
    return Write(image_id, {**fields, **more})


@pytest.fixture
def search(real_store: Store, settings: Settings) -> ImageSearch:
    """Six colours of eight pictures with their colour as tag, and 20 pictures of no label."""
    real_store.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine"))
    paths, vectors = made()
    # A tagger that is wrong for one picture in eight, and never sure of the fourth.
    writes = [
        document(
            "r", path, vector,
            tags=[path.split("/")[0] if "7" not in path else "grey"],
            tag_scores={path.split("/")[0]: 0.5 if "3" in path else 0.9},
        )
        for path, vector in zip(paths, vectors, strict=True)
    ]  # fmt: skip
    unlabelled = np.repeat(FakeEncoder().embed_texts(["red"]), 20, axis=0)
    writes += [document("r", f"other/{n}.png", each) for n, each in enumerate(unlabelled)]
    assert not any(real_store.documents.write(writes).values())
    real_store.refresh()
    return ImageSearch(settings=settings, encoder=FakeEncoder())


def labels() -> Labels:
    pictures = {path: (path.split("/")[0],) for path in made()[0]}
    return Labels(queries_by_label(pictures), pictures)


def ranks_by_force(vector: np.ndarray, right: set[int], among: list[int]) -> tuple[int, ...]:
    _, vectors = made()
    order = sorted(among, key=lambda at: -float(vectors[at] @ vector))[:10]
    return tuple(place for place, at in enumerate(order, start=1) if at in right)


def test_labels_are_asked_for_among_the_labelled_pictures(search: ImageSearch):
    found = evaluate(search, labels())
    paths, _ = made()
    assert [each.query for each in found.answers] == sorted(COLOURS)
    for each in found.answers:
        right = {at for at, path in enumerate(paths) if path.startswith(each.query)}
        vector = FakeEncoder().embed_texts([each.query])[0]
        assert each.right == EACH
        assert each.ranks == ranks_by_force(vector, right, list(range(len(paths))))
    assert found.missing == ()


def test_pictures_are_asked_with_and_are_no_answer_to_themselves(search: ImageSearch):
    found = evaluate(search, labels(), by="image")
    paths, vectors = made()
    assert [each.query for each in found.answers] == paths
    for at, each in enumerate(found.answers):
        right = {n for n, path in enumerate(paths) if path[:3] == paths[at][:3]} - {at}
        others = [n for n in range(len(paths)) if n != at]
        assert each.right == EACH - 1
        assert each.ranks == ranks_by_force(vectors[at], right, others)


def test_queries_are_asked_of_the_whole_index(search: ImageSearch):
    # The 20 pure reds without a label come before every noisy one.
    asked = Labels((LabelledQuery(("red/0.png", "red/1.png"), "red"),), {})
    (answer,) = evaluate(search, asked).answers
    assert (answer.right, answer.ranks) == (2, ())
    (answer,) = evaluate(search, asked, ks=(68,)).answers
    assert len(answer.ranks) == 2
    assert min(answer.ranks) > 20


def test_a_question_may_be_a_picture_file(search: ImageSearch, tmp_path: Path):
    Image.new("RGB", (32, 32), "blue").save(tmp_path / "blue.png")
    asked = Labels((LabelledQuery(("blue/0.png",), image=tmp_path / "blue.png"),), {})
    (answer,) = evaluate(search, asked, ks=(48,)).answers
    (place,) = evaluate(
        search, Labels((LabelledQuery(("blue/0.png",), "blue"),), {}), ks=(48,)
    ).answers
    assert answer.ranks == place.ranks


def test_tags_are_the_right_ones_and_the_surest_first(search: ImageSearch):
    found = evaluate(search, labels(), mode="tags")
    for each in found.answers:
        # Seven of eight have the tag, all of them right.
        assert (each.right, each.ranks) == (EACH, (1, 2, 3, 4, 5, 6, 7))
    mean = found.metrics()
    assert mean["recall@10"] == pytest.approx(7 / 8)
    assert mean["precision@5"] == mean["mrr"] == 1


@pytest.mark.parametrize("facet", ["kind:", "colour:", "my_own-facet:", "Farbe: "])
@pytest.mark.parametrize("mode", ["tags", "vector"])
def test_a_label_that_names_its_facet_is_searched_by_its_words(
    search: ImageSearch, facet: str, mode: Any
):
    pictures = {path: (f"{facet}{path.split('/')[0]}",) for path in made()[0]}
    found = evaluate(search, Labels(queries_by_label(pictures), pictures), mode=mode)
    wanted = evaluate(search, labels(), mode=mode)
    assert found.metrics() == wanted.metrics()
    assert wanted.metrics()["recall@10"] > 0.5
    assert [each.query for each in found.answers] == [f"{facet}{each}" for each in sorted(COLOURS)]


def test_the_text_of_the_vocabulary_is_embedded_for_a_label_of_a_facet(search: ImageSearch):
    # The encoder knows no colour of this name.
    texts = {"leaf": "red"}
    for label, rank in (("kind:leaf", True), ("leaf", False)):
        pictures = {path: (label if path.startswith("red") else "no",) for path in made()[0]}
        asked = Labels(queries_by_label(pictures), pictures)
        found = evaluate(search, asked, texts=texts)
        (right,) = (each for each in found.answers if each.query == label)
        assert (len(right.ranks) > 5) is rank


def test_two_modes_are_compared_query_by_query(search: ImageSearch):
    by_vector, by_tags = (evaluate(search, labels(), mode=mode) for mode in ("vector", "tags"))
    for each in compare_reports(by_vector, by_tags):
        first = by_vector.values()[each.metric]
        second = by_tags.values()[each.metric]
        assert each.mean == pytest.approx(np.mean(second) - np.mean(first))
        assert each.low <= each.mean <= each.high
        assert each.better == sum(b > a for a, b in zip(first, second, strict=True))


def test_paths_may_be_written_in_five_ways(search: ImageSearch, settings: Settings):
    search.store.generations.update_meta(
        lambda meta: meta.with_root("r", {"path": "/srv/pictures", "host": settings.host})
    )
    search.reload()
    ways = ("red/0.png", "./red/1.png", "r/red/2.png", "/srv/pictures/red/3.png", "r-red-4.png")
    (answer,) = evaluate(search, Labels((LabelledQuery(ways, "red"),), {}), ks=(68,)).answers
    assert answer.right == len(answer.ranks) == 5


def test_a_path_in_two_roots_needs_the_name_of_one(search: ImageSearch):
    vector = FakeEncoder().embed_texts(["red"])[0]
    search.store.documents.write([document("other", "red/0.png", vector)])
    search.store.refresh()
    with pytest.raises(FileInvalid, match=r"'red/0\.png' is in more than one root"):
        evaluate(search, Labels((LabelledQuery(("red/0.png",), "red"),), {}))
    found = evaluate(search, Labels((LabelledQuery(("other/red/0.png",), "red"),), {}), ks=(68,))
    assert found.answers[0].right == 1


def test_missing_pictures_are_reported(search: ImageSearch):
    asked = (LabelledQuery(("gone.png", "red/0.png"), "red"), LabelledQuery(("lost.png",), "lost"))
    found = evaluate(search, Labels(asked, {}))
    assert found.missing == ("gone.png", "lost.png")
    assert [(each.query, each.right) for each in found.answers] == [("red", 1)]
    with pytest.raises(FileInvalid, match=r"holds none of the 1 pictures of the file.*'lost\.png'"):
        evaluate(search, Labels(asked[1:], {}))
    one_each = {"red/0.png": ("a",), "red/1.png": ("b",)}
    with pytest.raises(FileInvalid, match="No two"):
        evaluate(search, Labels(queries_by_label(one_each), one_each), by="image")


def test_unanswerable_queries_are_refused(search: ImageSearch, settings: Settings):
    queries = Labels((LabelledQuery(("red/0.png",), "red"),), {})
    for wrong in ({"mode": "words"}, {"by": "image"}, {"ks": ()}, {"ks": (0,)}):
        with pytest.raises(UsageError):
            evaluate(search, queries, **wrong)
    with pytest.raises(UsageError, match="needs labels of pictures and mode 'vector'"):
        evaluate(search, labels(), by="image", mode="tags")


def test_an_encoder_of_pictures_only_is_asked_with_pictures(real_store: Store, settings: Settings):
    encoder = FakeEncoder(supports_text=False)
    real_store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"))
    real_store.documents.write([document("r", p, v) for p, v in zip(*made(), strict=True)])
    real_store.refresh()
    search = ImageSearch(settings=settings, encoder=encoder)
    assert evaluate(search, labels()).by == "image"
    with pytest.raises(TextUnsupported):
        evaluate(search, labels(), by="text")


def run(settings: Settings, *arguments: str) -> Result:
    return CliRunner(env={"ES_URL": settings.es_url}).invoke(
        main, ["evaluate", *arguments, "--index", settings.index]
    )


def test_the_command_line(search: ImageSearch, settings: Settings, tmp_path: Path):
    """In modes that need no model: the command line has no fake encoder."""
    file = tmp_path / "labels.csv"
    rows = [f"{path},{path.split('/')[0]}" for path in made()[0]]
    file.write_text("\n".join(["path,label", *rows, "gone.png,red"]))
    done = run(settings, str(file), "--mode", "tags", "--mode", "text", "--json")
    assert done.exit_code == 0, done.stderr
    (told,) = json.loads(done.stdout)
    tags, text = told["runs"]
    wanted = evaluate(search, labels(), mode="tags")
    assert tags["metrics"] == pytest.approx(wanted.metrics())
    assert (tags["queries"], tags["missing"]) == (6, ["gone.png"])
    (pair,) = told["differences"]
    assert pair["first"] == f"{settings.index} tags"
    by_name = {each["metric"]: each for each in pair["metrics"]}
    assert by_name["mrr"]["second"] == pytest.approx(text["metrics"]["mrr"])
    plain = run(settings, str(file), "--mode", "tags", "--mode", "text")
    assert "does not hold 1 of the pictures: gone.png." in plain.stderr
    assert "recall@10" in plain.stdout
    assert "95 % interval" in plain.stdout
    by_image = run(settings, str(file), "--by", "image", "-k", "3", "--json")
    (told,) = json.loads(by_image.stdout)
    wanted = evaluate(search, labels(), by="image", ks=(3,))
    assert told["runs"][0]["metrics"] == pytest.approx(wanted.metrics())


def test_a_bad_file_ends_with_one_line(search: ImageSearch, settings: Settings, tmp_path: Path):
    file = tmp_path / "labels.csv"
    file.write_text("path,label\nred/0.png\n")
    done = run(settings, str(file))
    assert done.exit_code == 2
    assert done.stderr == "Error: labels.csv, line 2: 'red/0.png' has no label.\n"
