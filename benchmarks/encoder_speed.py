"""Measure pictures/s of each encoder: torch, ONNX Runtime, ONNX int8.

    python benchmarks/encoder_speed.py [--batch N]... [--seconds S] [--json FILE]

`starter`'s classifier and CLIP's ViT-B/32 have the architecture of the real models; ViT-B/32 has
random weights, which run at the same speed.  All ways of running a model take turns, so that what
else the machine does falls on all of them; the figure is the median of the turns, the ratio is to
torch in float32 on the CPU.  The cosine is the least to its rows: over scikit-image's photographs,
and over the pictures without a camera by which exports are checked.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from report import arguments, report

from es_imgsearch.embed.protocol import Pixels
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.embed.runtime.network import Network, picture_examples, sample_pictures
from es_imgsearch.embed.runtime.onnx import Exports, find_or_export
from es_imgsearch.embed.runtime.plan import PICTURES, Runner
from es_imgsearch.embed.runtime.torch import PictureNetwork, TorchRunner
from es_imgsearch.embed.weights import devices, least_cosine
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.settings import available_cores

SIZE = 224
PHOTOGRAPHS = Path(skimage.__file__).parent / "data"


def vit_b_32() -> Network:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    def load() -> torch.nn.Module:
        torch.manual_seed(0)
        # The configuration of openai/clip-vit-base-patch32, which is this class's default.
        return PictureNetwork(
            CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=512)).eval(),
            rescale=1 / 255,
            mean=[0.48145466, 0.4578275, 0.40821073],
            deviation=[0.26862954, 0.26130258, 0.27577711],
            outputs=lambda tower, pixels: tower(pixel_values=pixels).image_embeds,
        )

    return Network(
        "pictures",
        identity=lambda: "ViT-B/32",
        load=load,
        examples=lambda: picture_examples(Preparation()),
        device="cpu",
    )


MODELS: dict[str, Callable[[], Network]] = {
    "starter (EfficientNet-Lite0)": lambda: load_encoder("starter").networks[0],
    "clip (ViT-B/32)": vit_b_32,
}


def photographs() -> Pixels:
    names = sorted(each.name for each in PHOTOGRAPHS.iterdir() if each.suffix in {".png", ".jpg"})
    prepare = Preparation(width=SIZE, height=SIZE, resize=SIZE).apply
    return np.stack([prepare(Image.open(PHOTOGRAPHS / name).convert("RGB")) for name in names])


def runners(network: Network, cache: Path) -> dict[str, Runner]:
    threads = available_cores()
    module = network.load()
    found: dict[str, Runner] = {
        "torch float32": TorchRunner(module, "cpu", threads=threads),
        "torch bfloat16": TorchRunner(module, "cpu", "bfloat16", threads),
    }
    for dtype in ("float32", "int8"):
        export = find_or_export(Exports(cache), network, dtype, "benchmark")
        if export is None:
            raise SystemExit(f"The {dtype} export failed.")
        found[f"ONNX Runtime {dtype}"] = export.runner(threads)
    for device in devices()[:-1]:
        found[f"torch float32 on {device}"] = TorchRunner(module, device)
        found[f"torch float16 on {device}"] = TorchRunner(module, device, "float16")
    return found


def pictures_per_second(found: dict[str, Runner], batch: int, seconds: float) -> dict[str, float]:
    inputs = {PICTURES: sample_pictures(batch, SIZE, SIZE)}
    times: dict[str, list[float]] = {name: [] for name in found}
    for run in found.values():
        run(inputs)
    began = time.perf_counter()
    while len(times["torch float32"]) < 3 or time.perf_counter() - began < seconds:
        for name, run in found.items():
            started = time.perf_counter()
            run(inputs)
            times[name].append(time.perf_counter() - started)
    return {name: batch / statistics.median(each) for name, each in times.items()}


def in_parts(run: Runner, pictures: Pixels) -> Pixels:
    return np.concatenate(
        [run({PICTURES: pictures[at : at + 8]}) for at in range(0, len(pictures), 8)]
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, action="append", help="1, 8 and 16 if not given")
    parser.add_argument("--seconds", type=float, default=15.0, help="for each model and batch")
    given = parser.parse_args()
    rows = []
    samples = {"photographs": photographs(), "samples": sample_pictures(7, SIZE, SIZE)}
    with tempfile.TemporaryDirectory() as cache:
        for model, make in MODELS.items():
            found = runners(make(), Path(cache))
            near = {
                name: {
                    kind: least_cosine(
                        in_parts(run, pictures), in_parts(found["torch float32"], pictures)
                    )
                    for kind, pictures in samples.items()
                }
                for name, run in found.items()
            }
            for batch in given.batch or (1, 8, 16):
                speeds = pictures_per_second(found, batch, given.seconds)
                rows += [
                    {
                        "model": model,
                        "runs in": name,
                        "batch": batch,
                        "pictures/s": round(speed, 1),
                        "ratio": round(speed / speeds["torch float32"], 2),
                        "cosine, photographs": f"{near[name]['photographs']:.5f}",
                        "cosine, samples": f"{near[name]['samples']:.5f}",
                    }
                    for name, speed in speeds.items()
                ]
    report(f"{available_cores()} threads", rows, given.json)


if __name__ == "__main__":
    main()
