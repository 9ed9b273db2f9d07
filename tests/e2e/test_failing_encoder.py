"""A model that cannot be loaded, or embeds nothing: an error of the run and of no picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from es_imgsearch.cli import main
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import EncodersFailed
from es_imgsearch.testing import FakeEncoder
from tests.support.encoder_hooks import cannot_load
from tests.support.house import House, Running, paint, until
from tests.support.reindexing import ids_on_disk, ids_served, run, synced, to
from tests.support.tiny_models import make_clip

WORDS = "OSError: weights.bin ends too early"


def nothing_was_written(store: Store) -> bool:
    store.refresh()
    return (store.listings.count(), list(store.listings.failures())) == (0, [])


@pytest.mark.parametrize("workers", [1, 2])
def test_sync_ends_with_one_line(house: House, encoders: dict[str, FakeEncoder], workers: int):
    house.pictures(5)
    encoders["fake"].before_batch = cannot_load
    arguments = ("sync", str(house.folder), "--workers", str(workers))
    (line,) = run(house, *arguments, code=1).stderr.strip().splitlines()
    assert line.startswith("Error: ")
    assert WORDS in line
    assert nothing_was_written(house.store)
    encoders["fake"].before_batch = FakeEncoder().before_batch
    run(house, "sync", str(house.folder))
    assert house.differing() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_watch_ends(house: House, encoders: dict[str, FakeEncoder]):
    house.pictures(5)
    encoders["fake"].before_batch = cannot_load
    running = Running(house.indexer())
    until(lambda: running.error)
    with pytest.raises(EncodersFailed, match=WORDS):
        running.stop()
    assert nothing_was_written(house.store)
    encoders["fake"].before_batch = FakeEncoder().before_batch
    with house.watched():
        house.settle()


def test_reindex_ends_and_goes_on_when_it_is_mended(house: House, encoders: dict[str, FakeEncoder]):
    house.pictures(5)
    synced(house)
    encoders["twin"].before_batch = cannot_load
    with pytest.raises(EncodersFailed, match=WORDS):
        to(house, "twin")
    assert nothing_was_written(house.store.at(str(house.store.generations.roles().next)))
    encoders["twin"].before_batch = FakeEncoder().before_batch
    done = to(house, "twin")
    assert (done.switched, done.embedded, done.missing) == (True, 5, ())
    assert ids_served(house) == ids_on_disk(house)


def test_a_folder_whose_model_does_not_load(es_url: str, real_store: Store, tmp_path: Path):
    model, pictures = tmp_path / "model", tmp_path / "pictures"
    make_clip(model)
    pictures.mkdir()
    paint(pictures / "a.png", 1)
    weights = model / "0_CLIPModel" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])

    def said(*arguments: str, code: int) -> str:
        environment = {"ES_URL": es_url, "ES_IMGSEARCH_ENCODER": str(model)}
        runner = CliRunner(env=environment)
        result = runner.invoke(main, [*arguments, "--index", real_store.index])
        assert result.exit_code == code, (result.output, result.exception)
        return result.stderr.strip()

    said("init", code=0)
    (line,) = said("sync", str(pictures), code=2).splitlines()
    assert f"Error: The model in {model} cannot be loaded" in line
    assert nothing_was_written(real_store)
