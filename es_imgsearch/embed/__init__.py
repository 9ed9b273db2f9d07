"""Encoders: pictures and texts in, unit vectors out.

Importing this package is cheap: torch, timm, transformers and sentence_transformers load
inside the first `embed_` call of an encoder that needs them.
"""

from es_imgsearch.embed.protocol import Encoder, FieldEncoder, Pixels, Vectors
from es_imgsearch.embed.registry import encoder_names, is_encoder, load_encoder, spec_of
from es_imgsearch.embed.runtime.network import batch_size

__all__ = [
    "Encoder",
    "FieldEncoder",
    "Pixels",
    "Vectors",
    "batch_size",
    "encoder_names",
    "is_encoder",
    "load_encoder",
    "spec_of",
]
