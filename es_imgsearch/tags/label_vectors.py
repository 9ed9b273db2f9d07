"""Embed labels once per machine, with a cache of files.

The default vocabulary takes `starter` 9 s on 2 cores.  Vectors are cached in the user's cache
folder, in files named by a hash of everything they depend on.  If a file cannot be read or written,
they are computed again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from es_imgsearch.describe.registry import TextEncoder
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.embed.protocol import query_vectors
from es_imgsearch.search.relevance import Floats

logger = logging.getLogger(__name__)

_BATCH_SIZE = 64


def load_label_vectors(encoder: TextEncoder, meta: Meta, texts: Sequence[str]) -> Floats:
    """Load or embed texts: unit vectors (n, dims), as the index stores vectors.

    `encoder` is the encoder of the index of this `meta`, see `writing_encoder`.
    """
    file = _cache_file(encoder, meta, texts)
    try:
        cached: Floats = np.load(file, allow_pickle=False)
        if cached.shape == (len(texts), encoder.dims) and cached.dtype == np.float32:
            return cached
    except (OSError, ValueError, EOFError):
        pass
    parts = [
        query_vectors(encoder, encoder.embed_texts, texts[start : start + _BATCH_SIZE])
        for start in range(0, len(texts), _BATCH_SIZE)
    ]
    vectors: Floats = np.concatenate(parts)
    _cache_vectors(file, vectors)
    return vectors


def _cache_file(encoder: TextEncoder, meta: Meta, texts: Sequence[str]) -> Path:
    from platformdirs import user_cache_dir

    reduction = meta.reduction.hash if meta.reduction else ""
    parts = [encoder.name, encoder.revision, encoder.fingerprint, reduction, *texts]
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
    return Path(user_cache_dir("es-imgsearch")) / "labels" / f"{digest}.npy"


def _cache_vectors(file: Path, vectors: Floats) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=file.parent, suffix=".part")
        with os.fdopen(descriptor, "wb") as part:
            np.save(part, vectors)
        os.replace(name, file)
    except OSError as error:
        logger.debug("Vectors of labels cannot be cached in %s: %s", file.parent, error)
