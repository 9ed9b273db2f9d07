"""How networks run: what is chosen on given timings; and ONNX Runtime gives torch's vectors."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from es_imgsearch.embed.model_folder import ModelFolder
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.embed.runtime import benchmark as measurement
from es_imgsearch.embed.runtime import onnx as exporting
from es_imgsearch.embed.runtime.benchmark import (
    Timing,
    batch_sizes,
    candidates,
    choose,
)
from es_imgsearch.embed.runtime.network import Network, batch_size, sample_pictures
from es_imgsearch.embed.runtime.onnx import NETWORK, REPORT, Exports
from es_imgsearch.embed.runtime.plan import RuntimeOptions, RuntimePlan
from es_imgsearch.embed.runtime.select import (
    MEASURED,
    Hardware,
    choose_plan,
    measure_for_pictures,
    plan_of,
    run_for_pictures,
    run_for_queries,
)
from es_imgsearch.embed.runtime.stored_choices import StoredChoices
from es_imgsearch.embed.runtime.torch import PictureNetwork, TorchRunner
from es_imgsearch.embed.weights import least_cosine
from es_imgsearch.errors import EncodersFailed, SettingsError
from es_imgsearch.settings import Settings, available_cores, load_settings
from es_imgsearch.testing import FakeEncoder
from tests.support.tiny_models import make_clip_pair, make_siglip

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
TEXTS = ["a cat", "Ein Hund läuft über die Straße.", "", "Cat Dog", "a cat " * 100]

ONNX = RuntimePlan("onnx", "cpu", "float32", 2, 4)
TORCH = RuntimePlan("torch", "cpu", "float32", 2, 4)
HALF = RuntimePlan("torch", "cpu", "bfloat16", 2, 4)

pytestmark = pytest.mark.usefixtures("no_hub")


# --- what is chosen ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timings", "chosen"),
    [
        # Measured for ViT-B/32 on 2 cores.
        ([Timing(ONNX, 18.0), Timing(TORCH, 11.6)], ONNX),
        ([Timing(ONNX, 11.6), Timing(TORCH, 18.0)], TORCH),
        # A tie goes to what is preferred, whichever is a little ahead.
        ([Timing(ONNX, 10.0), Timing(TORCH, 10.4)], ONNX),
        ([Timing(ONNX, 10.0), Timing(TORCH, 10.6)], TORCH),
        # Faster, but the vectors are others.
        ([Timing(ONNX, 10.0), Timing(HALF, 90.0, cosine=0.998)], ONNX),
        ([Timing(ONNX, 10.0), Timing(HALF, 90.0, cosine=0.9995)], HALF),
        ([Timing(ONNX, 10.0), Timing(HALF, 90.0, cosine=float("nan"))], ONNX),
        # Nothing else was allowed.
        ([Timing(HALF, 90.0, cosine=0.99)], HALF),
    ],
)
def test_the_fastest_is_chosen_of_those_with_the_same_vectors(
    timings: list[Timing], chosen: RuntimePlan
) -> None:
    assert choose(timings, cores=2).plan == chosen


def test_of_equally_fast_batches_the_smallest_is_chosen() -> None:
    speeds = {4: 80.0, 8: 99.0, 16: 100.0, 32: 96.0}
    timings = [Timing(replace(ONNX, batch_size=size), speed) for size, speed in speeds.items()]
    assert choose(timings, cores=2).plan.batch_size == 8


@pytest.mark.parametrize(
    ("cores", "threads"),
    [
        # Reading needs 12 ms of CPU a picture: 76/s are left with one thread, 65/s with two.
        (2, 1),
        # With cores to spare the faster one wins.
        (4, 2),
    ],
)
def test_what_leaves_reading_its_share_is_the_fastest(cores: int, threads: int) -> None:
    # Measured for `starter` on 2 cores.
    timings = [
        Timing(replace(ONNX, threads=1), 79.0, cpu_seconds=0.0145),
        Timing(ONNX, 96.0, cpu_seconds=0.0189),
    ]
    assert choose(timings, cores).plan.threads == threads


@pytest.mark.parametrize(
    ("cores", "devices", "options", "has_export", "expected"),
    [
        (1, "cpu", RuntimeOptions(), True, ["onnx cpu float32 1", "torch cpu float32 1"]),
        (2, "cpu", RuntimeOptions(backend="onnx"), True,
         ["onnx cpu float32 1", "onnx cpu float32 2"]),
        (1, "cpu", RuntimeOptions(), False, ["torch cpu float32 1"]),
        (1, "cpu", RuntimeOptions(backend="torch"), True, ["torch cpu float32 1"]),
        (1, "cpu", RuntimeOptions(backend="onnx"), True, ["onnx cpu float32 1"]),
        # There is none: torch does it.
        (1, "cpu", RuntimeOptions(backend="onnx"), False, ["torch cpu float32 1"]),
        (1, "cpu", RuntimeOptions(dtype="int8"), True, ["onnx cpu int8 1"]),
        (1, "cpu", RuntimeOptions(dtype="int8"), False, ["torch cpu float32 1"]),
        (1, "cpu", RuntimeOptions(dtype="bfloat16"), True, ["torch cpu bfloat16 1"]),
        (1, "cpu", RuntimeOptions(threads=3), True, ["onnx cpu float32 3", "torch cpu float32 3"]),
        (1, "cuda cpu", RuntimeOptions(), True,
         ["onnx cpu float32 1", "torch cuda float32 1", "torch cuda float16 1",
          "torch cpu float32 1"]),
        (1, "cuda cpu", RuntimeOptions(device="cuda"), True,
         ["torch cuda float32 1", "torch cuda float16 1"]),
        (1, "mps cpu", RuntimeOptions(device="cpu", backend="torch"), True,
         ["torch cpu float32 1"]),
        # Without torch.
        (1, "", RuntimeOptions(), True, ["onnx cpu float32 1"]),
        (1, "", RuntimeOptions(), False, []),
    ],
)  # fmt: skip
def test_what_is_worth_measuring(
    cores: int, devices: str, options: RuntimeOptions, has_export: bool, expected: list[str]
) -> None:
    plans = candidates(options, cores, devices.split(), has_export=has_export)
    found = [f"{each.backend} {each.device} {each.dtype} {each.threads}" for each in plans]
    assert found == expected


def test_bfloat16_is_measured_only_on_a_cpu_that_has_it() -> None:
    plans = candidates(RuntimeOptions(), 8, ["cpu"], has_fast_bfloat16=True, has_export=True)
    assert [f"{each.backend} {each.dtype} {each.threads}" for each in plans] == [
        "onnx float32 4", "onnx float32 8", "torch float32 4",
        "torch float32 8", "torch bfloat16 4", "torch bfloat16 8",
    ]  # fmt: skip


# --- the rule ---------------------------------------------------------------------------------

CPU = Hardware(cores=4)
AMX = Hardware(cores=4, has_amx_bfloat16=True)
GPU = Hardware(cores=4, gpu="cuda", has_amx_bfloat16=True)


@pytest.mark.parametrize(
    ("hardware", "architecture", "expected"),
    [
        (CPU, "", "onnx cpu float32 4 8"),
        (CPU, "clip-vit-b-32", "onnx cpu float32 4 8"),
        # Takes less CPU than reading, which gets the other half of the cores.
        (CPU, "efficientnet-lite0", "onnx cpu float32 2 8"),
        (replace(CPU, cores=1), "efficientnet-lite0", "onnx cpu float32 1 8"),
        (AMX, "clip-vit-b-32", "torch cpu bfloat16 4 8"),
        # Not listed, or listed with vectors that differ.
        (AMX, "", "onnx cpu float32 4 8"),
        (AMX, "efficientnet-lite0", "onnx cpu float32 2 8"),
        (GPU, "clip-vit-b-32", "torch cuda float16 4 64"),
        (GPU, "", "torch cuda float32 4 64"),
        (replace(GPU, gpu="mps"), "efficientnet-lite0", "torch mps float16 2 64"),
        (replace(AMX, has_torch=False), "clip-vit-b-32", "onnx cpu float32 4 8"),
    ],
)
def test_the_rule_by_hardware_and_architecture(
    hardware: Hardware, architecture: str, expected: str
) -> None:
    plan = choose_plan(RuntimeOptions(), hardware, architecture, has_export=True)
    assert words(plan) == expected


@pytest.mark.parametrize(
    ("hardware", "options", "has_export", "expected"),
    [
        (CPU, RuntimeOptions(), False, "torch cpu float32 4 8"),
        (CPU, RuntimeOptions(backend="torch"), True, "torch cpu float32 4 8"),
        (AMX, RuntimeOptions(backend="torch"), True, "torch cpu bfloat16 4 8"),
        (AMX, RuntimeOptions(backend="onnx"), True, "onnx cpu float32 4 8"),
        (AMX, RuntimeOptions(dtype="float32"), True, "onnx cpu float32 4 8"),
        (CPU, RuntimeOptions(dtype="bfloat16"), True, "torch cpu bfloat16 4 8"),
        (AMX, RuntimeOptions(dtype="int8"), True, "onnx cpu int8 4 8"),
        (CPU, RuntimeOptions(dtype="int8"), False, "torch cpu float32 4 8"),
        (GPU, RuntimeOptions(backend="onnx"), True, "onnx cpu float32 4 8"),
        (GPU, RuntimeOptions(device="cpu"), True, "torch cpu bfloat16 4 8"),
        (GPU, RuntimeOptions(dtype="int8"), True, "onnx cpu int8 4 8"),
        (GPU, RuntimeOptions(dtype="float32"), True, "torch cuda float32 4 64"),
        (CPU, RuntimeOptions(device="cuda:1"), True, "torch cuda:1 float16 4 64"),
        (CPU, RuntimeOptions(threads=3, batch_size=5), True, "onnx cpu float32 3 5"),
        (replace(CPU, has_torch=False), RuntimeOptions(), False, "None"),
        (replace(CPU, has_torch=False), RuntimeOptions(backend="torch"), True, "None"),
    ],
)
def test_settings_override_the_rule(
    hardware: Hardware, options: RuntimeOptions, has_export: bool, expected: str
) -> None:
    plan = choose_plan(options, hardware, "clip-vit-b-32", has_export=has_export)
    assert words(plan) == expected


def words(plan: RuntimePlan | None) -> str:
    if plan is None:
        return "None"
    return f"{plan.backend} {plan.device} {plan.dtype} {plan.threads} {plan.batch_size}"


def test_starter_keeps_its_vectors_in_the_listed_precision() -> None:
    """The table's figures, measured again on the synthetic pictures."""
    (network,) = load_encoder("starter", device="cpu").networks  # type: ignore[attr-defined]
    listed = MEASURED[network.architecture]
    module, inputs = network.load(), network.examples()[0]
    whole = TorchRunner(module, "cpu")(inputs)
    for dtype in ("bfloat16", "float16"):
        cosine = least_cosine(TorchRunner(module, "cpu", dtype)(inputs), whole)
        assert cosine >= getattr(listed, dtype) - 1e-3
        assert (cosine >= 0.999) == (getattr(listed, dtype) >= 0.999)


