"""`<index>-tags`: the vocabulary, the trained head, and the labels it was trained on.

Stored next to the index, so that every machine gives the same tags.

Three documents at most, by these ids; where there is none, the vocabulary that ships is used.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from es_imgsearch.describe.registry import TextEncoder
from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.store import Send, Store, get_companion
from es_imgsearch.embed.protocol import query_vectors
from es_imgsearch.errors import StoreDenied
from es_imgsearch.records import iso_timestamp
from es_imgsearch.search.relevance import Floats
from es_imgsearch.tags.classifier import Head
from es_imgsearch.tags.vocabulary import Vocabulary, default_vocabulary, parse_vocabulary

_VOCABULARY: Final = "vocabulary"
_HEAD: Final = "head"
_LABELLED: Final = "labelled"


@dataclass(frozen=True, slots=True)
class KeptTags:
    """`is_default`: the vocabulary is the one that ships; `head` is None where none was trained."""

    vocabulary: Vocabulary
    is_default: bool
    head: Head | None


@dataclass(frozen=True, slots=True)
class Labelled:
    """What a head was trained on: labels, written ``facet:label``, by image_id.

    `one_of` are the facets of one answer.
    """

    pictures: Mapping[str, Sequence[str]]
    one_of: Sequence[str]


def kept_tags(index: str, send: Send) -> KeptTags:
    """What is stored for this index.  Raises FileInvalid or IndexConflict if damaged."""
    words, head = _body(index, _VOCABULARY, send), _body(index, _HEAD, send)
    vocabulary = (
        default_vocabulary()
        if words is None
        else parse_vocabulary(words["source"], f"the vocabulary of index {index!r}")
    )
    return KeptTags(
        vocabulary, words is None, None if head is None else Head.from_body(head, index)
    )


def kept_labelled(index: str, send: Send) -> Labelled | None:
    """The labels that the head of this index was trained on; None where there is none."""
    body = _body(index, _LABELLED, send)
    return None if body is None else Labelled(body["pictures"], body["one_of"])


def keep_vocabulary(store: Store, vocabulary: Vocabulary) -> None:
    _put(store, _VOCABULARY, {"source": vocabulary.source})


def keep_head(store: Store, head: Head, labelled: Labelled) -> None:
    """Store a head, and what it was trained on, in place of the one before."""
    _put(store, _LABELLED, {"pictures": labelled.pictures, "one_of": list(labelled.one_of)})
    _put(store, _HEAD, head.to_body())


def forget_head(store: Store) -> bool:
    """Remove the head and its labels; False where there was none."""
    removed = [store.companions.delete(Companion.TAGS, name) for name in (_HEAD, _LABELLED)]
    return any(removed)


def _put(store: Store, name: str, body: Mapping[str, Any]) -> None:
    document = {"stored_at": iso_timestamp(), "body": body}
    store.companions.put(Companion.TAGS, name, document)


def _body(index: str, name: str, send: Send) -> Mapping[str, Any] | None:
    try:
        document = get_companion(send, Companion.TAGS, index, name)
    except StoreDenied:
        # A key may be good for the pictures' index alone, which has to be enough.
        return None
    return None if document is None else document["body"]


# Vectors of labels, made once a machine: the default vocabulary took `starter` 9 s on 2 cores.
#
# They lie in the user's cache folder, by everything they depend on; what cannot be read or written
# there is made again.

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
    _cache_vectors(file, found)
    return found


def _file(encoder: TextEncoder, meta: Meta, texts: Sequence[str]) -> Path:
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
        logger.debug("Vectors of labels are not kept in %s: %s", file.parent, error)
