"""What is read into memory when an index is opened, and how large its segments become."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.manage.transfer.export import export_pictures
from es_imgsearch.manage.transfer.importing import ImportOptions, import_pictures
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder
from tests.support.house import House


def run(settings: Settings, *arguments: str) -> Result:
    runner = CliRunner(env={"ES_URL": settings.es_url})
    return runner.invoke(main, [*arguments, "--index", settings.index])


def set_up(store: Store) -> dict[str, Any]:
    (body,) = store.connection.request("GET", f"/{store.index}/_settings").values()
    found: dict[str, Any] = body["settings"]["index"]
    return found


def preloaded(store: Store) -> list[str] | None:
    found: list[str] | None = set_up(store).get("store", {}).get("preload")
    return found


def largest_segment(store: Store) -> str | None:
    found: str | None = set_up(store).get("merge", {}).get("policy", {}).get("max_merged_segment")
    return found


@pytest.mark.parametrize(
    ("options", "files"),
    [
        ([], ["vex", "veq"]),
        (["--preload", "auto"], ["vex", "veq"]),
        (["--preload", "off"], []),
        (["--profile", "compact"], ["vex", "veq"]),
        (["--profile", "binary", "--shards", "2"], ["vex", "veb"]),
        # Whole vectors never are.
        (["--profile", "exact"], None),
    ],
)
def test_init_preloads_what_searches_read(
    real_store: Store, settings: Settings, options: list[str], files: list[str] | None
):
    done = run(settings, "init", "--encoder", "starter", *options)
    assert done.exit_code == 0, done.output
    assert preloaded(real_store) == files
    assert largest_segment(real_store) == "20gb"
    # Repeated, it is the same index.
    assert run(settings, "init").exit_code == 0
    assert preloaded(real_store) == files


def test_what_does_not_fit_is_not_preloaded(
    real_store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    """A thousand times as many pictures as an empty index is counted for."""
    monkeypatch.setattr("es_imgsearch.manage.production.preload._MOST_SHARE", 0.0001)
    assert run(settings, "init", "--encoder", "starter").exit_code == 0
    assert preloaded(real_store) is None
    refused = run(settings, "init", "--preload", "auto")
    assert "exists and is not preloaded" in refused.output


def test_another_preload_is_made_by_a_reindex(house: House):
    house.pictures(3)
    house.synced()
    assert preloaded(house.store) is None
    assert run(house.settings, "reindex", "--profile", "balanced").exit_code == 0
    assert preloaded(house.store) == ["vex", "veq"]
    for choice, files in (("off", []), ("auto", ["vex", "veq"])):
        refused = run(house.settings, "init", "--preload", choice)
        assert refused.exit_code == 2, refused.output
        run(house.settings, "reindex", "--drop-old")
        (command,) = re.findall("`(.*?)`", refused.output)
        done = run(house.settings, *shlex.split(command)[1:-2])
        assert done.exit_code == 0, done.output
        assert preloaded(house.store) == files
        assert run(house.settings, "init", "--preload", choice).exit_code == 0
        assert run(house.settings, "reindex", "--preload", choice).exit_code == 2
        assert house.store.listings.count() == 3


def test_off_stays_off(house: House):
    house.pictures(2)
    house.synced()
    for option in (["--profile", "balanced", "--preload", "off"], ["--profile", "compact"]):
        done = run(house.settings, "reindex", *option)
        assert done.exit_code == 0, done.output
        assert preloaded(house.store) == []
        assert run(house.settings, "reindex", "--drop-old").exit_code == 0


def test_a_profile_without_quantised_vectors_says_why(house: House):
    refused = run(house.settings, "reindex", "--preload", "auto")
    assert refused.exit_code == 2
    assert "Nothing is preloaded: its searches read whole vectors" in refused.output


def test_an_import_preloads_too(house: House, tmp_path: Path, settings: Settings):
    store = house.store
    house.pictures(3)
    house.synced()
    path = tmp_path / "x.parquet"
    export_pictures(store, path)
    store.generations.drop(store.info().name)
    import_pictures(store, settings, path, ImportOptions(profile="balanced"))
    assert preloaded(store) == ["vex", "veq"]
    assert largest_segment(store) == "20gb"
    assert store.listings.count() == 3


def test_an_index_of_before_gets_larger_segments_by_init(real_store: Store, settings: Settings):
    real_store.generations.create(new_meta(seal_of(FakeEncoder()), "balanced", "cosine"))
    for before, after in ((None, "20gb"), ("7gb", "7gb")):
        body = {"index": {"merge.policy.max_merged_segment": before}}
        real_store.connection.request("PUT", f"/{real_store.index}/_settings", body)
        assert run(settings, "init").exit_code == 0
        assert largest_segment(real_store) == after
