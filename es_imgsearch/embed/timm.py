"""The encoder `timm:NAME`: features of an image classifier, without texts.

    timm:NAME[.TAG][/logits][@FILE]

A picture's vector is the model's last feature map averaged over the picture (global average
pooling), at unit length: 512 dimensions for VGG16 (its last convolution; the 25,088 values
before pooling and the 4,096 of its first dense layer are left out) and ResNet18, 2,048 for
ResNet50 and Inception, 1,024 for DenseNet121, 1,280 for EfficientNet-B0.  With ``/logits`` it is
the classifier's output before the softmax.  Features of such a layer compared by cosine are the
neural codes of Babenko et al. 2014 (arXiv 1404.1777).

Weights are those of the library timm (huggingface.co/timm).  A name without a tag takes
torchvision's weights (``tv_in1k``) if timm has them, which the plain names VGG16, ResNet50 and so
on mean; another training of the same architecture has its tag, as in
``resnet50.a1_in1k`` (``timm.list_pretrained()`` lists them).

Preprocessing is as timm documents it for the weights.  For torchvision's own it is torchvision's
(`torchvision.transforms._presets.ImageClassification`): Resize 256, CenterCrop 224, bilinear,
ImageNet mean and deviation; Inception 342 and 299.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from es_imgsearch.embed.model_lookup import default_models_dir, find_folder
from es_imgsearch.embed.runtime.network import Network, picture_examples
from es_imgsearch.embed.runtime.plan import PICTURES
from es_imgsearch.embed.weights import first_line, weights_hash
from es_imgsearch.errors import EncoderUnknown, ModelUnavailable, TextUnsupported
from es_imgsearch.read.preparation import Preparation, fingerprint
from es_imgsearch.records import unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from es_imgsearch.embed.protocol import Pixels, Vectors


_TORCHVISION: Final = "tv_in1k"
_LOGITS: Final = "/logits"
# Elasticsearch's limit of a dense_vector.
_MAX_DIMS: Final = 4096


def create(argument: str, *, models_dir: Path | None = None, device: str = "auto") -> Timm:
    """Factory of `timm`: ``NAME[.TAG][/logits][@FILE]``.

    FILE is a state dict (safetensors or pickled), a path or a name in `models_dir`; without it
    the weights are the folder NAME.TAG in `models_dir` or come from the hub.

    Raises EncoderUnknown for a name that timm does not know, ModelUnavailable if the library or
    the weights are not available.
    """
    described, at, file = argument.partition("@")
    name, slash, kind = described.partition("/")
    if not name or (slash and slash + kind != _LOGITS) or (at and not file):
        raise EncoderUnknown(
            f"'timm:{argument}' is not timm:NAME, timm:NAME/logits or timm:NAME@FILE;"
            " NAME is a model of timm such as vgg16, resnet50 or densenet121."
        )
    config = _config(name)
    full_name = f"{config.architecture}.{config.tag}" if config.tag else config.architecture
    weights = _weights(full_name, config, file, models_dir or default_models_dir())
    model = f"timm:{full_name}{slash}{kind}"
    place = os.path.abspath(weights) if weights == Path(file).expanduser() else file
    return Timm(
        model + (f"@{weights.name}" if file else ""),
        model + (f"@{place}" if file else ""),
        full_name,
        weights,
        config,
        gives_logits=bool(slash),
        device=device,
    )


def _config(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ModelUnavailable(
            "The encoder 'timm' needs the library timm; pip install 'es-imgsearch[timm]'."
        ) from error
    names = [name] if "." in name else [f"{name}.{_TORCHVISION}", name]
    for each in names if timm.is_model(name) else ():
        try:
            return timm.models.get_pretrained_cfg(each, allow_unregistered=False)
        except RuntimeError:
            # There are no weights of that tag.
            continue
    base, tag, _ = name.partition(".")
    is_known = bool(tag) and timm.is_model(base)
    near = timm.list_pretrained(f"{base}.*") if is_known else timm.list_models(f"*{base}*")
    hint = f"near it are {', '.join(near[:5])}" if near else "timm.list_models() lists them"
    raise EncoderUnknown(f"timm has no model {name!r}; {hint}.")


def _weights(full_name: str, config: Any, file: str, models_dir: Path) -> Path:
    if file:
        for path in (Path(file).expanduser(), models_dir / file):
            if path.is_file():
                return path
        raise ModelUnavailable(f"There is no file of weights at {file}, nor in {models_dir}.")
    if not config.hf_hub_id:
        raise ModelUnavailable(
            f"timm has no weights of {full_name}: give a file, timm:{full_name}@FILE."
        )
    try:
        return find_folder(config.hf_hub_id, models_dir).weight_files()[0]
    except ModelUnavailable as error:
        raise ModelUnavailable(
            f"{error} Give a file of weights, timm:{full_name}@FILE, put the model's folder at"
            f" {models_dir / full_name}, or use --encoder starter, which works offline."
        ) from error


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The steps before the network.

    They are `preparation`, then ``(x / 255 - mean) / deviation``.
    """

    preparation: Preparation
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, config: Any) -> Preprocessing:
        """Read timm's `PretrainedCfg`.

        Raises ModelUnavailable if a `Preparation` cannot express it.
        """
        channels, height, width = config.input_size
        crops = config.crop_mode == "center" and height == width
        if channels != 3 or not (crops or config.crop_mode == "squash"):
            raise ModelUnavailable(
                f"{config.architecture} wants pictures of {config.input_size}, cropped as"
                f" {config.crop_mode!r}, which is not supported."
            )
        is_torchvisions = config.tag == _TORCHVISION
        resampling: Literal["bilinear", "bicubic"] = "bilinear"
        if config.interpolation == "bicubic" and not is_torchvisions:
            resampling = "bicubic"
        # 299 / 0.875 is 341.7: timm cuts that to 341, torchvision resizes to 342.
        shorter = config.input_size[1] / config.crop_pct
        return cls(
            Preparation(
                width=width,
                height=height,
                mode="crop" if crops else "squash",
                resize=round(shorter) if is_torchvisions else math.floor(shorter),
                resampling=resampling,
            ),
            tuple(config.mean),
            tuple(config.std),
        )


