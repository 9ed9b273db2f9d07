"""Run one network of an encoder: arrays in, rows of floats out, in any library.

An encoder defines how its networks are built in torch; `runtime.select` chooses how they run on
this machine.  Until it does, they run in torch on the encoder's device.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import numpy as np

from es_imgsearch.embed.runtime.plan import PICTURES
from es_imgsearch.embed.weights import has_torch
from es_imgsearch.errors import ModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import torch

    from es_imgsearch.embed.protocol import Encoder, Pixels, Vectors
    from es_imgsearch.embed.runtime.plan import Inputs, Part, Runner, RuntimePlan
    from es_imgsearch.read.preparation import Preparation


logger = logging.getLogger(__name__)

# Pictures of one forward pass without a plan.  In torch on 2 cores 16 was the fastest of 1, 8, 16,
# 32 and 64 for `starter`; ViT-B/32 was as fast with all of them.
BATCH_SIZE: Final = 16


class Network:
    """One network, which runs in batches of `batch_size`.

    It loads with the first call of `rows`.
    """

    def __init__(
        self,
        part: Part,
        *,
        identity: Callable[[], str],
        load: Callable[[], torch.nn.Module],
        examples: Callable[[], Sequence[Inputs]],
        device: str,
        architecture: str = "",
        files: Callable[[], Mapping[str, bytes]] = dict,
        unload: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing is loaded.

        `identity`
            changes whenever the network does.
        `load`
            builds the torch module, float32, on the CPU or where it already is; it takes the
            arrays of the inputs as positional tensors and returns rows.
        `examples`
            inputs to trace an export with (the first) and to check it (all).
        `architecture`
            the key of its measurements (`runtime.select.MEASURED`).
        `files`
            other files that an export needs, such as a tokenizer.
        `unload`
            releases the module that `load` returned.
        """
        self.part = part
        self.identity = identity
        self.load = load
        self.examples = examples
        self.architecture = architecture
        self.files = files
        self.unload = unload
        self.plan: RuntimePlan | None = None
        # The folder of the export that runs, if one does.
        self.folder: Path | None = None
        self._device = device
        self._runner: Runner | None = None
        self._make_runner: Callable[[], Runner] | None = None

    @property
    def batch_size(self) -> int:
        """Rows of one forward pass at most."""
        return BATCH_SIZE if self.plan is None else self.plan.batch_size

    def use(
        self, plan: RuntimePlan, make_runner: Callable[[], Runner], folder: Path | None = None
    ) -> None:
        """Run by this plan from now on; `make_runner` is called with the first inputs.

        If that fails, or the runner fails with the first row, the network runs in torch in
        float32 (on the CPU, unless another device is set).  `folder` is the folder of an export.
        """
        self.plan = plan
        self.folder = folder
        self._make_runner = make_runner
        self._runner = None

    def rows(self, inputs: Inputs) -> Vectors:
        """Return rows of shape (n, width), float32; n is at least 1.

        Raises ModelUnavailable if there is neither an export nor torch.
        """
        if self._runner is None:
            self._runner = self._first_runner(_part(inputs, 0, 1))
        count = len(next(iter(inputs.values())))
        size = self.batch_size
        return np.concatenate(
            [self._runner(_part(inputs, at, at + size)) for at in range(0, count, size)]
        )

    def _first_runner(self, inputs: Inputs) -> Runner:
        device = self._device
        if self._make_runner is not None and self.plan is not None:
            try:
                runner = self._make_runner()
                # A GPU may lack memory or an operation, which only a forward pass shows.
                runner(inputs)
            except Exception as error:  # noqa: BLE001 - a damaged file makes a library raise anything
                logger.warning("%s cannot be used (%s); torch runs instead.", self.plan, error)
            else:
                return runner
            device = "cpu" if device == "auto" else device
            self.plan = replace(self.plan, backend="torch", device=device, dtype="float32")
        if not has_torch():
            raise torch_missing(self.part)
        from es_imgsearch.embed.runtime.torch import TorchRunner

        return TorchRunner(self.load(), device)


def _part(inputs: Inputs, start: int, end: int) -> Inputs:
    return {name: np.ascontiguousarray(array[start:end]) for name, array in inputs.items()}


def torch_runner(module: torch.nn.Module, plan: RuntimePlan) -> Runner:
    """Have torch run the module as the plan says; imports torch."""
    from es_imgsearch.embed.runtime.torch import TorchRunner

    return TorchRunner(module, plan.device, plan.dtype, plan.threads)


def torch_missing(part: Part) -> ModelUnavailable:
    """The error for a network without an export if torch is not installed."""
    return ModelUnavailable(
        f"The encoder's {part} need torch, which is not installed, or an export for ONNX Runtime"
        " in cache_dir: pip install torch."
    )


@runtime_checkable
class HasNetworks(Protocol):
    """An encoder whose networks `runtime.select` may run in another library."""

    @property
    def networks(self) -> Sequence[Network]:
        """Its networks, each once; reading this loads none."""


def batch_size(encoder: Encoder, requested: int | None = None) -> int:
    """Return how many pictures to embed at once.

    The number is the requested one, the encoder's own, or 16.
    """
    if requested is not None:
        return requested
    own = getattr(encoder, "batch_size", None)
    return BATCH_SIZE if own is None else int(own)


# Synthetic pictures to measure the speed and precision of a network.


def picture_examples(preparation: Preparation) -> list[Inputs]:
    """Return inputs for a network of pictures of this size: batches of 2 and of 5."""
    pictures = sample_pictures(7, preparation.height, preparation.width)
    return [{PICTURES: pictures[:2]}, {PICTURES: pictures[2:]}]


def sample_pictures(count: int, height: int, width: int) -> Pixels:
    """Return pictures of shape (count, height, width, 3), the same in every call.

    Their amplitudes fall with the frequency as 1/f, as in photographs (Field 1987, J. Opt. Soc.
    Am. A 4, 2379): light and dark areas, edges and detail, no objects.
    """
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0
    noise = rng.standard_normal((count, 3, height, width))
    # The channels of photographs correlate: half of each is common to all.
    noise = 0.5 * noise + noise.mean(axis=1, keepdims=True)
    waves = np.fft.rfft2(noise) / frequency
    waves[..., 0, 0] = 0
    fields = np.fft.irfft2(waves, (height, width))
    fields /= fields.std(axis=(1, 2, 3), keepdims=True)
    levels = rng.uniform(70, 180, (count, 1, 1, 1)) + 55 * fields
    pictures: Pixels = levels.clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pictures)
