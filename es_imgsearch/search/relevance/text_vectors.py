"""Embed fixed texts once per machine, with a cache of files.

The 399 labels of the default vocabulary take `starter` 9 s on 2 cores.  Vectors are cached in the
user's cache folder, in files named by a hash of everything they depend on.  If a file cannot be
read or written, they are computed again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from es_imgsearch.files.whole import replace_whole
from es_imgsearch.search.relevance.model import Floats

logger = logging.getLogger(__name__)

_BATCH_SIZE = 64


def load_text_vectors(
    key: Sequence[str], texts: Sequence[str], embed: Callable[[Sequence[str]], Floats]
) -> Floats:
    """Load or embed texts: vectors of shape (n, dims), as `embed` computes them.

    `key` names what the vectors depend on besides the texts: encoder, revision, fingerprint.
    """
    file = _cache_file(key, texts)
    try:
        cached: Floats = np.load(file, allow_pickle=False)
        if cached.ndim == 2 and len(cached) == len(texts) and cached.dtype == np.float32:
            return cached
    except (OSError, ValueError, EOFError):
        pass
    parts = [
        embed(texts[start : start + _BATCH_SIZE]) for start in range(0, len(texts), _BATCH_SIZE)
    ]
    vectors: Floats = np.concatenate(parts)
    _cache_vectors(file, vectors)
    return vectors


def _cache_file(key: Sequence[str], texts: Sequence[str]) -> Path:
    from platformdirs import user_cache_dir

    digest = hashlib.blake2b("\0".join([*key, *texts]).encode(), digest_size=16).hexdigest()
    return Path(user_cache_dir("es-imgsearch")) / "labels" / f"{digest}.npy"


def _cache_vectors(file: Path, vectors: Floats) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_whole(file, lambda unfinished: np.save(unfinished, vectors))
    except OSError as error:
        logger.debug("Vectors of texts cannot be cached in %s: %s", file.parent, error)
