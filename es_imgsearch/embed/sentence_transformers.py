"""Encoders of sentence-transformers: `clip`, and any other picture model.

`clip` is two models that share a space: clip-ViT-B-32 for pictures (Radford et al. 2021, arXiv
2103.00020) and clip-ViT-B-32-multilingual-v1 for text in 50+ languages (trained by multilingual
distillation, Reimers and Gurevych 2020, arXiv 2004.09813); both on their model cards under
sentence-transformers/.

The reading workers have already resized and cropped as the model's own image processor would
(`processor_file`), so only scaling and normalising is left.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from es_imgsearch.embed.model_folder import ModelFolder
from es_imgsearch.embed.model_lookup import (
    default_models_dir,
    find_folder,
    find_folders,
    is_on_this_machine,
    placed,
    portable,
    split_pair,
)
from es_imgsearch.embed.runtime.network import Network, picture_examples
from es_imgsearch.embed.runtime.plan import PICTURES
from es_imgsearch.embed.runtime.text_model import TextModel, load_model
from es_imgsearch.embed.weights import weights_hash
from es_imgsearch.errors import ModelUnavailable, TextUnsupported
from es_imgsearch.read.preparation import Preparation, fingerprint
from es_imgsearch.records import unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from es_imgsearch.embed.protocol import Pixels, Vectors


CLIP_PICTURES: Final = "clip-ViT-B-32"
CLIP_TEXTS: Final = "clip-ViT-B-32-multilingual-v1"


def create_clip(
    argument: str, *, models_dir: Path | None = None, device: str = "auto"
) -> SentenceTransformersEncoder:
    """Factory of `clip`; `argument` is empty, or another pair as for `create`.

    Raises ModelUnavailable, with what to do, if a model is neither here nor on a reachable hub.
    """
    if argument:
        return create(argument, models_dir=models_dir, device=device)
    folder = models_dir or default_models_dir()
    try:
        pictures = find_folder(CLIP_PICTURES, folder)
        texts = find_folder(CLIP_TEXTS, folder)
    except ModelUnavailable as error:
        raise ModelUnavailable(
            f"{error} Put the model folders at {folder / CLIP_PICTURES} and "
            f"{folder / CLIP_TEXTS}, or use --encoder starter, which works offline."
        ) from error
    return SentenceTransformersEncoder("clip", pictures, texts, device=device)


def has_clip(models_dir: Path | None = None) -> bool:
    """Return True if both models of `clip` are on this machine."""
    folder = models_dir or default_models_dir()
    return all(is_on_this_machine(each, folder) for each in (CLIP_PICTURES, CLIP_TEXTS))


def create(
    argument: str, *, models_dir: Path | None = None, device: str = "auto"
) -> SentenceTransformersEncoder:
    """Factory of `sentence-transformers`: MODEL, or PICTURES+TEXTS.

    PICTURES and TEXTS are two models that share a space.  Each is a folder, the name of a folder in
    `models_dir`, or a model of the hub.  A folder whose own name has a plus sign is one model.

    Raises ModelUnavailable if a model is not available or takes no pictures.
    """
    if not argument:
        raise ModelUnavailable(
            "No model is named: use sentence-transformers:FOLDER or sentence-transformers:NAME."
        )
    folder = models_dir or default_models_dir()
    specs = split_pair(argument)
    folders = find_folders(specs, folder)
    return SentenceTransformersEncoder(
        "sentence-transformers:" + "+".join(map(portable, specs, folders)),
        folders[0],
        folders[1] if len(folders) > 1 else None,
        spec="sentence-transformers:" + "+".join(map(placed, specs, folders)),
        device=device,
    )


class SentenceTransformersEncoder:
    """A picture model and, for texts, the same or a second one in the same space.

    Only configuration files are read before the first `embed_` call; if they lack the number of
    dimensions, `dims` loads the picture model.
    """

    similarity = "cosine"

    def __init__(
        self,
        name: str,
        pictures: ModelFolder,
        texts: ModelFolder | None,
        *,
        spec: str | None = None,
        device: str = "auto",
    ) -> None:
        self.name = name
        self.spec = spec or name
        self._pictures = pictures
        self._texts = texts or pictures
        self._device = device
        self._processing = pictures.processing()
        self._picture_network = Network(
            "pictures",
            identity=lambda: f"{pictures.identity()} {self.fingerprint}",
            load=self._picture_module,
            examples=lambda: picture_examples(self.preparation),
            device=device,
            architecture=pictures.architecture,
            unload=self._unload,
        )
        self._text = TextModel(
            lambda: self._text_model,
            identity=self._texts.identity,
            device=device,
            unload=self._unload,
        )

    @property
    def supports_text(self) -> bool:
        """True if the model, or the second one, takes texts."""
        return self._texts is not self._pictures or self._pictures.takes_text

    @property
    def preparation(self) -> Preparation:
        """The model's own resizing and cropping."""
        return self._processing.preparation

    @cached_property
    def revision(self) -> str:
        """Hash of the weights of the model, or of both."""
        files = self._pictures.weight_files()
        if self._texts is not self._pictures:
            files += self._texts.weight_files()
        return weights_hash(files)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the preprocessing of pictures and texts."""
        parameters = {
            "preparation": self._processing.preparation,
            "rescale": self._processing.rescale,
            "mean": self._processing.mean,
            "deviation": self._processing.deviation,
            "truncate_dim": self._pictures.truncate_dim,
            "prompts": self._texts.prompts,
        }
        if self._texts.text_length is not None:
            parameters["text_length"] = self._texts.text_length
        return fingerprint(parameters)

    @cached_property
    def dims(self) -> int:
        """Length of a vector."""
        dims = self._pictures.dims()
        return int(self._picture_model.get_embedding_dimension()) if dims is None else dims

    def embed_images(self, pictures: Pixels) -> Vectors:
        """Return unit vectors of shape (n, dims) of pictures (n, height, width, 3)."""
        if len(pictures) == 0:
            return np.zeros((0, self.dims), dtype=np.float32)
        return self._checked(self._picture_network.rows({PICTURES: pictures}))

    @property
    def networks(self) -> Sequence[Network]:
        """The network of the pictures, and the one of the texts if there is one."""
        return [self._picture_network, *([self._text.network] if self.supports_text else [])]

    @property
    def batch_size(self) -> int:
        """Pictures of one forward pass."""
        return self._picture_network.batch_size

    def _picture_module(self) -> torch.nn.Module:
        from es_imgsearch.embed.runtime.torch import PictureNetwork

        return PictureNetwork(
            self._picture_model,
            rescale=self._processing.rescale,
            mean=self._processing.mean,
            deviation=self._processing.deviation,
            outputs=lambda model, pixels: model({"pixel_values": pixels, "modality": "image"})[
                "sentence_embedding"
            ],
        )

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of shape (n, dims).

        A text over the model's limit is cut.  Raises TextUnsupported for a model of pictures only.
        """
        if not self.supports_text:
            raise TextUnsupported(
                f"{self.name} embeds pictures only; search with a picture, or name a text model "
                f"of the same space: PICTURES+TEXTS."
            )
        if len(texts) == 0:
            return np.zeros((0, self.dims), dtype=np.float32)
        if self._texts.text_length is not None:
            # SigLIP was trained on lower-case texts; not every published tokenizer lowers them
            # (huggingface/transformers, pull request 43101).
            texts = [text.lower() for text in texts]
        return self._checked(self._text.rows(texts, "query"))

    def _checked(self, vectors: Any) -> Vectors:
        truncate = self._pictures.truncate_dim
        cut = vectors[:, :truncate] if truncate else vectors
        if cut.shape[1] != self.dims:
            raise ModelUnavailable(
                f"{self.name} gives pictures {self.dims} dimensions and texts {cut.shape[1]}; "
                f"the two models do not share a space."
            )
        return unit(cut)

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Return, for each text, whether it is longer than the model reads."""
        return self._text.truncated(texts)

    def _unload(self) -> None:
        for name in ("_picture_model", "_text_model"):
            self.__dict__.pop(name, None)

    @cached_property
    def _picture_model(self) -> Any:
        model = self._load(self._pictures)
        if "image" not in model.modalities:
            raise ModelUnavailable(f"The model in {self._pictures.path} takes no pictures.")
        return model

    @cached_property
    def _text_model(self) -> Any:
        if self._texts is self._pictures:
            return self._picture_model
        return self._load(self._texts)

    def _load(self, folder: ModelFolder) -> Any:
        model = load_model(folder, self._device)
        if (length := folder.text_length) is not None:
            model.max_seq_length = length
            model[0].processing_kwargs["text"] = {
                "padding": "max_length",
                "truncation": True,
                "max_length": length,
                "return_attention_mask": False,
            }
        return model
