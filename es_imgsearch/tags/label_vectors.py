"""Vectors of labels, made once a machine: the default vocabulary took `starter` 9 s on 2 cores.

They lie in the user's cache folder, by everything they depend on; what cannot be read or written
there is made again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from es_imgsearch.describe import TextEncoder
from es_imgsearch.embed.output import query_vectors
from es_imgsearch.mapping import Meta
from es_imgsearch.relevance import Floats

logger = logging.getLogger(__name__)

_AT_ONCE = 64


def label_vectors(encoder: TextEncoder, meta: Meta, texts: Sequence[str]) -> Floats:
    """Unit vectors of these texts, of shape (n, dims), as the index stores vectors.

    `encoder` is the one that writes into the index of this `meta`, see `sealing.writing_encoder`.
    """
    file = _file(encoder, meta, texts)
    try:
        kept: Floats = np.load(file, allow_pickle=False)
        if kept.shape == (len(texts), encoder.dims) and kept.dtype == np.float32:
            return kept
    except (OSError, ValueError, EOFError):
        pass
    parts = [
        query_vectors(encoder, encoder.embed_texts, texts[start : start + _AT_ONCE])
        for start in range(0, len(texts), _AT_ONCE)
    ]
    found: Floats = np.concatenate(parts)
    _keep(file, found)
    return found


def _file(encoder: TextEncoder, meta: Meta, texts: Sequence[str]) -> Path:
    from platformdirs import user_cache_dir

    reduction = meta.reduction.hash if meta.reduction else ""
    parts = [encoder.name, encoder.revision, encoder.fingerprint, reduction, *texts]
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
    return Path(user_cache_dir("es-imgsearch")) / "labels" / f"{digest}.npy"


def _keep(file: Path, vectors: Floats) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=file.parent, suffix=".part")
        with os.fdopen(descriptor, "wb") as part:
            np.save(part, vectors)
        os.replace(name, file)
    except OSError as error:
        logger.debug("Vectors of labels are not kept in %s: %s", file.parent, error)
