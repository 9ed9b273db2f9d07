"""Find a sentence-transformers model on disk and read its configuration.

Nothing here imports torch.  Layout of such a folder: `modules.json` lists the modules with
their sub-folders, the first being the transformer with its weights, `config.json` and the image
processor's settings; a plain transformers checkpoint has them at the top and no `modules.json`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from es_imgsearch.embed.weights import weights_hash
from es_imgsearch.errors import ModelUnavailable
from es_imgsearch.read.preparation import Preparation

if TYPE_CHECKING:
    pass


logger = logging.getLogger(__name__)

_OURS: Final = "sentence_transformers."

# The same weights for the library open_clip, in repositories that serve both.
_OPEN_CLIP: Final = "open_clip_"

# Models of Google's SigLIP (Zhai et al. 2023, arXiv 2303.15343); SigLIP 2 of a fixed resolution
# (Tschannen et al. 2025, arXiv 2502.14786) is published as one, too.
_SIGLIP: Final = "siglip"
_SIGLIP_DIMS: Final = 768
_SIGLIP_TOKENS: Final = 64

_VIT_B_32: Final = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "patch_size": 32,
    "image_size": 224,
}

# Numbers of PIL.Image.Resampling, as stored in an image processor's `resample`.
_RESAMPLING: Final[dict[int, Literal["nearest", "lanczos", "bilinear", "bicubic"]]] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}


@dataclass(frozen=True, slots=True)
class Processing:
    """The steps of an image processor.

    They are `preparation`, then ``(x * rescale - mean) / deviation``.
    """

    preparation: Preparation
    rescale: float
    mean: list[float]
    deviation: list[float]


class ModelFolder:
    """The model in the folder `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._modules: list[dict[str, Any]] = _read(path / "modules.json") or []
        self._transformer = path / (self._modules[0]["path"] if self._modules else "")
        self._config: dict[str, Any] = _read(self._transformer / "config.json") or {}
        self._settings: dict[str, Any] = (
            _read(self._transformer / "sentence_bert_config.json") or {}
        )
        self._saved: dict[str, Any] = _read(path / "config_sentence_transformers.json") or {}

    @property
    def code_of_its_own(self) -> str:
        """The first module whose class comes with the model; empty if there is none.

        The classes of jina-clip come with the model.
        """
        kinds = [str(module["type"]) for module in self._modules]
        return next((kind for kind in kinds if not kind.startswith(_OURS)), "")

    @property
    def architecture(self) -> str:
        """The key of `runtime.select.MEASURED`; empty for all but CLIP's ViT-B/32."""
        vision = self._config.get("vision_config") or {}
        # Values left out of the file are those of ViT-B/32, transformers' defaults.
        is_vit_b_32 = all(vision.get(name, value) == value for name, value in _VIT_B_32.items())
        is_clip = self._config.get("model_type") == "clip"
        return "clip-vit-b-32" if is_clip and is_vit_b_32 else ""

    @property
    def takes_text(self) -> bool:
        """True if texts can be embedded with this model."""
        if "modality_config" in self._settings:
            return "text" in self._settings["modality_config"]
        return "text_config" in self._config or "text_config_dict" in self._config

    @property
    def text_length(self) -> int | None:
        """Number of tokens that every text is padded or cut to; None if lengths vary.

        SigLIP takes the state of the last token for the text and has no attention mask, so a
        text's vector depends on its padding; it was trained with 64 tokens
        (google-research/big_vision, issue 157).
        """
        if self._config.get("model_type") != _SIGLIP:
            return None
        tokens = self._config.get("text_config", {}).get("max_position_embeddings")
        return int(tokens or _SIGLIP_TOKENS)

    @property
    def truncate_dim(self) -> int | None:
        """Number of dimensions to keep, if the model limits them (Matryoshka)."""
        dims = self._saved.get("truncate_dim")
        return None if dims is None else int(dims)

    @property
    def prompts(self) -> dict[str, str]:
        """Prompts put in front of texts, without the empty ones."""
        prompts = self._saved.get("prompts") or {}
        return {name: text for name, text in prompts.items() if text}

    @property
    def generation(self) -> dict[str, Any]:
        """The generation settings of a captioning model.

        The version that saved them is left out.
        """
        settings = _read(self._transformer / "generation_config.json") or {}
        return {name: value for name, value in settings.items() if name != "transformers_version"}

    def dims(self) -> int | None:
        """Length of a vector; None if the configuration does not say."""
        dims = self._config.get("projection_dim")
        if self._config.get("model_type") == _SIGLIP:
            dims = self._config.get("vision_config", {}).get("hidden_size", _SIGLIP_DIMS)
        for module in self._modules[1:]:
            if module["type"].endswith("Dense"):
                dense = _read(self.path / module["path"] / "config.json") or {}
                dims = dense.get("out_features", dims)
        if dims is None:
            return None
        return min(int(dims), self.truncate_dim or int(dims))

    def weight_files(self) -> list[Path]:
        """The files of the weights: in each folder the safetensors, or else the pickles.

        Files for the library open_clip in the same repository are left out.
        """
        files: list[Path] = []
        folders = dict.fromkeys(self.path / module["path"] for module in self._modules)
        for folder in folders or [self._transformer]:
            safe = sorted(folder.glob("*.safetensors"))
            ours = [file for file in safe if not file.name.startswith(_OPEN_CLIP)]
            files += ours or sorted(folder.glob("pytorch_model*.bin"))
        return files

    def identity(self) -> str:
        """Return 16 hexadecimal digits that change with anything that changes a vector.

        That is the weights and every file of settings and of words, but not the folder's path.
        """
        digest = hashlib.sha256(weights_hash(self.weight_files()).encode())
        for file in sorted(self.path.rglob("*")):
            if file.suffix in {".json", ".txt", ".model"} and file.is_file():
                digest.update(str(file.relative_to(self.path)).encode() + file.read_bytes())
        return digest.hexdigest()[:16]

    def processing(self) -> Processing:
        """Read the settings of the model's image processor.

        Reads `preprocessor_config.json` or, as transformers 5 writes it, `processor_config.json`.

        Raises ModelUnavailable if there is none, or one that no `Preparation` can express.
        """
        conf = _read(self._transformer / "preprocessor_config.json")
        if conf is None:
            conf = (_read(self._transformer / "processor_config.json") or {}).get("image_processor")
        if not conf:
            raise ModelUnavailable(
                f"The model in {self.path} takes no pictures: it has no preprocessor_config.json."
            )
        normalises = conf.get("do_normalize", True)
        if normalises and not {"image_mean", "image_std"} <= conf.keys():
            raise ModelUnavailable(
                f"The image processor of the model in {self.path} is not supported: its settings"
                " name no image_mean and image_std."
            )
        return Processing(
            preparation=self._preparation(conf),
            rescale=conf.get("rescale_factor", 1 / 255) if conf.get("do_rescale", True) else 1.0,
            mean=list(conf["image_mean"]) if normalises else [0.0, 0.0, 0.0],
            deviation=list(conf["image_std"]) if normalises else [1.0, 1.0, 1.0],
        )

    def _preparation(self, conf: dict[str, Any]) -> Preparation:
        if "max_num_patches" in conf:
            raise ModelUnavailable(
                f"The model in {self.path} takes pictures of any shape as patches (NaFlex), which"
                " is not supported; take one of a fixed resolution, such as"
                " google/siglip2-base-patch16-224."
            )
        # CLIP's processor crops by default, every other only if its settings say so.
        kind = conf.get("image_processor_type") or conf.get("feature_extractor_type") or ""
        crops = bool(conf.get("do_center_crop", kind.startswith("CLIP")))
        size, crop = conf.get("size", 224), conf.get("crop_size")
        # A bare number is the shorter side where a crop follows, else a square.
        if isinstance(size, int):
            size = {"shortest_edge": size} if crops else {"height": size, "width": size}
        if isinstance(crop, int):
            crop = {"height": crop, "width": crop}
        resampling = _RESAMPLING.get(conf.get("resample", 3))
        if conf.get("do_resize", True) and resampling is not None:
            if crops and "shortest_edge" in size:
                shorter = int(size["shortest_edge"])
                crop = crop or {"height": shorter, "width": shorter}
                return Preparation(
                    width=int(crop["width"]),
                    height=int(crop["height"]),
                    mode="crop",
                    resize=shorter,
                    resampling=resampling,
                )
            if "height" in size and "width" in size and (not crops or crop in (None, size)):
                return Preparation(
                    width=int(size["width"]),
                    height=int(size["height"]),
                    mode="squash",
                    resampling=resampling,
                )
        raise ModelUnavailable(
            f"The image processor of the model in {self.path} prepares pictures in a way that is "
            f"not supported (size {size}, crop {crop}, resample {conf.get('resample')})."
        )


def _read(file: Path) -> Any:
    return json.loads(file.read_text("utf-8")) if file.is_file() else None
