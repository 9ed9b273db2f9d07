"""Save CLIP models of published architectures with random weights.

They load, and run, in the time of the real ones; only their answers mean nothing.
"""

from __future__ import annotations

import gzip
import itertools
import json
import shutil
import string
from pathlib import Path
from typing import Any

# What a search types has to be tokenized, the rest only fills the vocabulary to its real size.
_LETTERS = [*string.ascii_lowercase, *(f"{each}</w>" for each in string.ascii_lowercase)]
_PIXELS = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_processor_type": "CLIPImageProcessor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}


def save_vit_b_32(folder: Path) -> Path:
    """Save clip-ViT-B-32 in sentence-transformers' layout."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    tokens = [*_LETTERS, "<|startoftext|>", "<|endoftext|>"]
    torch.manual_seed(0)
    inner = folder / "0_CLIPModel"
    # The defaults of both halves are those of openai/clip-vit-base-patch32.
    CLIPModel(CLIPConfig(projection_dim=512)).save_pretrained(inner)
    CLIPTokenizer(
        vocab={token: at for at, token in enumerate(tokens)}, merges=[], model_max_length=77
    ).save_pretrained(inner)
    (inner / "preprocessor_config.json").write_text(json.dumps(_PIXELS))
    module = {
        "idx": 0,
        "name": "0",
        "path": "0_CLIPModel",
        "type": "sentence_transformers.models.CLIPModel",
    }
    (folder / "modules.json").write_text(json.dumps([module]))
    return folder


def save_clip_pair(folder: Path) -> Path:
    """Save both models of the encoder `clip`, named as in a models folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as parts
    from transformers import DistilBertConfig, DistilBertModel, DistilBertTokenizer

    save_vit_b_32(folder / "clip-ViT-B-32")
    size = 119547
    letters = [*string.ascii_lowercase, *(f"##{each}" for each in string.ascii_lowercase)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    words += [f"filler{number}" for number in range(size - len(words))]
    torch.manual_seed(1)
    plain = folder / "plain"
    # The other defaults are those of distilbert-base-multilingual-cased.
    DistilBertModel(DistilBertConfig(vocab_size=size)).save_pretrained(plain)
    vocabulary = {word: at for at, word in enumerate(words)}
    DistilBertTokenizer(vocab=vocabulary).save_pretrained(plain)
    modules = [parts.Transformer(str(plain)), parts.Pooling(768), parts.Dense(768, 512, bias=False)]
    texts = folder / "clip-ViT-B-32-multilingual-v1"
    SentenceTransformer(modules=modules, device="cpu").save(str(texts))
    shutil.rmtree(plain)
    return folder


def save_rclip(folder: Path) -> Path:
    """Save what rclip 3.3 downloads: ViT-B-32-256 of open_clip in ONNX, and a vocabulary."""
    import torch
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    common: dict[str, Any] = {"projection_dim": 512, "hidden_act": "gelu"}
    torch.manual_seed(2)
    vision = CLIPVisionModelWithProjection(CLIPVisionConfig(image_size=256, **common)).eval()
    text = CLIPTextModelWithProjection(CLIPTextConfig(**common)).eval()

    class Visual(torch.nn.Module):
        """Vectors only, as the files of rclip have it."""

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            rows: torch.Tensor = vision(pixel_values=pixels).image_embeds
            return rows

    class Textual(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            rows: torch.Tensor = text(input_ids=tokens).text_embeds
            return rows

    models = folder / "ViT-B-32-256-datacomp_s34b_b86k"
    models.mkdir(parents=True)
    tokens = torch.zeros(1, 77, dtype=torch.long)
    tokens[0, :3] = torch.tensor([49406, 320, 49407])
    for name, model, example in (
        ("visual", Visual(), torch.zeros(1, 3, 256, 256)),
        ("textual", Textual(), tokens),
    ):
        model.inner = vision if name == "visual" else text
        torch.onnx.export(
            model,
            (example,),
            models / f"{name}.onnx",
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
            opset_version=18,
            dynamo=False,
        )
    vocabulary = folder / "tokenizer" / "bpe_simple_vocab_16e6.txt.gz"
    vocabulary.parent.mkdir()
    # Of capitals, which the tokenizer never meets: it writes what it reads in small letters.
    pairs = itertools.product(string.ascii_uppercase, repeat=4)
    merges = [f"{a}{b} {c}{d}" for a, b, c, d in itertools.islice(pairs, 49152 - 256 - 2)]
    vocabulary.write_bytes(gzip.compress("\n".join(["#version", *merges]).encode()))
    return folder
