"""Embed texts with a sentence-transformers model.

It runs in that library, or in ONNX Runtime.  `Tokens` prepares texts without the library:
`Tokens.of` reads the parameters off a loaded model and checks them by examples.  They are stored
with the exported network, for processes that load no torch.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np

from es_imgsearch.embed.runtime.network import Network
from es_imgsearch.embed.weights import first_line, pick_device, quiet
from es_imgsearch.errors import ModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import torch

    from es_imgsearch.embed.model_folder import ModelFolder
    from es_imgsearch.embed.protocol import Vectors
    from es_imgsearch.embed.runtime.plan import Inputs


logger = logging.getLogger(__name__)

Task = Literal["query", "document"]

TOKENIZER: Final = "tokenizer.json"
_PARAMETERS: Final = "tokens.json"
# The inputs that a network can be exported with, in the order of its arguments.
_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")

_TASKS: Final[tuple[Task, ...]] = ("query", "document")
# The names that `encode_query` and `encode_document` look for.
_PROMPT_NAMES: Final = {"query": ("query",), "document": ("document", "passage", "corpus")}

_NO_LIMIT: Final = 1_000_000

# Scripts, lengths and spaces; the last is longer than an embedding model reads.
EXAMPLES: Final = (
    ("a cat", "a cat on a sofa, seen from above, in the evening light"),
    ("Ein Hund läuft über die Straße.",),
    ("猫が窓辺で眠っている", "собака", "قطة", "émoji 🐱", "", "  spaces\tand\nlines  "),
    ("a photograph of a red motorcycle " * 120, "short"),
)


class NotTokenizable(Exception):
    """The model prepares texts in a way that this module does not know."""


@dataclass(frozen=True)
class Tokens:
    """A tokenizer: n texts to arrays of shape (n, tokens), int64.

    `inputs` are their names.  A text is cut to `max_tokens` (None: no limit) and, with `is_fixed`,
    padded to it.  `prompts` are put in front of texts.
    """

    tokenizer: str
    inputs: tuple[str, ...]
    max_tokens: int | None
    is_fixed: bool
    pad_id: int
    pad_type_id: int
    prompts: Mapping[Task, str]

    @classmethod
    def of(cls, model: Any) -> Self:
        """Read the parameters off a loaded SentenceTransformer.  Raises NotTokenizable."""
        fast = getattr(model.tokenizer, "backend_tokenizer", None)
        if fast is None:
            raise NotTokenizable("its tokenizer is not of the library tokenizers")
        if model.tokenizer.padding_side != "right" or model.tokenizer.truncation_side != "right":
            raise NotTokenizable("its tokenizer pads or cuts on the left")
        prompts = {task: _prompt(model, task) for task in _TASKS}
        if any(prompts.values()) and not _pools_prompts(model):
            raise NotTokenizable("its prompts are left out of the mean")
        features = _features(model, EXAMPLES[0], "query")
        inputs = tuple(name for name in _INPUTS if name in features)
        if set(features) != set(inputs) or inputs != _INPUTS[: len(inputs)]:
            raise NotTokenizable(f"it takes {', '.join(features)}")
        # A tokenizer without a limit has one of 1e30.
        limit = model.max_seq_length if (model.max_seq_length or _NO_LIMIT) < _NO_LIMIT else None
        lengths = {_features(model, texts, "query")["input_ids"].shape[1] for texts in EXAMPLES}
        tokens = cls(
            fast.to_str(),
            inputs,
            limit,
            is_fixed=lengths == {limit},
            pad_id=model.tokenizer.pad_token_id or 0,
            pad_type_id=getattr(model.tokenizer, "pad_token_type_id", 0) or 0,
            prompts=prompts,
        )
        for task in _TASKS:
            for texts in EXAMPLES:
                expected, actual = _features(model, texts, task), tokens.arrays(texts, task)
                if not all(np.array_equal(actual[name], expected[name]) for name in inputs):
                    raise NotTokenizable(f"its tokens of {texts[0][:20]!r} differ")
        return tokens

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the files of `files` from a folder."""
        body = json.loads((folder / _PARAMETERS).read_text("utf-8"))
        body["inputs"] = tuple(body["inputs"])
        return cls(tokenizer=(folder / TOKENIZER).read_text("utf-8"), **body)

    def files(self) -> dict[str, bytes]:
        """Return names and contents of the files that `load` reads."""
        body = asdict(self)
        tokenizer = body.pop("tokenizer")
        return {TOKENIZER: tokenizer.encode(), _PARAMETERS: json.dumps(body, indent=2).encode()}

    def arrays(self, texts: Sequence[str], task: Task) -> Inputs:
        """Return the inputs of the network for at least one text, padded to the longest."""
        if self.max_tokens is not None:
            self._tokenizer.enable_truncation(self.max_tokens)
        prompt = self.prompts[task]
        encoded = self._tokenizer.encode_batch([prompt + text for text in texts])
        longest = max(len(each.ids) for each in encoded)
        if self.is_fixed and self.max_tokens is not None:
            longest = self.max_tokens
        shape = (len(texts), longest)
        filled = {
            "input_ids": np.full(shape, self.pad_id, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "token_type_ids": np.full(shape, self.pad_type_id, np.int64),
        }
        for at, each in enumerate(encoded):
            size = len(each.ids)
            filled["input_ids"][at, :size] = each.ids
            filled["attention_mask"][at, :size] = 1
            filled["token_type_ids"][at, :size] = each.type_ids
        return {name: filled[name] for name in self.inputs}

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has before it is cut."""
        self._tokenizer.no_truncation()
        return [len(each.ids) for each in self._tokenizer.encode_batch(list(texts))]

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.tokenizer)
        # The file may set both.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


def _prompt(model: Any, task: Task) -> str:
    for name in _PROMPT_NAMES[task]:
        if name in model.prompts:
            return model.prompts[name] or ""
    default = model.default_prompt_name
    return (model.prompts.get(default) or "") if default else ""


def _pools_prompts(model: Any) -> bool:
    return all(getattr(module, "include_prompt", True) for module in model)


def _features(model: Any, texts: Sequence[str], task: Task) -> dict[str, Any]:
    features = model.preprocess(list(texts), prompt=_prompt(model, task) or None, task=task)
    # Other values are for the library itself.
    return {name: value.numpy() for name, value in features.items() if hasattr(value, "numpy")}


def load_model(folder: ModelFolder, device: str) -> Any:
    """Load a folder as SentenceTransformer, float32.

    Raises ModelUnavailable if that fails.
    """
    torch_device = str(pick_device(device))
    try:
        with quiet():
            from sentence_transformers import SentenceTransformer

            model = SentenceTransformer(
                str(folder.path), device=torch_device, local_files_only=True
            )
    except Exception as error:
        raise ModelUnavailable(
            f"The model in {folder.path} cannot be loaded: {first_line(error)}."
        ) from error
    # Weights stored in half precision are slow on a CPU and differ between devices.
    return model.float().eval()


class TextModel:
    """The text side of a model; loads the library only if there is no export."""

    def __init__(
        self,
        model: Callable[[], Any],
        *,
        identity: Callable[[], str],
        device: str,
        unload: Callable[[], None],
    ) -> None:
        """`model` returns the loaded SentenceTransformer, the same one until `unload`."""
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
        """Return rows of shape (n, width), float32, not of unit length; n is at least 1."""
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
        """The number of tokens a text is cut to; None if the model names none."""
        if self._tokens is not None:
            return self._tokens.max_tokens
        limit: int | None = self._model().max_seq_length
        return limit or None

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has before it is cut; 0 without a tokenizer."""
        if self._tokens is not None:
            return self._tokens.counts(texts)
        tokenizer = self._model().tokenizer
        if tokenizer is None:
            return [0] * len(texts)
        tokens: Mapping[str, Any] = tokenizer(list(texts), truncation=False, verbose=False)
        return [len(ids) for ids in tokens["input_ids"]]

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Return, for each text, whether it is longer than the model reads."""
        limit = self.max_tokens
        return [limit is not None and count > limit for count in self.token_counts(texts)]

    @property
    def _tokens(self) -> Tokens | None:
        """The tokenizer of the export that runs, if one does."""
        folder = self.network.folder
        if folder is None:
            return None
        if self._read is None or self._read[0] != folder:
            self._read = (folder, Tokens.load(folder))
        return self._read[1]

    def _module(self) -> torch.nn.Module:
        from es_imgsearch.embed.runtime.torch import TextNetwork

        return TextNetwork(self._model())

    def _examples(self) -> list[Inputs]:
        tokens = Tokens.of(self._model())
        return [tokens.arrays(texts, "query") for texts in EXAMPLES]
