"""Turn a decoded picture into the fixed-size array an encoder expects.

Runs in the reading workers, so nothing here may import torch.  An encoder states its
preparation as data; scaling to floats and normalising stay with the encoder, so that what
crosses the process boundary is small (150 kB for 224x224).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

type_pixels = npt.NDArray[np.uint8]

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class Preparation:
    """Size, mode and resampling that an encoder needs, as data.

    `mode`
        ``crop``: the shorter side becomes `resize`, then the middle `width` x `height`;
        ``squash``: both sides become `width` x `height`, whatever the aspect ratio;
        ``fit``: as large as goes into `width` x `height`, never enlarged (thumbnails, no encoder).
    """

    width: int = 224
    height: int = 224
    mode: Literal["crop", "squash", "fit"] = "crop"
    resize: int = 224
    resampling: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"

    @property
    def size_bytes(self) -> int:
        """Size of the array that `apply` returns; in mode ``fit`` the largest."""
        return self.width * self.height * 3

    @property
    def shorter_side_pixels(self) -> int:
        """The shorter side to which a picture may be shrunk before `apply` at no loss.

        Twice what is asked for, as Pillow's `reducing_gap=2.0`.  The cosines of a photograph's
        vectors stay above .9993 so, and fall to .9956 at 1.5 times (`starter`, 12 megapixels).
        """
        # In the mode ``fit`` the shorter side may stay as large as the longer one, not larger.
        longest = self.resize if self.mode == "crop" else max(self.width, self.height)
        return 2 * longest

    def apply(self, image: Image.Image, size: tuple[int, int] | None = None) -> type_pixels:
        """Prepare an upright RGB image as uint8, of shape (height, width, 3).

        `size` is the width and height of the picture before it was shrunk, if it was: its sides
        were rounded then, and the crop would be off by up to half a pixel.

        In the mode ``fit`` only the shape of the array is another: as large as it becomes.
        """
        if image.mode != "RGB":
            raise ValueError(f"a picture to prepare must be RGB, not {image.mode}")
        resampling = _RESAMPLING[self.resampling]
        if self.mode == "fit":
            prepared = image.copy()
            prepared.thumbnail((self.width, self.height), resampling)
        elif self.mode == "squash":
            prepared = image.resize((self.width, self.height), resampling)
        else:
            prepared = self._crop(image, size or image.size, resampling)
        return np.asarray(prepared, dtype=np.uint8)

    def _crop(
        self, image: Image.Image, size: tuple[int, int], resampling: Image.Resampling
    ) -> Image.Image:
        width, height = size
        # torchvision's Resize(int): the longer side is truncated, not rounded; CenterCrop
        # rounds half to even (torchvision/transforms/functional.py).  A panorama would make
        # a huge intermediate, so only the part that survives the crop is resized.
        if width <= height:
            scaled_width, scaled_height = self.resize, int(self.resize * height / width)
        else:
            scaled_width, scaled_height = int(self.resize * width / height), self.resize
        left = round((scaled_width - self.width) / 2)
        top = round((scaled_height - self.height) / 2)
        box = (
            left * image.width / scaled_width,
            top * image.height / scaled_height,
            (left + self.width) * image.width / scaled_width,
            (top + self.height) * image.height / scaled_height,
        )
        return image.resize((self.width, self.height), resampling, box=box)


def fingerprint(parameters: Mapping[str, Any]) -> str:
    """Hash preprocessing parameters, stable and short; no library versions."""
    text = json.dumps(parameters, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Preparation):
        return asdict(value)
    if isinstance(value, (np.floating, np.integer)):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be part of a fingerprint")
