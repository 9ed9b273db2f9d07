"""One network of an encoder: arrays in, rows of floats out, whatever runs it.

An encoder says how its networks are made in torch; in what they run on this machine is decided
outside (`backend`).  Without a decision they run in torch, on the encoder's device.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import numpy as np

from es_imgsearch.embed.runtime.plan import PICTURES, Inputs, Part, Runner
from es_imgsearch.embed.weights import has_torch
from es_imgsearch.errors import ModelUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from es_imgsearch.embed.protocol import Encoder, Pixels, Vectors
    from es_imgsearch.embed.runtime.plan import Inputs, Plan
    from es_imgsearch.read.preparation import Preparation


logger = logging.getLogger(__name__)

# Pictures of one forward pass where nothing was measured: of 1, 8, 16, 32 and 64, 16 was the
# fastest for `starter` on 2 cores; ViT-B/32 does not care.
BATCH_SIZE: Final = 16


class Network:
    """Runs in batches of `batch_size`; loads with the first call of `rows`."""

    def __init__(
        self,
        part: Part,
        *,
        identity: Callable[[], str],
        load: Callable[[], torch.nn.Module],
        examples: Callable[[], Sequence[Inputs]],
        device: str,
        files: Callable[[], Mapping[str, bytes]] = dict,
        unload: Callable[[], None] = lambda: None,
    ) -> None:
        """`load` makes the network in torch.

        `identity`
            changes whenever the network does.
        `load`
            the torch module, float32, on the CPU or where it already is; it takes the arrays of
            the inputs as positional tensors and gives rows.
        `examples`
            inputs by which an export is made (the first) and checked.
        `files`
            what an export needs beside the network, such as a tokenizer.
        `unload`
            lets go of what `load` keeps.
        """
        self.part = part
        self.identity = identity
        self.load = load
        self.examples = examples
        self.files = files
        self.unload = unload
        self.plan: Plan | None = None
        self._device = device
        self._runner: Runner | None = None
        self._make_runner: Callable[[], Runner] | None = None
        # Of the export that runs, where one does.
        self.folder: Path | None = None

    @property
    def batch_size(self) -> int:
        """Rows of one forward pass at most."""
        return BATCH_SIZE if self.plan is None else self.plan.batch_size

    def use(
        self, plan: Plan, make_runner: Callable[[], Runner], folder: Path | None = None
    ) -> None:
        """Run so from now on; `make_runner` is called with the first inputs.

        Where it fails, the network runs in torch after all, if that is installed.  `folder` is
        that of an export.
        """
        self.plan = plan
        self.folder = folder
        self._make_runner = make_runner
        self._runner = None

    def rows(self, inputs: Inputs) -> Vectors:
        """Rows of shape (n, width), float32; n is at least 1.

        Raises ModelUnavailable where there is neither an export nor torch.
        """
        if self._runner is None:
            self._runner = self._made()
        count = len(next(iter(inputs.values())))
        size = self.batch_size
        return np.concatenate(
            [
                self._runner(
                    {
                        name: np.ascontiguousarray(array[at : at + size])
                        for name, array in inputs.items()
                    }
                )
                for at in range(0, count, size)
            ]
        )

    def _made(self) -> Runner:
        if self._make_runner is not None:
            try:
                return self._make_runner()
            except Exception as error:  # noqa: BLE001 - whatever a damaged file makes a library raise
                logger.warning("%s cannot be used (%s); torch runs instead.", self.plan, error)
        if not has_torch():
            raise torch_missing(self.part)
        from es_imgsearch.embed.runtime.torch import TorchRunner

        return TorchRunner(self.load(), self._device)


def torch_missing(part: Part) -> ModelUnavailable:
    """For a network without an export, where torch is not installed."""
    return ModelUnavailable(
        f"The encoder's {part} need torch, which is not installed, or an export for ONNX Runtime"
        " in cache_dir: pip install torch."
    )


@runtime_checkable
class Movable(Protocol):
    """What an encoder has besides if `backend` may decide how it runs."""

    @property
    def networks(self) -> Sequence[Network]:
        """Its networks, each once; none is loaded by asking."""


def batch_size(encoder: Encoder, asked: int | None = None) -> int:
    """How many pictures to embed at once: as asked for, as the encoder says, or 16."""
    if asked is not None:
        return asked
    told = getattr(encoder, "batch_size", None)
    return BATCH_SIZE if told is None else int(told)


# Pictures without a camera, by which a network's speed and precision are measured.


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