@pytest.mark.parametrize(
    ("vision", "expected"),
    [
        ({}, "clip-vit-b-32"),
        ({"patch_size": 32, "num_hidden_layers": 12}, "clip-vit-b-32"),
        ({"patch_size": 16}, ""),
        ({"hidden_size": 1024}, ""),
    ],
)
def test_the_architecture_is_read_from_the_configuration(
    vision: dict[str, int], expected: str, tmp_path: Path
) -> None:
    for model_type in ("clip", "siglip"):
        config = {"model_type": model_type, "vision_config": vision}
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert ModelFolder(tmp_path).architecture == (expected if model_type == "clip" else "")


def test_batches_that_take_long_are_not_tried() -> None:
    assert batch_sizes(RuntimeOptions(), Timing(ONNX, 18.0)) == [4, 8]
    assert batch_sizes(RuntimeOptions(), Timing(ONNX, 1.0)) == [4]
    assert batch_sizes(RuntimeOptions(), Timing(ONNX, 500.0)) == [4, 8, 16, 32]
    on_gpu = Timing(replace(TORCH, device="cuda"), 2000.0)
    assert batch_sizes(RuntimeOptions(), on_gpu) == [16, 32, 64, 128]
    assert batch_sizes(RuntimeOptions(batch_size=5), on_gpu) == [5]


