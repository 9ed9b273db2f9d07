"""An index that nobody labelled or calibrated has relevance, and says what is not likely right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from click.testing import CliRunner, Result

from es_imgsearch import ImageSearch
from es_imgsearch.cli import main
from es_imgsearch.cli.printing.hits import BELOW_LINE
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, Companion, new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import NotCalibrated
from es_imgsearch.quality.calibrate import calibrate
from es_imgsearch.search.relevance import IMAGE, NAMED_RELEVANCE, TEXT
from es_imgsearch.search.results import NOTHING_FITS
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder

WORDS = (
    "harbour", "violin", "glacier", "tractor", "pelican", "cactus", "lantern", "zeppelin", "walnut",
    "octopus", "anvil", "meadow", "saxophone", "igloo", "kettle", "canoe", "falcon", "bakery",
    "tunnel", "orchid",
)  # fmt: skip
EACH = 3


class WordEncoder(FakeEncoder):
    """An encoder for which every text has a direction of its own."""

    def __init__(self) -> None:
        super().__init__(revision="words")

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        rows = []
        for text in texts:
            seed = hashlib.blake2b(text.encode(), digest_size=4).digest()
            rows.append(np.random.default_rng(int.from_bytes(seed)).normal(size=self.dims))
        vectors = np.asarray(rows, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def documents(words: Sequence[str]) -> list[Write]:
    generator = np.random.default_rng(0)
    writes = []
    for word, vector in zip(words, WordEncoder().embed_texts(words), strict=True):
        for number in range(EACH):
            noisy = vector + generator.normal(0, 0.03 + 0.03 * number, len(vector))
            path = f"{word}/{number}.png"
            writes.append(Write(f"{word}-{number}", {
                "image_id": f"{word}-{number}", "root": "r", "relative_path": path,
                "image_name": f"{number}.png", "folder": word, "content_id": f"content {path}",
                VECTOR_FIELD: (noisy / np.linalg.norm(noisy)).astype(np.float32),
            }))  # fmt: skip
    return writes


@pytest.fixture
def store(real_store: Store) -> Iterator[Store]:
    real_store.generations.create(new_meta(seal_of(WordEncoder()), "exact", "cosine"))
    assert not any(real_store.documents.write(documents(WORDS)).values())
    real_store.refresh()
    yield real_store
    name = f"{Companion.BACKGROUND.alias(real_store.index)}-000001"
    real_store.connection.client.indices.delete(index=name, ignore_unavailable=True)


@pytest.fixture
def search(store: Store, settings: Settings) -> ImageSearch:
    return ImageSearch(settings=settings, encoder=WordEncoder())


def run(settings: Settings, *arguments: str) -> Result:
    return CliRunner(env={"ES_URL": settings.es_url}).invoke(
        main, [*arguments, "--index", settings.index]
    )


def test_hits_of_words_and_pictures_have_relevance(search: ImageSearch):
    for hits in (search.search_text("violin", k=20), search.similar("violin-0", k=20)):
        known = [hit.relevance for hit in hits]
        assert None not in known
        assert known == sorted(known, reverse=True)
        assert known[0] > 0.5 > known[-1]
        assert {hit.fields["folder"] for hit in hits[: hits.likely_end]} == {"violin"}
        assert hits.notes == ()
    kept = search.search_text("violin", k=20, min_relevance=0.5)
    assert {hit.fields["folder"] for hit in kept} == {"violin"}


def test_calibrating_without_labels_stores_the_curves_that_searches_derive(
    search: ImageSearch, store: Store
):
    def relevance() -> list[float | None]:
        found = (search.search_text("violin", k=3), search.similar("violin-0", k=2))
        return [hit.relevance for hits in found for hit in hits]

    before = relevance()
    found = calibrate(search)
    assert set(found.curves) == {TEXT, IMAGE}
    assert search.info.meta.relevance == found.curves
    assert relevance() == before
    # And they stay while the index grows.
    assert not any(store.documents.write(documents(("pylon", "quartz", "ravine"))).values())
    store.refresh()
    search.reload()
    assert relevance() == before


def test_a_search_for_what_is_not_there_says_so(search: ImageSearch):
    hits = search.search_text("submarine", k=3)
    assert hits.relevant == hits.likely_end == 0
    assert hits.notes == (NOTHING_FITS,)
    assert hits.to_dict()["notes"] == [NOTHING_FITS]
    # A later page says nothing of the best hits.
    assert search.search_text("violin", k=20, offset=10).notes == ()
    refused = search.search_text("submarine", k=3, min_relevance=0.5)
    assert len(refused) == 0
    assert refused.notes == (
        f"No hit has a relevance of 50% or more; the best has {hits[0].relevance:.0%}.",
    )


@pytest.mark.parametrize("words", ["submarine", "the submarine", "Submarine"])
def test_a_hit_that_is_named_as_the_words_is_not_called_unlikely(
    search: ImageSearch, store: Store, words: str
):
    body = {"doc": {"image_name": "submarine_old-12.jpg"}}
    store.connection.request("POST", f"/{store.index}/_update/meadow-1", body)
    store.refresh()
    alike = search.search_text(words, mode="hybrid", k=5)
    assert {hit.image_id: hit.relevance for hit in alike}["meadow-1"] == NAMED_RELEVANCE
    assert alike.notes == ()
    kept = search.search_text(words, mode="hybrid", k=5, min_relevance=0.3)
    assert [hit.image_id for hit in kept] == ["meadow-1"]
    # The vector alone knows nothing of names.
    assert search.search_text(words, mode="vector", k=60).relevant == 0


def test_below_30_pictures_a_note_says_that_there_is_no_relevance(
    search: ImageSearch, store: Store, settings: Settings
):
    store.documents.delete([f"{word}-{n}" for word in WORDS[9:] for n in range(EACH)])
    store.refresh()
    holds = f"Index {store.index!r} holds 27 different pictures; relevance needs 30"
    hits = search.search_text("violin", k=3)
    assert [hit.relevance for hit in hits] == [None] * 3
    assert hits.notes == (f"{holds}, so hits have no percentage.",)
    with pytest.raises(NotCalibrated, match=r"needs 30: add pictures with `es-imgsearch sync DIR"):
        search.search_text("violin", min_relevance=0.3)
    done = run(settings, "similar", "violin-0", "-k", "5")
    assert done.stderr == f"{holds}, so hits have no percentage.\n"
    assert "%" not in done.stdout
    assert json.loads(run(settings, "similar", "violin-0", "--json").stdout)["notes"] == [
        f"{holds}, so hits have no percentage."
    ]
    missing = [each for each in documents(WORDS) if each.image_id.startswith("octopus")]
    assert not any(store.documents.write(missing).values())
    store.refresh()
    done = run(settings, "similar", "violin-0", "-k", "5")
    assert "relevance needs" not in done.stderr
    assert done.stdout.count("%") == 5


def test_the_command_line_draws_a_line_below_the_last_likely_hit(store: Store, settings: Settings):
    done = CliRunner(env={"ES_URL": settings.es_url}).invoke(
        main, ["similar", "violin-0", "-k", "6", "--index", settings.index]
    )
    assert done.exit_code == 0
    # `output` has both streams as a terminal shows them.
    lines = done.output.splitlines()
    below = lines.index(f"  {BELOW_LINE}")
    assert all("violin" in line for line in lines[:below])
    assert not any("violin" in line for line in lines[below + 1 :])
    assert BELOW_LINE not in done.stdout
    found = json.loads(run(settings, "similar", "violin-0", "--json").stdout)
    assert found["relevant"] == below
    few = run(settings, "similar", "violin-0", "-k", "40", "--min-relevance", "0.5", "--json")
    assert len(json.loads(few.stdout)["hits"]) == below
    alone = run(settings, "similar", "violin-0", "-k", "40", "--min-relevance", "1", "--json")
    assert json.loads(alone.stdout)["notes"][0].startswith("No hit has a relevance of 100% or more")
