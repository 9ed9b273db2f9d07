"""An index of a model in a folder: said once, and found again by every command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from es_imgsearch.elastic.store import Store
from tests.support.house import paint
from tests.support.tiny_models import make_clip


@pytest.mark.usefixtures("no_hub")
def test_the_folder_is_said_once(
    es_url: str, real_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def run(*arguments: str, **environment: str) -> Result:
        runner = CliRunner(env={"ES_URL": es_url, **environment})
        return runner.invoke(main, [*arguments, "--index", real_store.index])

    def found(**environment: str) -> list[str]:
        result = run("search", "a cat", "--json-hits", **environment)
        assert result.exit_code == 0, result.stderr
        return sorted(hit["relative_path"] for hit in json.loads(result.stdout))

    here, pictures, model = (tmp_path / name for name in ("here", "pictures", "here/my-clip"))
    here.mkdir()
    pictures.mkdir()
    make_clip(model)
    for seed, name in enumerate(("a.png", "b.png"), start=1):
        paint(pictures / name, seed)

    monkeypatch.chdir(here)
    assert run("init", "--encoder", "./my-clip").exit_code == 0
    monkeypatch.chdir(tmp_path)
    synced = run("sync", str(pictures), "--workers", "2")
    assert synced.exit_code == 0, synced.stderr
    assert found() == ["a.png", "b.png"]
    assert run("init", "--encoder", str(model)).exit_code == 0

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    model.rename(elsewhere / "my-clip")
    (line,) = run("search", "a cat").stderr.splitlines()
    assert "ES_IMGSEARCH_ENCODER" in line
    assert found(ES_IMGSEARCH_MODELS_DIR=str(elsewhere)) == ["a.png", "b.png"]
    assert found(ES_IMGSEARCH_ENCODER=str(elsewhere / "my-clip")) == ["a.png", "b.png"]

    # Another model at the old place is not taken for it.
    make_clip(model)
    weights = model / "0_CLIPModel" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    assert found(ES_IMGSEARCH_MODELS_DIR=str(elsewhere)) == ["a.png", "b.png"]
    # Nor by a reindex, which has nothing to do as long as the right one is found.
    nothing = run("reindex", ES_IMGSEARCH_MODELS_DIR=str(elsewhere))
    assert "already" in nothing.stderr
    refused = run("search", "a cat")
    assert refused.exit_code == 2
    assert "differs in revision" in refused.stderr

    # A new place is remembered from then on.
    assert run("init", "--encoder", str(elsewhere / "my-clip")).exit_code == 0
    assert found() == ["a.png", "b.png"]