def test_the_choice_is_described_with_what_was_slower() -> None:
    fastest = Timing(replace(ONNX, batch_size=8), 18.0, cpu_seconds=0.11)
    timings = [Timing(ONNX, 17.9), Timing(TORCH, 11.6), fastest]
    assert measurement.describe(timings[2], timings) == (
        "ONNX Runtime (float32, cpu, 2 threads, batches of 8): 18 pictures/s, 110 ms of CPU"
        " each (also measured: torch float32 on cpu 11.6)"
    )


@pytest.mark.parametrize(
    "given",
    [
        {"backend": "onnx", "device": "cuda"},
        {"backend": "onnx", "dtype": "bfloat16"},
        {"backend": "torch", "dtype": "int8"},
        {"device": "mps", "dtype": "int8"},
    ],
)
def test_settings_that_contradict_each_other(given: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="leave one of the two out") as told:
        RuntimeOptions.of(load_settings(given, environment={}))
    assert all(value in str(told.value) for value in given.values())


# --- the same vectors -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_clip_pair(folder)
    make_siglip(folder / "siglip")
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(4)
    torch.save(torchvision.models.resnet18().state_dict(), folder / "resnet18.pth")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def settings_with(cache: Path, **given: Any) -> Settings:
    return load_settings({"cache_dir": cache, **given}, environment={})


