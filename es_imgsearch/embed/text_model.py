"""A sentence-transformers model's text side: in that library, or exported in ONNX Runtime."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from es_imgsearch.embed.network import Network
from es_imgsearch.embed.tokens import EXAMPLES, Task, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import torch

    from es_imgsearch.embed.network import Inputs
    from es_imgsearch.embed.protocol import Vectors

logger = logging.getLogger(__name__)


class TextModel:
    """Texts in, rows out; the library itself loads only where there is no export."""

    def __init__(
        self,
        model: Callable[[], Any],
        *,
        identity: Callable[[], str],
        device: str,
        unload: Callable[[], None],
    ) -> None:
        """`model` gives the loaded SentenceTransformer, always the same until `unload`."""
        self._model = model
        self._read: tuple[Path, Tokens] | None = None
        self.network = Network(
            "texts",
            identity=identity,
            load=self._module,
            examples=self._examples,
            device=device,
            files=lambda: Tokens.of(model()).files(),
            unload=unload,
        )

    def rows(self, texts: Sequence[str], task: Task) -> Vectors:
        """Rows of shape (n, width), float32, not of unit length; n is at least 1."""
        limit = self.max_tokens
        for text, count in zip(texts, self.token_counts(texts), strict=True):
            if limit is not None and count > limit:
                logger.info("a text of %d tokens was cut to %d: %.40s", count, limit, text)
        if self._tokens is not None:
            return self.network.rows(self._tokens.arrays(texts, task))
        model = self._model()
        encode = model.encode_query if task == "query" else model.encode_document
        rows: Vectors = encode(list(texts), show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(rows, np.float32)

    @property
    def max_tokens(self) -> int | None:
        """Where a text is cut; None where the model does not tell."""
        if self._tokens is not None:
            return self._tokens.max_tokens
        limit: int | None = self._model().max_seq_length
        return limit or None

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has before it is cut; 0 where the model does not tell."""
        if self._tokens is not None:
            return self._tokens.counts(texts)
        tokenizer = self._model().tokenizer
        if tokenizer is None:
            return [0] * len(texts)
        tokens: Mapping[str, Any] = tokenizer(list(texts), truncation=False, verbose=False)
        return [len(ids) for ids in tokens["input_ids"]]

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Of each text whether its end is beyond what the model reads."""
        limit = self.max_tokens
        return [limit is not None and count > limit for count in self.token_counts(texts)]

    @property
    def _tokens(self) -> Tokens | None:
        """Those of the export that runs, if one does."""
        folder = self.network.folder
        if folder is None:
            return None
        if self._read is None or self._read[0] != folder:
            self._read = (folder, Tokens.load(folder))
        return self._read[1]

    def _module(self) -> torch.nn.Module:
        from es_imgsearch.embed.torch_network import TextNetwork

        return TextNetwork(self._model())

    def _examples(self) -> list[Inputs]:
        tokens = Tokens.of(self._model())
        return [tokens.arrays(texts, "query") for texts in EXAMPLES]
