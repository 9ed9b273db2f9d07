"""Embed the labels of a vocabulary once per machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from es_imgsearch.describe.registry import TextEncoder
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.embed.protocol import embed_queries
from es_imgsearch.search.relevance import Floats, load_text_vectors


def load_label_vectors(encoder: TextEncoder, meta: Meta, texts: Sequence[str]) -> Floats:
    """Load or embed texts: unit vectors (n, dims), as the index stores vectors.

    `encoder` is the encoder of the index of this `meta`, see `open_encoder`.
    """
    reduction = meta.reduction.hash if meta.reduction else ""
    key = [encoder.name, encoder.revision, encoder.fingerprint, str(encoder.dims), reduction]
    return load_text_vectors(key, texts, partial(embed_queries, encoder, encoder.embed_texts))