def prepared(encoder: Encoder) -> Any:
    names = ("chelsea.png", "coffee.png", "rocket.jpg", "coins.png", "motorcycle_left.png")
    images = [Image.open(PHOTOGRAPHS / name).convert("RGB") for name in names]
    return np.stack([encoder.preparation.apply(image) for image in images])


def runs_in(encoder: Any) -> list[str]:
    return [type(network._runner).__name__ for network in encoder.networks]


@pytest.mark.parametrize(
    "spec",
    ["starter", "clip", "sentence-transformers:siglip", "timm:resnet18@resnet18.pth"],
)
def test_onnx_runtime_gives_torchs_vectors(spec: str, models_dir: Path, cache: Path) -> None:
    def made() -> Any:
        return load_encoder(spec, models_dir=models_dir, device="cpu")

    in_torch, daemon, search = made(), made(), made()
    settings = settings_with(cache, backend="onnx")
    choice = run_for_pictures(daemon, settings)
    run_for_queries(search, settings)

    assert choice is not None
    assert choice.plan.backend == "onnx"
    assert choice.cosine >= 0.999
    assert batch_size(daemon) == choice.plan.batch_size
    assert (daemon.revision, daemon.fingerprint) == (in_torch.revision, in_torch.fingerprint)
    pixels = prepared(in_torch)
    expected = in_torch.embed_images(pixels)
    for encoder in (daemon, search):
        assert least_cosine(encoder.embed_images(pixels), expected) >= 0.999
        alone = np.concatenate([encoder.embed_images(each[None]) for each in pixels])
        assert least_cosine(alone, expected) >= 0.999
    if in_torch.supports_text:
        expected = in_torch.embed_texts(TEXTS)
        for encoder in (daemon, search):
            assert least_cosine(encoder.embed_texts(TEXTS), expected) >= 0.999
            assert encoder.truncated(TEXTS) == in_torch.truncated(TEXTS)
    assert set(runs_in(daemon)) == set(runs_in(search)) == {"OnnxRunner"}
    assert set(runs_in(in_torch)) <= {"TorchRunner", "NoneType"}


