"""What the reading workers hand to an encoder, against torchvision's transforms."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from es_imgsearch.read.preparation import Preparation, fingerprint


def picture(width: int, height: int) -> Image.Image:
    """Smooth colours with some noise: what photographs are made of."""
    rng = np.random.default_rng(width * 7919 + height)
    x = np.linspace(0, 1, width)[None, :, None]
    y = np.linspace(0, 1, height)[:, None, None]
    waves = 0.5 + 0.5 * np.sin(6 * (x * [1, 2, 3] + y * [3, 1, 2]))
    noisy = np.clip(waves * 235 + rng.normal(0, 10, (height, width, 3)), 0, 255)
    return Image.fromarray(noisy.astype(np.uint8), "RGB")


SIZES = [
    (640, 480),
    (480, 640),
    (223, 225),
    (224, 224),
    (301, 999),
    (4000, 40),  # a panorama
    (40, 4000),
    (500, 3),
    (3, 500),
    (1, 1),
    (2, 1),
    (31, 17),
]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("resize", [224, 256])
def test_crop_equals_resize_and_center_crop_of_torchvision(
    size: tuple[int, int], resize: int
) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    expected = transforms.Compose(
        [
            transforms.Resize(resize, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
        ]
    )(picture(*size))

    prepared = Preparation(width=224, height=224, resize=resize).apply(picture(*size))

    difference = np.abs(prepared.astype(int) - np.asarray(expected).astype(int))
    # PIL keeps bytes between its two passes, so the rounding differs by a few steps of 255.
    assert difference.max() <= 4
    assert difference.mean() < 0.3


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("mode", ["crop", "squash"])
def test_every_picture_gets_the_same_shape(size: tuple[int, int], mode: str) -> None:
    prepared = Preparation(width=48, height=32, mode=mode, resize=64).apply(picture(*size))

    assert prepared.shape == (32, 48, 3)
    assert prepared.dtype == np.uint8


def test_squash_is_a_plain_resize() -> None:
    image = picture(301, 999)

    prepared = Preparation(width=224, height=160, mode="squash").apply(image)

    assert np.array_equal(prepared, np.asarray(image.resize((224, 160), Image.Resampling.BICUBIC)))


def test_only_rgb_is_taken() -> None:
    with pytest.raises(ValueError, match="must be RGB, not L"):
        Preparation().apply(Image.new("L", (10, 10)))


@pytest.mark.parametrize(
    "changed",
    [
        Preparation(width=225),
        Preparation(height=225),
        Preparation(mode="squash"),
        Preparation(resize=256),
        Preparation(resampling="bilinear"),
    ],
)
def test_a_changed_parameter_changes_the_fingerprint(changed: Preparation) -> None:
    assert fingerprint({"preparation": changed}) != fingerprint({"preparation": Preparation()})


def test_a_fingerprint_is_the_same_in_every_process_and_order() -> None:
    here = fingerprint({"preparation": Preparation(), "mean": 0.5})

    assert here == fingerprint({"mean": np.float64(0.5), "preparation": Preparation()})
    # Sealed into indices: a changed value would lock every existing index out.
    assert fingerprint({"a": 1}) == "015abd7f5cc57a2d"


def test_what_cannot_be_written_down_is_no_parameter() -> None:
    with pytest.raises(TypeError, match="object cannot be part of a fingerprint"):
        fingerprint({"a": object()})


def test_reading_workers_import_no_torch() -> None:
    code = "import sys, es_imgsearch.read.preparation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
