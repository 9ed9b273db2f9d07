"""The folder of pictures that the documentation's examples are about."""

from __future__ import annotations

import shutil
from pathlib import Path

import skimage
from PIL import Image


def fill(pictures: Path) -> None:
    """Make a folder of pictures: photographs, smaller copies of two, and a broken file."""
    pictures.mkdir(parents=True)
    originals = Path(skimage.__file__).parent / "data"
    for path in sorted(originals.iterdir()):
        if path.suffix in {".png", ".jpg", ".gif", ".tif"}:
            shutil.copy(path, pictures)
    (pictures / "small").mkdir()
    for name in ("coffee", "motorcycle_left", "astronaut", "chelsea", "rocket"):
        source = next(pictures.glob(f"{name}.*"))
        with Image.open(source) as picture:
            picture.thumbnail((320, 320))
            picture.convert("RGB").save(pictures / "small" / f"{name}.jpg", quality=85)
    (pictures / "broken.jpg").write_bytes(b"no picture")