def test_the_cosine_of_int8_is_reported(models_dir: Path, cache: Path) -> None:
    def made() -> Any:
        return load_encoder("clip", models_dir=models_dir, device="cpu")

    in_torch, quantised = made(), made()
    choice = run_for_pictures(quantised, settings_with(cache, dtype="int8"))

    assert choice is not None
    assert (choice.plan.backend, choice.plan.dtype) == ("onnx", "int8")
    pixels = sample_pictures(7, 64, 64)
    vectors, expected = quantised.embed_images(pixels), in_torch.embed_images(pixels)
    # The very pictures by which it was measured.
    assert choice.cosine == pytest.approx(least_cosine(vectors, expected), abs=1e-3)
    assert choice.cosine > 0.99
    assert not np.allclose(vectors, expected, atol=1e-4)
    # A search has the same, and never chooses it by itself.
    search = made()
    run_for_queries(search, settings_with(cache))
    assert search.networks[0].plan is None or search.networks[0].plan.dtype == "float32"


def test_a_change_of_the_model_is_another_export(models_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(models_dir / "clip-ViT-B-32", tmp_path / "one")
    exports = Exports(tmp_path)

    def paths() -> list[Path]:
        networks = load_encoder(str(tmp_path / "one")).networks  # type: ignore[attr-defined]
        return [exports.path(network, "float32") for network in networks]

    seen = {*paths()}
    assert len(seen) == 2
    for name, change in {
        "model.safetensors": lambda content: content[:-1] + b"\1",
        "tokenizer_config.json": lambda content: content + b" ",
    }.items():
        file = tmp_path / "one" / "0_CLIPModel" / name
        file.write_bytes(change(file.read_bytes()))
        assert not seen & {*paths()}
        seen |= {*paths()}
    networks = load_encoder(str(tmp_path / "one")).networks  # type: ignore[attr-defined]
    assert exports.path(networks[0], "int8") not in seen


# --- exports that are not to be had -----------------------------------------------------------


class TwoWays(torch.nn.Module):
    """Does something else for more than three pictures, which no exporter follows."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        means = pixels.mean(dim=(2, 3)) * self.factor
        return means if len(pixels) < 3 else means.flip(1)


def network_of(tower: torch.nn.Module, identity: str = "1") -> Network:
    pictures = sample_pictures(7, 16, 16)
    return Network(
        "pictures",
        identity=lambda: identity,
        load=lambda: PictureNetwork(tower, rescale=1 / 255, mean=[0.4] * 3, deviation=[0.3] * 3),
        examples=lambda: [{"pictures": pictures[:2]}, {"pictures": pictures[2:]}],
        device="cpu",
    )


def test_a_failed_export_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports, network = Exports(tmp_path), network_of(TwoWays().eval())
    assert exporting.find_or_export(exports, network, "float32", "theirs") is None
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "The pictures of theirs cannot be exported" in record.getMessage()
    assert exports.find(network, "float32") is None
    assert not [each for each in (tmp_path / "onnx").iterdir() if each.is_dir()]

    caplog.clear()
    monkeypatch.setattr(exporting, "_export", lambda *_: pytest.fail("tried again"))
    assert exporting.find_or_export(exports, network, "float32", "theirs") is None
    assert not caplog.records


def test_a_cache_without_room_for_that_note_costs_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exports, network = Exports(tmp_path), network_of(TwoWays().eval())
    # Where the note would be is something else, so that writing it fails as on a full disk.
    exports.path(network, "float32").with_suffix(".impossible").mkdir(parents=True)
    assert exporting.find_or_export(exports, network, "float32", "theirs") is None
    assert "tried again at every start" in caplog.text


def test_the_second_exporter_has_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 4, 4), torch.nn.ReLU(), torch.nn.Flatten())
    network = network_of(tower.eval())

    def refuses(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(exporting, "_by_torchscript", refuses)
    export = exporting.find_or_export(Exports(tmp_path), network, "float32", "theirs")
    assert export is not None
    inputs = {"pictures": sample_pictures(11, 16, 16)}
    assert least_cosine(export.runner(1)(inputs), network.rows(inputs)) >= 0.999


class Tokens(torch.nn.Module):
    """Takes what a tokenizer gives, and uses the first of it, as DistilBERT with BERT's."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(9, 4)

    def forward(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        return self.words(input_ids).mean(dim=1)


def test_an_input_that_the_network_ignores_takes_no_slower_exporter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.arange(18).reshape(3, 6) % 9
    inputs = {"input_ids": ids, "token_type_ids": np.zeros_like(ids)}
    network = Network(
        "texts", identity=lambda: "1", load=lambda: Tokens().eval(), examples=lambda: [inputs],
        device="cpu",
    )  # fmt: skip
    monkeypatch.setattr(exporting, "_by_torch_export", lambda *_: pytest.fail("it is slow"))
    export = exporting.find_or_export(Exports(tmp_path), network, "float32", "theirs")
    assert export is not None
    longer = {name: np.tile(array, (2, 3)) for name, array in inputs.items()}
    assert export.runner(1)(longer).shape == (6, 4)


def test_a_damaged_export_is_logged_and_torch_runs(
    models_dir: Path, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def made() -> Any:
        return load_encoder("clip", models_dir=models_dir, device="cpu")

    run_for_pictures(made(), settings_with(cache, backend="onnx"))
    shutil.copytree(cache / "onnx", tmp_path / "onnx")
    for file in (tmp_path / "onnx").glob(f"*/{NETWORK}"):
        file.write_bytes(b"half a file")
    encoder = made()
    run_for_queries(encoder, settings_with(tmp_path))
    pixels = sample_pictures(2, 64, 64)
    assert least_cosine(encoder.embed_images(pixels), made().embed_images(pixels)) > 0.99999
    assert "torch runs instead" in caplog.text

    for file in (tmp_path / "onnx").glob(f"*/{REPORT}"):
        file.unlink()
    assert Exports(tmp_path).find(encoder.networks[0], "float32") is None


# --- what was chosen is kept ------------------------------------------------------------------


def test_a_start_measures_nothing(
    models_dir: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "es_imgsearch")
    monkeypatch.setattr(measurement, "measure", lambda *_, **__: pytest.fail("measured"))
    encoder = load_encoder("clip", models_dir=models_dir)
    settings = settings_with(cache)
    choice = run_for_pictures(encoder, settings)
    assert choice is not None
    assert choice.plan.backend == "onnx"
    assert choice.pictures_per_second is None
    assert f"clip runs in {choice.why}" in caplog.text
    # What ran is recorded.
    assert StoredChoices(settings).find(encoder.revision, encoder.fingerprint) == choice
    assert StoredChoices(settings).find("another", encoder.fingerprint) is None
    # Without an export, or by other settings, the rule chooses again.
    torch_only = run_for_pictures(encoder, settings_with(cache, backend="torch"))
    assert torch_only is not None
    assert torch_only.plan.backend == "torch"
    # Each of several processes has its share of the cores.
    shared = run_for_pictures(encoder, settings_with(cache, workers=available_cores() + 1))
    assert shared is not None
    assert shared.plan.threads == 1


def test_a_measurement_is_stored_and_used(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder("clip", models_dir=models_dir)
    settings = settings_with(tmp_path)
    assert run_for_pictures(encoder, settings) is not None
    first = measure_for_pictures(encoder, settings)
    assert first is not None
    assert first.pictures_per_second
    assert "torch float32 on cpu" in first.why
    assert StoredChoices(settings).find(encoder.revision, encoder.fingerprint) == first

    def measured(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(measurement, "measure", measured)
    assert run_for_pictures(encoder, settings) == first
    assert measure_for_pictures(encoder, settings) == first
    with pytest.raises(ZeroDivisionError):
        measure_for_pictures(encoder, settings, again=True)
    for given in ({"batch_size": 3}, {"threads": 1}, {"backend": "torch"}):
        by_rule = run_for_pictures(encoder, settings_with(tmp_path, **given))
        assert by_rule is not None
        assert by_rule.pictures_per_second is None
        with pytest.raises(ZeroDivisionError):
            measure_for_pictures(encoder, settings_with(tmp_path, **given))
    # A stored plan takes precedence over the rule, if it can run.
    other = replace(first, plan=replace(TORCH, threads=1, batch_size=2))
    StoredChoices(settings).record(encoder.revision, encoder.fingerprint, other)
    assert run_for_pictures(encoder, settings) == other
    assert plan_of(encoder) == asdict(other.plan)
    # A damaged file is no measurement.
    for file in (tmp_path / "choices").iterdir():
        file.write_text(json.dumps({"plan": {}}))
    again = run_for_pictures(encoder, settings)
    assert again is not None
    assert again.pictures_per_second is None


def test_a_measured_plan_without_its_export_is_not_used(models_dir: Path, tmp_path: Path) -> None:
    encoder = load_encoder("starter")
    settings = settings_with(tmp_path)
    first = run_for_pictures(encoder, settings)
    assert first is not None
    stored = replace(first, pictures_per_second=1.0)
    StoredChoices(settings).record(encoder.revision, encoder.fingerprint, stored)
    assert run_for_pictures(encoder, settings) == stored
    (folder,) = (tmp_path / "onnx").iterdir()
    shutil.rmtree(folder)
    folder.with_suffix(".impossible").write_text(" ".join(exporting._versions()))
    by_rule = run_for_pictures(encoder, settings)
    assert by_rule is not None
    assert by_rule.plan.backend == "torch"


def test_what_fails_with_the_first_picture_runs_in_torch(caplog: pytest.LogCaptureFixture) -> None:
    network = network_of(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 4, 4), torch.nn.Flatten()))

    def no_such_operation(inputs: object) -> Any:
        raise NotImplementedError("no such operation on this GPU")

    network.use(replace(TORCH, device="mps", dtype="float16"), lambda: no_such_operation)
    inputs = {"pictures": sample_pictures(3, 16, 16)}
    expected = TorchRunner(network.load(), "cpu")(inputs)
    assert least_cosine(network.rows(inputs), expected) > 0.9
    assert "(no such operation on this GPU); torch runs instead" in caplog.text
    # What is recorded is what ran.
    assert network.plan == replace(TORCH, batch_size=network.batch_size)


def test_set_precision_and_threads_are_used(models_dir: Path, cache: Path) -> None:
    encoder = load_encoder("clip", models_dir=models_dir)
    settings = settings_with(cache, backend="torch", threads=1, batch_size=3, dtype="bfloat16")
    measured = measure_for_pictures(encoder, settings)
    assert measured is not None
    assert measured.plan == RuntimePlan("torch", "cpu", "bfloat16", 1, 3)
    assert 0.99 < measured.cosine < 1
    shutil.rmtree(cache / "choices")
    choice = run_for_pictures(encoder, settings)
    assert choice is not None
    assert choice.plan == measured.plan
    # Measured of no such architecture.
    assert choice.cosine is None
    before = torch.get_num_threads()
    vectors = encoder.embed_images(sample_pictures(4, 64, 64))
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)
    in_torch = load_encoder("clip", models_dir=models_dir, device="cpu")
    expected = in_torch.embed_images(sample_pictures(4, 64, 64))
    assert 0.99 < least_cosine(vectors, expected) < 0.9999999


def test_a_cache_that_cannot_be_written_is_logged(
    models_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    encoder = load_encoder("clip", models_dir=models_dir, device="cpu")
    settings = settings_with(tmp_path / "file" / "cache")
    choice = run_for_pictures(encoder, settings)
    assert choice is not None
    assert choice.plan.backend == "torch"
    assert "not stored" not in caplog.text
    assert measure_for_pictures(encoder, settings) is not None
    assert "The measurement is not stored" in caplog.text
    assert encoder.embed_images(sample_pictures(1, 64, 64)).shape == (1, 16)


def test_a_way_that_does_not_work_here_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def runner(plan: RuntimePlan) -> Any:
        if plan.backend == "onnx":
            raise RuntimeError("no such operation")
        return lambda inputs: inputs["pictures"].reshape(len(inputs["pictures"]), -1)[:, :8] + 1.0

    def pictures(count: int) -> Any:
        return {"pictures": sample_pictures(count, 8, 8)}

    chosen, _ = measurement.measure(
        RuntimeOptions(batch_size=4), [ONNX, TORCH], pictures, runner, cores=2
    )
    assert chosen.plan == TORCH
    assert "does not run in ONNX Runtime (float32, cpu" in caplog.text
    with pytest.raises(EncodersFailed, match=r"none of the ways .*\(no such operation\)"):
        measurement.measure(RuntimeOptions(), [ONNX], pictures, runner, cores=2)


def test_plug_in_encoders_run_in_their_own_way(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    assert run_for_pictures(encoder, settings_with(tmp_path)) is None
    run_for_queries(encoder, settings_with(tmp_path))
    assert batch_size(encoder) == 16
    assert not list(tmp_path.iterdir())


def test_half_precision_leaves_the_module_as_it_is() -> None:
    module = network_of(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 4, 4), torch.nn.Flatten())).load()
    inputs = {"pictures": sample_pictures(3, 16, 16)}
    whole = TorchRunner(module, "cpu")(inputs)
    half = TorchRunner(module, "cpu", "bfloat16")(inputs)
    assert whole.dtype == half.dtype == np.float32
    assert 0.999 < least_cosine(whole, half) < 1
    assert np.array_equal(TorchRunner(module, "cpu")(inputs), whole)


def test_threads_of_a_network_at_rest_use_no_cpu(cache: Path) -> None:
    encoder: Any = load_encoder("starter")
    run_for_pictures(encoder, settings_with(cache, backend="onnx", threads=2))
    # The network alone: what NumPy does afterwards has threads of its own.
    (network,) = encoder.networks
    inputs = {"pictures": sample_pictures(4, 224, 224)}
    network.rows(inputs)
    used = []
    for _ in range(5):
        network.rows(inputs)
        started = time.process_time()
        threading.Event().wait(0.05)
        used.append(time.process_time() - started)
    # 0.2 ms; with threads that spin for the next batch it is 13 ms.
    assert min(used) < 0.004


# --- without torch ----------------------------------------------------------------------------

# What is said, and what runs, in a process that cannot import torch.
WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(["torch", "onnx", "onnxscript", "sentence_transformers"]))
from pathlib import Path
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.embed.runtime.select import run_for_pictures, run_for_queries
from es_imgsearch.embed.runtime.network import sample_pictures
from es_imgsearch.errors import ModelUnavailable
from es_imgsearch.settings import Settings

cache, backend = Path(sys.argv[1]), sys.argv[2]
for prepare in (run_for_pictures, run_for_queries):
    encoder = load_encoder("starter")
    try:
        prepare(encoder, Settings(cache_dir=cache, backend=backend))
        print(encoder.embed_images(sample_pictures(2, 224, 224)).shape)
    except ModelUnavailable as error:
        print(error)
"""


def without_torch(cache: Path, backend: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(cache), backend],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("backend", ["auto", "onnx"])
def test_without_torch_an_export_runs(backend: str, tmp_path: Path) -> None:
    encoder = load_encoder("starter")
    made = Path(os.environ["ES_IMGSEARCH_CACHE_DIR"])
    for network in encoder.networks:
        assert exporting.find_or_export(Exports(made), network, "float32", "starter") is not None
    # Measurements are made with torch elsewhere in this session.
    (tmp_path / "onnx").symlink_to(made / "onnx")
    assert without_torch(tmp_path, backend) == ["(2, 384)"] * 2


@pytest.mark.parametrize("backend", ["auto", "onnx", "torch"])
def test_without_torch_and_an_export_the_error_says_so(backend: str, tmp_path: Path) -> None:
    for told in without_torch(tmp_path, backend):
        assert told.startswith("The encoder's pictures need torch, which is not installed")