class Timm:
    """Features or logits of one model of timm."""

    similarity = "cosine"
    supports_text = False

    def __init__(
        self,
        name: str,
        spec: str,
        full_name: str,
        weights: Path,
        config: Any,
        *,
        gives_logits: bool,
        device: str,
    ) -> None:
        self.name = name
        self.spec = spec
        self._full_name = full_name
        self._weights = weights
        self._gives_logits = gives_logits
        self._preprocessing = Preprocessing.of(config)
        self._network = Network(
            "pictures",
            identity=lambda: f"{self.revision} {self.fingerprint}",
            load=self._load,
            examples=lambda: picture_examples(self.preparation),
            device=device,
        )
        self._config = config
        if self.dims > _MAX_DIMS:
            raise EncoderUnknown(
                f"{name} gives {self.dims} dimensions, more than the {_MAX_DIMS} that"
                " Elasticsearch takes; leave out /logits or take another model."
            )

    @property
    def preparation(self) -> Preparation:
        """The resizing and cropping that the weights were evaluated with."""
        return self._preprocessing.preparation

    @cached_property
    def revision(self) -> str:
        """Hash of the weights."""
        return weights_hash([self._weights])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the architecture and of the preprocessing."""
        return fingerprint(
            {
                "architecture": self._config.architecture,
                "output": "logits" if self._gives_logits else "pooled",
                "preparation": self._preprocessing.preparation,
                "mean": list(self._preprocessing.mean),
                "deviation": list(self._preprocessing.deviation),
            }
        )

    @cached_property
    def dims(self) -> int:
        """Length of a vector, from the architecture alone."""
        if self._gives_logits:
            return int(self._config.num_classes)
        import timm
        import torch

        # On this device tensors have a shape and no content: 20 to 1,000 ms, no memory.
        with torch.device("meta"):
            return int(timm.create_model(self._full_name, pretrained=False).num_features)

    def embed_images(self, pictures: Pixels) -> Vectors:
        """Return unit vectors of shape (n, dims) of pictures (n, height, width, 3)."""
        if len(pictures) == 0:
            return np.zeros((0, self.dims), dtype=np.float32)
        return unit(self._network.rows({PICTURES: pictures}))

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Raise TextUnsupported: a classifier of pictures reads no texts."""
        raise TextUnsupported(
            f"{self.name} embeds pictures only ({len(texts)} texts were given); search with a"
            " picture."
        )

    @property
    def networks(self) -> Sequence[Network]:
        """The classifier."""
        return [self._network]

    @property
    def batch_size(self) -> int:
        """Pictures of one forward pass."""
        return self._network.batch_size

    def _load(self) -> Any:
        """A torch module from pictures (n, height, width, 3) to (n, dims)."""
        from es_imgsearch.embed.runtime.torch import PictureNetwork

        # timm warns about Inception's second classifier, which is for training only.
        timms_logger = logging.getLogger("timm")
        level = timms_logger.level
        timms_logger.setLevel(logging.ERROR)
        try:
            model = self._loaded()
        except Exception as error:
            raise ModelUnavailable(
                f"The weights in {self._weights} do not fit {self._full_name}: {first_line(error)}."
            ) from error
        finally:
            timms_logger.setLevel(level)
        return PictureNetwork(
            (model if self._gives_logits else _pooled(model)).eval(),
            rescale=1 / 255,
            mean=self._preprocessing.mean,
            deviation=self._preprocessing.deviation,
            channels_last=True,
        )

    def _loaded(self) -> Any:
        import timm

        classes = self._config.num_classes
        name = self._config.classifier
        if not self._gives_logits and isinstance(name, str):
            # A model trained further on other classes still gives features.
            stored = timm.models.load_state_dict(str(self._weights))
            if (classifier := stored.get(f"{name}.weight")) is not None:
                classes = len(classifier)
        return timm.create_model(
            self._full_name,
            pretrained=True,
            num_classes=classes,
            pretrained_cfg_overlay={"file": str(self._weights), "num_classes": classes},
        )


def _pooled(model: Any) -> Any:
    from torch import nn

    class Pooled(nn.Module):
        """`model` without its classifier."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pictures: Any) -> Any:
            features = self.model.forward_features(pictures)
            if getattr(self.model, "head_hidden_size", None) in {None, self.model.num_features}:
                return self.model.forward_head(features, pre_logits=True)
            # VGG and MobileNetV3 widen the pooled map before they classify.
            return features.mean((2, 3))

    return Pooled()
