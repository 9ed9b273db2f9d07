"""Make camera-sized photographs: enlarged parts of scikit-image's."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

SOURCES = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png")
QUALITY = 90
# As of a sensor, in levels of 255: without it a file has 1.1 MB and is decoded in two thirds of
# the time, with it 2.8 MB.
GRAIN = 4.0


def write_photographs(folder: Path, count: int, size: tuple[int, int]) -> int:
    """Write `count` different JPEGs of this size; return their bytes."""
    share = -(-count // len(SOURCES))
    jobs = [
        (folder, number, range(number, count, len(SOURCES))[:share], size)
        for number in range(len(SOURCES))
    ]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        return sum(pool.map(_write, *zip(*jobs, strict=True)))


def _write(folder: Path, source: int, numbers: range, size: tuple[int, int]) -> int:
    """Write parts of one photograph; each is another part with other grain."""
    random = np.random.default_rng(source)
    width, height = size
    with Image.open(Path(skimage.__file__).parent / "data" / SOURCES[source]) as image:
        factor = 1.1 * max(width / image.width, height / image.height)
        large = (round(image.width * factor), round(image.height * factor))
        whole = np.asarray(image.convert("RGB").resize(large, Image.Resampling.BICUBIC), np.int16)
    tile = random.normal(0, GRAIN, (512, 512, 1)).round().astype(np.int16)
    repeats = (large[1] // 512 + 1, large[0] // 512 + 1, 1)
    whole = (whole + np.tile(tile, repeats)[: large[1], : large[0]]).clip(0, 255).astype(np.uint8)
    written = 0
    for number in numbers:
        left = int(random.integers(large[0] - width + 1))
        top = int(random.integers(large[1] - height + 1))
        path = folder / f"{number:05d}.jpg"
        part = Image.fromarray(whole[top : top + height, left : left + width])
        if random.random() < 0.5:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        part.save(path, quality=QUALITY)
        written += path.stat().st_size
    return written
