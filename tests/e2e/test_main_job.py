"""The main job on real photographs, a real model and a real Elasticsearch."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from es_imgsearch import ImageSearch
from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.errors import (
    EncoderMismatch,
    FilterInvalid,
    ImageMissing,
    QueryPictureInvalid,
    UsageError,
)
from es_imgsearch.records import image_id
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import FakeEncoder, remove_index

QUERIES = {
    "a cat": "chelsea.png",
    "coffee": "coffee.png",
    "a rocket": "rocket.jpg",
    "motorcycle": "motorcycle_left.png",
    "coins": "coins.png",
}
INDEX = "my-image-embeddings"


class Job:
    """An index of the photographs, made and filled by the command line."""

    def __init__(self, es_url: str, folder: Path) -> None:
        self.es_url = es_url
        self.folder = folder

    def run(self, *arguments: str, index: str = INDEX) -> Result:
        environment = {"ES_URL": self.es_url, "ES_IMGSEARCH_READ_WORKERS": "2"}
        return CliRunner(env=environment).invoke(main, [*arguments, "--index", index])

    def post(self, path: str, body: dict) -> dict:
        request = urllib.request.Request(
            f"{self.es_url}/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def job(es_url: str, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    folder = tmp_path_factory.mktemp("main") / "photos"
    folder.mkdir()
    (folder / "more").mkdir()
    for picture in photographs.iterdir():
        if picture.suffix in {".png", ".jpg", ".gif"}:
            target = folder / "more" if picture.name > "m" else folder
            shutil.copyfile(picture, target / picture.name)
    (folder / "notes.txt").write_text("no picture")
    made = Job(es_url, folder)
    assert made.run("init", "--encoder", "starter").exit_code == 0
    result = made.run("sync", str(folder))
    assert result.exit_code == 0, result.stderr
    urllib.request.urlopen(urllib.request.Request(f"{es_url}/{INDEX}/_refresh", method="POST"))
    yield made
    with connect(load_settings({"es_url": es_url})) as client:
        remove_index(Store(client, INDEX))


@pytest.fixture(scope="module")
def search(job: Job, starter: Encoder) -> ImageSearch:
    return ImageSearch(job.es_url, index=INDEX, encoder=starter)


@pytest.mark.parametrize(("query", "expected"), QUERIES.items())
def test_words_put_the_matching_photograph_first(search: ImageSearch, query: str, expected: str):
    hits = search.search_text(query, k=5)
    assert hits[0].image_name == expected
    assert len(hits) == 5
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_picture_finds_itself_and_then_its_like(search: ImageSearch, photographs: Path):
    path = photographs / "motorcycle_left.png"
    array = np.asarray(Image.open(path).convert("RGB"))
    for query in (path, path.read_bytes(), Image.open(path), array, str(path), array / 255.0):
        hits = search.search_image(query, k=2)
        assert [hit.image_name for hit in hits] == ["motorcycle_left.png", "motorcycle_right.png"]
        assert hits[0].score == pytest.approx(1.0, abs=1e-3)


def test_a_part_of_a_picture_finds_what_is_in_it(search: ImageSearch, photographs: Path):
    """The cat's face alone still is a cat; a strip of the saucer's table is not coffee."""
    hits = search.search_image(photographs / "chelsea.png", box=(100, 20, 250, 250), k=1)
    assert hits[0].image_name == "chelsea.png"
    with pytest.raises(QueryPictureInvalid, match="451 x 300"):
        search.search_image(photographs / "chelsea.png", box=(900, 0, 10, 10))


def test_exact_search_agrees_and_its_scores_are_cosines(search: ImageSearch, starter: Encoder):
    approximate = search.search_text("a cat", k=10, mode="vector")
    exact = search.search_text("a cat", k=10, mode="vector", exact=True)
    assert [h.image_id for h in exact] == [h.image_id for h in approximate]
    assert [h.score for h in exact] == pytest.approx([h.score for h in approximate], abs=2e-3)
    stored = search.store.documents.vector(exact[0].image_id)
    cosine = float(stored @ starter.embed_texts(["a cat"])[0])
    assert exact[0].score == pytest.approx(cosine, abs=1e-5)


def test_hits_carry_every_stored_field(search: ImageSearch, job: Job):
    (hit,) = search.search_text("a cat", k=1)
    assert hit.root == "photos"
    assert hit.relative_path == "chelsea.png"
    assert hit.path == job.folder / "chelsea.png"
    assert hit.relevance is None
    assert hit.fields["width"] == 451
    assert hit.fields["folder"] == "."
    assert "image_embedding" not in hit.fields
    assert search.get(hit.image_id)["image_name"] == "chelsea.png"
    with pytest.raises(ImageMissing):
        search.get("0" * 32)


def test_only_the_fields_asked_for_are_fetched(search: ImageSearch):
    (hit,) = search.search_text("a cat", k=1, fields=["width"])
    assert set(hit.fields) == {"width", "root", "relative_path"}


def test_filters_act_inside_the_search(search: ImageSearch):
    inside = search.search_text("a cat", k=50, filters={"folder": "more"})
    assert inside
    assert {hit.fields["folder"] for hit in inside} == {"more"}
    assert all(hit.image_name > "m" for hit in inside)
    wide = search.search_text("a cat", k=50, filters={"width": (500, None), "format": ["png"]})
    assert wide
    assert all(hit.fields["width"] >= 500 and hit.fields["format"] == "png" for hit in wide)
    jpegs = search.search_text("a cat", k=50, filters={"format": "JPEG"})
    assert {hit.fields["format"] for hit in jpegs} == {"jpeg"}
    assert not search.search_text("a cat", filters={"format": "heif"})
    assert not search.search_text("a cat", until="1999")
    with pytest.raises(FilterInvalid, match="colour"):
        search.search_text("a cat", filters={"colour": "red"})


def test_negative_queries_push_away(search: ImageSearch):
    plain = {hit.image_name: hit.score for hit in search.search(["motorcycle"], k=50)}
    pushed = {h.image_name: h.score for h in search.search(["motorcycle"], ["a cat"], k=50)}
    assert pushed["chelsea.png"] < plain["chelsea.png"]
    with pytest.raises(UsageError, match="cancel"):
        search.search(["motorcycle"], ["motorcycle"])


def test_similar_needs_no_model_and_leaves_the_picture_itself_out(job: Job):
    client = ImageSearch(job.es_url, index=INDEX, encoder=FakeEncoder())
    hits = client.similar(image_id("photos", "more/motorcycle_left.png"), k=3)
    assert hits[0].image_name == "motorcycle_right.png"
    with pytest.raises(EncoderMismatch):
        client.search_text("a cat")


def test_any_client_can_send_a_vector_that_is_not_of_unit_length(job: Job, starter: Encoder):
    raw = (starter.embed_texts(["a cat"])[0] * 3.7).tolist()
    answer = job.post(
        f"{INDEX}/_search",
        {
            "knn": {"field": "image_embedding", "k": 5, "num_candidates": 10, "query_vector": raw},
            "fields": ["image_id", "image_name", "relative_path"],
        },
    )
    hits = answer["hits"]["hits"]
    assert len(hits) == 5
    assert hits[0]["fields"]["image_name"] == ["chelsea.png"]
    assert all(set(hit["fields"]) == {"image_id", "image_name", "relative_path"} for hit in hits)


def test_search_prints_one_json_object(job: Job):
    result = job.run("search", "a", "cat", "-k", "3", "--json")
    assert result.exit_code == 0, result.stderr
    hits = json.loads(result.stdout)["hits"]
    assert len(hits) == 3
    assert hits[0]["path"] == str(job.folder / "chelsea.png")
    assert hits[0]["relative_path"] == "chelsea.png"
    assert {"image_id", "relative_path", "score", "relevance"} <= hits[0].keys()


def test_search_prints_lines_and_writes_a_sheet(job: Job, tmp_path: Path):
    sheet = tmp_path / "out.png"
    result = job.run("search", "coffee", "-k", "2", "--sheet", str(sheet))
    assert result.exit_code == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first.split()[-1] == str(job.folder / "coffee.png")
    assert float(first.split()[0]) >= float(second.split()[0])
    with Image.open(sheet) as image:
        assert image.width > image.height


@pytest.mark.parametrize(
    ("sheet", "why"),
    [
        ("no-folder/out.png", "there is no folder"),
        ("out.unknown", "end it in .png"),
        ("out.xbm", "end it in .png"),
        ("out.h5", "end it in .png"),
    ],
)
def test_a_sheet_that_cannot_be_written_is_refused_before_the_search(
    job: Job, tmp_path: Path, sheet: str, why: str
):
    result = job.run("search", "coffee", "-k", "2", "--sheet", str(tmp_path / sheet))
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert why in line


def test_search_by_picture_from_the_command_line(job: Job, photographs: Path):
    result = job.run("search", "--image", str(photographs / "coffee.png"), "-k", "1", "--json-hits")
    assert result.exit_code == 0, result.stderr
    (hit,) = json.loads(result.stdout)
    assert hit["image_name"] == "coffee.png"


def test_a_second_sync_embeds_nothing_and_a_renamed_tree_keeps_its_vectors(job: Job):
    again = job.run("sync", str(job.folder))
    assert again.exit_code == 0
    assert "\n0 embedded, 0 reused" in f"\n{again.stderr}"
    (job.folder / "more").rename(job.folder / "moved")
    moved = job.run("sync", str(job.folder))
    assert moved.exit_code == 0, moved.stderr
    pictures = len(list((job.folder / "moved").iterdir()))
    assert f"\n0 embedded, 0 reused, {pictures} moved" in f"\n{moved.stderr}"
    (job.folder / "moved").rename(job.folder / "more")
    assert job.run("sync", str(job.folder)).exit_code == 0


def test_status_tells_what_is_there(job: Job):
    result = job.run("status", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    pictures = [p for p in job.folder.rglob("*") if p.suffix in {".png", ".jpg", ".gif"}]
    assert found["pictures"] == len(pictures)
    assert found["failures"] == 0
    assert found["encoder"]["name"] == "starter"
    assert found["roots"]["photos"]["path"] == str(job.folder)
    assert found["roots"]["photos"]["deletions_paused"] is None
    assert f"{len(pictures)} pictures" in job.run("status").stdout
