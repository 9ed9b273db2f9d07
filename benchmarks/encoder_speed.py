"""Pictures a second of each encoder's picture side, on every device this machine has.

    python benchmarks/encoder_speed.py [--json FILE]

`starter`'s classifier and CLIP's ViT-B/32 have the architecture of the real models and random
weights, which run at the same speed.  The ratio is to the first row.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from report import arguments, report

from es_imgsearch.embed.efficientnet_lite import EfficientNetLite0

BATCHES = (1, 16, 64)
SECONDS = 4.0


def vit_b_32() -> torch.nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    # The configuration of openai/clip-vit-base-patch32, which is this class's default.
    return CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=512))


MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "starter (EfficientNet-Lite0)": EfficientNetLite0,
    "clip (ViT-B/32)": vit_b_32,
}


def pictures_per_second(model: torch.nn.Module, device: str, batch: int) -> float:
    """The median of repeated forward passes on float32 pictures that are ready on the device."""
    pictures = torch.randn(batch, 3, 224, 224, device=device)
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(2):
            model(pictures)
        synchronise(device)
        began = time.perf_counter()
        while len(times) < 3 or time.perf_counter() - began < SECONDS:
            started = time.perf_counter()
            model(pictures)
            synchronise(device)
            times.append(time.perf_counter() - started)
    return batch / statistics.median(times)


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    given = arguments(__doc__).parse_args()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    rows = []
    for name, make in MODELS.items():
        torch.manual_seed(0)
        model = make().eval()
        for device in devices:
            model = model.to(device)
            for batch in BATCHES:
                speed = pictures_per_second(model, device, batch)
                rows.append(
                    {
                        "model": name,
                        "device": device,
                        "batch": batch,
                        "pictures/s": round(speed, 1),
                        "ratio": round(speed / (rows[0]["pictures/s"] if rows else speed), 2),
                    }
                )
    hardware = torch.cuda.get_device_name() if "cuda" in devices else "no GPU"
    report(f"{torch.get_num_threads()} threads, {hardware}", rows, given.json)


if __name__ == "__main__":
    main()
