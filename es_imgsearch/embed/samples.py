"""Pictures without a camera, by which a network's speed and precision are measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from es_imgsearch.embed.network import PICTURES

if TYPE_CHECKING:
    from es_imgsearch.embed.network import Inputs
    from es_imgsearch.embed.protocol import Pixels
    from es_imgsearch.pictures.preparation import Preparation


def picture_examples(preparation: Preparation) -> list[Inputs]:
    """Inputs for a network of pictures of this size: two batches of different length."""
    pictures = sample_pictures(7, preparation.height, preparation.width)
    return [{PICTURES: pictures[:2]}, {PICTURES: pictures[2:]}]


def sample_pictures(count: int, height: int, width: int) -> Pixels:
    """Pictures of shape (count, height, width, 3), always the same.

    Their amplitudes fall with the frequency as 1/f, which is what those of photographs do (Field
    1987, J. Opt. Soc. Am. A 4, 2379): light and dark areas, edges and detail, no objects.
    """
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0
    noise = rng.standard_normal((count, 3, height, width))
    # Channels of photographs go together: half of each is common to all.
    noise = 0.5 * noise + noise.mean(axis=1, keepdims=True)
    waves = np.fft.rfft2(noise) / frequency
    waves[..., 0, 0] = 0
    fields = np.fft.irfft2(waves, (height, width))
    fields /= fields.std(axis=(1, 2, 3), keepdims=True)
    levels = rng.uniform(70, 180, (count, 1, 1, 1)) + 55 * fields
    pictures: Pixels = levels.clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pictures)
