"""One index, filled and searched with an encoder in different libraries and precisions."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.request import urlopen

from click.testing import CliRunner

from es_imgsearch.cli import main
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import open_context
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.embed.runtime.select import run_for_pictures
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.reporting.metrics import MetricsServer
from es_imgsearch.settings import Settings
from es_imgsearch.watch.roots import parse_roots, register_roots
from tests.support.house import described

# Each agrees with torch in float32 to .999 or more (`embed.runtime.select.MEASURED`).
CHOICES = [("torch", "float32"), ("onnx", "float32"), ("torch", "float16")]
PICTURES = ["chelsea.png", "coffee.png", "rocket.jpg"]


def run(environment: dict[str, str], *arguments: str) -> str:
    done = CliRunner(env=environment).invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_seal_accepts_every_choice_that_agrees(
    real_store: Store, es_url: str, photographs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    environments = [
        {
            "ES_URL": es_url,
            "ES_IMGSEARCH_INDEX": real_store.index,
            "ES_IMGSEARCH_READ_WORKERS": "1",
            "ES_IMGSEARCH_BACKEND": backend,
            "ES_IMGSEARCH_DTYPE": dtype,
        }
        for backend, dtype in CHOICES
    ]
    run(environments[0], "init", "--encoder", "starter")
    seal = real_store.info().meta.seal
    for environment, (backend, dtype), name in zip(environments, CHOICES, PICTURES, strict=True):
        (folder / name).write_bytes((photographs / name).read_bytes())
        run(environment, "sync", str(folder))
        root = json.loads(run(environment, "status", "--json"))["roots"]["photos"]
        plan = root["encoder_plan"]
        assert (plan["backend"], plan["device"], plan["dtype"]) == (backend, "cpu", dtype)
        assert "    embedded in " in run(environment, "status")
    assert (root["pictures"], root["failures"]) == (3, 0)
    assert real_store.info().meta.seal == seal
    for environment in environments:
        for name in PICTURES:
            found = run(environment, "search", "--image", str(folder / name), "--json-hits")
            best = json.loads(found)[0]
            assert best["relative_path"] == name
            # (1 + cosine) / 2
            assert best["score"] >= 0.9995


def test_what_runs_is_a_metric(real_store: Store, settings: Settings, tmp_path: Path) -> None:
    encoder = load_encoder("starter")
    real_store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"), described())
    run_for_pictures(encoder, settings.model_copy(update={"backend": "onnx"}))
    context = open_context(real_store.pinned(), settings, encoder)
    roots = parse_roots([str(tmp_path)])
    register_roots(context.store, roots, settings.host)
    indexer = Indexer(context, roots, settings)
    server = MetricsServer(indexer, 0)
    try:
        with urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        server.close()
        indexer.pipeline.close()
    labels = 'backend="onnx",device="cpu",dtype="float32"'
    assert f"es_imgsearch_encoder_info{{{labels}}} 1.0" in text
