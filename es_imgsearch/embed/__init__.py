"""Encoders: pictures and texts in, unit vectors out.

Importing this package is cheap: torch, timm, transformers and sentence_transformers load
inside the first `embed_` call of an encoder that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "Encoder": "protocol",
    "FieldEncoder": "protocol",
    "Pixels": "protocol",
    "Vectors": "protocol",
    "batch_size": "runtime.network",
    "encoder_names": "registry",
    "is_encoder": "registry",
    "load_encoder": "registry",
    "spec_of": "registry",
}


def __getattr__(name: str) -> Any:
    # The connection to a running `serve` needs no NumPy, which the protocol imports.
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
