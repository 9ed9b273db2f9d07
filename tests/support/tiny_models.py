"""Models of real architectures in their published layouts: tiny, with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def make_clip(folder: Path) -> None:
    """As sentence-transformers/clip-ViT-B-32."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    ends = [f"{letter}</w>" for letter in _LETTERS]
    tokens = [*_LETTERS, *ends, "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: at for at, token in enumerate(tokens)}
    sizes = {**_SIZES, "projection_dim": 16}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            projection_dim=16,
            vision_config={**sizes, "image_size": 64, "patch_size": 16},
            text_config={
                **sizes,
                "vocab_size": len(tokens),
                "max_position_embeddings": 77,
                "bos_token_id": len(tokens) - 2,
                "eos_token_id": len(tokens) - 1,
            },
        )
    )
    inner = folder / "0_CLIPModel"
    model.save_pretrained(inner)
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77).save_pretrained(inner)
    # As the published model has it: bare numbers, the old class name.
    settings = {
        "crop_size": 64,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": 64,
    }
    (inner / "preprocessor_config.json").write_text(json.dumps(settings))
    modules = [
        {
            "idx": 0,
            "name": "0",
            "path": "0_CLIPModel",
            "type": "sentence_transformers.models.CLIPModel",
        }
    ]
    (folder / "modules.json").write_text(json.dumps(modules))


def make_text_model(folder: Path, dims: int = 16) -> None:
    """As sentence-transformers/clip-ViT-B-32-multilingual-v1."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as parts
    from transformers import BertConfig, BertModel, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "ein", "hund"]
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=40,
    )
    plain = folder.parent / "plain-bert"
    BertModel(config).save_pretrained(plain)
    BertTokenizer(vocab={word: at for at, word in enumerate(words)}).save_pretrained(plain)
    transformer = parts.Transformer(str(plain))
    modules = [transformer, parts.Pooling(32), parts.Dense(32, dims, bias=False)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    shutil.rmtree(plain)


def make_clip_pair(folder: Path) -> Path:
    """Laid out like the real `clip`: tiny, with random weights, in 16 dimensions; the folder."""
    make_clip(folder / "clip-ViT-B-32")
    make_text_model(folder / "clip-ViT-B-32-multilingual-v1")
    return folder


def make_open_clip(folder: Path) -> None:
    """As LAION publishes its models: a plain transformers checkpoint, and open_clip's beside it."""
    make_clip(folder)
    inner = folder / "0_CLIPModel"
    for file in inner.iterdir():
        shutil.move(file, folder / file.name)
    inner.rmdir()
    (folder / "modules.json").unlink()
    (folder / "open_clip_model.safetensors").write_bytes(b"the same weights, other names")
    (folder / "open_clip_config.json").write_text("{}")


def make_siglip(folder: Path) -> None:
    """As google/siglip2-base-patch16-224: SigLIP's classes with Gemma's tokenizer."""
    import torch
    from transformers import GemmaTokenizer, SiglipConfig, SiglipModel

    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *_LETTERS]
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    text = {**_SIZES, **special, "vocab_size": len(tokens), "projection_size": 32}
    torch.manual_seed(2)
    config = SiglipConfig(
        text_config=text, vision_config={**_SIZES, "image_size": 64, "patch_size": 16}
    )
    SiglipModel(config).save_pretrained(folder)
    vocabulary = {token: at for at, token in enumerate(tokens)}
    GemmaTokenizer(
        vocab=vocabulary, merges=[], add_bos_token=False, add_eos_token=True, padding_side="right"
    ).save_pretrained(folder)
    settings = {
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SiglipImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "SiglipProcessor",
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": 64, "width": 64},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def make_captioner(folder: Path, seed: int = 3) -> None:
    """As nlpconnect/vit-gpt2-image-captioning; its words are letters."""
    import torch
    from transformers import (
        GPT2Config,
        GPT2Tokenizer,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
    )

    tokens = ["<|endoftext|>", *_LETTERS, *(f"Ġ{letter}" for letter in _LETTERS)]
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "decoder_start_token_id": 0}
    vision = ViTConfig(**_SIZES, image_size=64, patch_size=16, initializer_range=0.3)
    text = GPT2Config(
        vocab_size=len(tokens),
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        is_decoder=True,
        add_cross_attention=True,
        # Wide enough for what it writes to depend on the picture.
        initializer_range=0.5,
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text, **ends)
    torch.manual_seed(seed)
    model = VisionEncoderDecoderModel(config)
    model.generation_config.update(**ends)
    model.save_pretrained(folder)
    vocabulary = {token: at for at, token in enumerate(tokens)}
    GPT2Tokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    settings = {
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "ViTFeatureExtractor",
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
        "size": 64,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
