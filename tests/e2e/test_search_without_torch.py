"""Once the daemon or `sync` ran on a machine, its searches load none of the large libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from es_imgsearch.cli import main
from es_imgsearch.elastic.store import Store
from tests.support.tiny_models import make_clip_pair

pytestmark = pytest.mark.process

# What `es-imgsearch` does, and then what it loaded.
SEARCH = """
import sys
from es_imgsearch.cli import main
try:
    main(sys.argv[1:])
finally:
    print(*(name for name in sys.modules if "." not in name), file=sys.stderr)
"""
LARGE = {
    "torch", "torchvision", "transformers", "sentence_transformers", "timm", "sklearn", "scipy",
    "pandas", "matplotlib", "aiohttp", "pyarrow", "onnx", "huggingface_hub",
}  # fmt: skip


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip_pair(tmp_path_factory.mktemp("models"))


def run(environment: dict[str, str], *arguments: str) -> str:
    done = CliRunner(env=environment).invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("encoder", ["starter", "clip"])
def test_a_search_loads_no_torch(
    encoder: str, real_store: Store, es_url: str, photographs: Path, tmp_path: Path,
    models_dir: Path,
) -> None:  # fmt: skip
    environment = {
        "ES_URL": es_url,
        "ES_IMGSEARCH_INDEX": real_store.index,
        "ES_IMGSEARCH_MODELS_DIR": str(models_dir),
        "ES_IMGSEARCH_READ_WORKERS": "1",
        "ES_IMGSEARCH_CACHE_DIR": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    # The rule may choose torch, on a machine with a GPU.
    by_onnx = {**environment, "ES_IMGSEARCH_BACKEND": "onnx"}
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("chelsea.png", "motorcycle_left.png", "coffee.png"):
        (folder / name).write_bytes((photographs / name).read_bytes())
    run(environment, "init", "--encoder", encoder)
    assert json.loads(run(by_onnx, "status", "--json"))["runs_here"] is None
    run(by_onnx, "sync", str(folder))

    search = ["search", "a cat", "--image", str(folder / "chelsea.png"), "--json-hits"]
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, *search],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.splitlines()[-1].split())
    assert {"es_imgsearch", "onnxruntime"} <= loaded
    assert not loaded & LARGE
    hits = json.loads(done.stdout)
    by_torch = json.loads(run({**environment, "ES_IMGSEARCH_BACKEND": "torch"}, *search))
    assert [hit["image_id"] for hit in hits] == [hit["image_id"] for hit in by_torch]
    for hit, other in zip(hits, by_torch, strict=True):
        assert hit["score"] == pytest.approx(other["score"], abs=1e-3)

    told = json.loads(run(by_onnx, "status", "--json"))["runs_here"]
    assert (told["plan"]["backend"], told["plan"]["device"]) == ("onnx", "cpu")
    assert told["cosine"] >= 0.999
    assert f"on this machine the encoder runs in {told['why']}" in run(by_onnx, "status")
    assert told["pictures_per_second"] is None
    # The command measures and stores; from then on that is shown and used.
    measured = json.loads(run(by_onnx, "encoder", "--json"))["runs_here"]
    assert measured["pictures_per_second"] > 0
    assert measured["why"] in run(by_onnx, "encoder")
    assert json.loads(run(by_onnx, "status", "--json"))["runs_here"] == measured
    run(by_onnx, "sync", str(folder))
    recorded = json.loads(run(by_onnx, "status", "--json"))
    assert recorded["runs_here"] == measured
    assert recorded["roots"]["photos"]["encoder_plan"] == measured["plan"]
