"""all-MiniLM-L6-v2 in numpy: sentence vectors without torch.

Importing sentence_transformers takes 18 s on a 2-core machine, torch alone 4 s; this forward
pass of a 6-layer BERT is ready in 0.2 s, and a single query has to wait for that.  It agrees with
sentence-transformers to a cosine of 0.99999 (`tests/unit/embed/test_encoders.py`).

Architecture: Devlin et al. 2018 (arXiv 1810.04805), as in `transformers`' BertModel; pooling
and normalising as in the model card of sentence-transformers/all-MiniLM-L6-v2: mean over the
tokens, unit length, at most 256 word pieces.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from es_imgsearch.records import unit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from es_imgsearch.embed.protocol import Vectors


logger = logging.getLogger(__name__)

_Array = npt.NDArray[np.float32]

DIMS: Final = 384
MAX_TOKENS: Final = 256
# Texts of one forward pass; sorted by length, so that padding costs little.
_BATCH: Final = 32


class MiniLM:
    """Sentence vectors of the model in `folder`.

    The folder has config.json, tokenizer.json and the safetensors.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        self._layers = int(config["num_hidden_layers"])
        self._heads = int(config["num_attention_heads"])
        self._epsilon = float(config["layer_norm_eps"])
        self._weights: dict[str, _Array] = load_file(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # The file sets both, to 128 tokens.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return vectors of shape (n, 384), unit length."""
        tokens = [self._cut(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors = np.zeros((len(tokens), DIMS), dtype=np.float32)
        order = sorted(range(len(tokens)), key=lambda at: len(tokens[at]))
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            vectors[chosen] = self._forward([tokens[at] for at in chosen])
        return unit(vectors)

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Return, for each text, whether `encode` cuts it."""
        return [len(each.ids) > MAX_TOKENS for each in self._tokenizer.encode_batch(list(texts))]

    def _cut(self, ids: list[int]) -> list[int]:
        if len(ids) <= MAX_TOKENS:
            return ids
        logger.info("a text of %d tokens was cut to %d", len(ids), MAX_TOKENS)
        return [*ids[: MAX_TOKENS - 1], ids[-1]]  # keep the closing [SEP]

    def _forward(self, rows: list[list[int]]) -> _Array:
        longest = max(len(row) for row in rows)
        ids = np.zeros((len(rows), longest), dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=np.float32)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
            mask[at, : len(row)] = 1
        weights = self._weights
        hidden = (
            weights["embeddings.word_embeddings.weight"][ids]
            + weights["embeddings.position_embeddings.weight"][:longest]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        hidden = self._norm(hidden, "embeddings.LayerNorm")
        bias = np.where(mask > 0, np.float32(0), np.float32(-1e9))[:, None, None, :]
        for layer in range(self._layers):
            name = f"encoder.layer.{layer}"
            attended = self._attend(hidden, bias, f"{name}.attention.self")
            attended = self._linear(attended, f"{name}.attention.output.dense")
            hidden = self._norm(hidden + attended, f"{name}.attention.output.LayerNorm")
            widened = _gelu(self._linear(hidden, f"{name}.intermediate.dense"))
            narrowed = self._linear(widened, f"{name}.output.dense")
            hidden = self._norm(hidden + narrowed, f"{name}.output.LayerNorm")
        counted = mask[..., None]
        mean: _Array = (hidden * counted).sum(axis=1) / counted.sum(axis=1)
        return mean

    def _attend(self, hidden: _Array, bias: _Array, name: str) -> _Array:
        query, key, value = (self._split(hidden, f"{name}.{part}") for part in _PARTS)
        scores = query @ key.swapaxes(-1, -2) / np.float32(np.sqrt(query.shape[-1])) + bias
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed: _Array = (scores @ value).swapaxes(1, 2).reshape(hidden.shape)
        return mixed

    def _split(self, hidden: _Array, name: str) -> _Array:
        texts, tokens, width = hidden.shape
        split = self._linear(hidden, name).reshape(texts, tokens, self._heads, width // self._heads)
        return split.swapaxes(1, 2)

    def _linear(self, rows: _Array, name: str) -> _Array:
        # One matrix product for the whole batch; numpy would multiply text by text.
        flat = rows.reshape(-1, rows.shape[-1]) @ self._weights[f"{name}.weight"].T
        return (flat + self._weights[f"{name}.bias"]).reshape(*rows.shape[:-1], -1)

    def _norm(self, rows: _Array, name: str) -> _Array:
        centred = rows - rows.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + np.float32(self._epsilon))
        moved: _Array = scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return moved


_PARTS: Final = ("query", "key", "value")


def _gelu(rows: _Array) -> _Array:
    return np.float32(0.5) * rows * (1 + _erf(rows * np.float32(np.sqrt(0.5))))


def _erf(rows: _Array) -> _Array:
    # Abramowitz and Stegun 1964, formula 7.1.26: off by at most 1.5e-7; numpy has no erf.
    size = np.abs(rows)
    t = 1 / (1 + np.float32(0.3275911) * size)
    polynomial = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        polynomial = (polynomial + np.float32(factor)) * t
    erf: _Array = np.sign(rows) * (1 - polynomial * np.exp(-size * size))
    return erf
