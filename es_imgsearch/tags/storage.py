"""Load and store vocabulary, classifier and training labels in `<index>-tags`.

They are stored with the index so that every machine gives the same tags.  Each is one document;
without a stored vocabulary the built-in one is used.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.store import Send, Store, get_companion
from es_imgsearch.errors import StoreDenied
from es_imgsearch.records import iso_timestamp
from es_imgsearch.tags.classifier import TagClassifier
from es_imgsearch.tags.vocabulary import Vocabulary, default_vocabulary, parse_vocabulary

_VOCABULARY: Final = "vocabulary"
_CLASSIFIER: Final = "head"
_TRAINING_LABELS: Final = "labelled"

logger = logging.getLogger(__name__)
# Indices of which this process has said that their tags are denied.
_warned: set[str] = set()


@dataclass(frozen=True, slots=True)
class StoredTags:
    """The vocabulary of an index, `is_default` if built in, and its classifier."""

    vocabulary: Vocabulary
    is_default: bool
    classifier: TagClassifier | None


@dataclass(frozen=True, slots=True)
class TrainingLabels:
    """The labels a classifier was trained on, written ``facet:label``, by image_id.

    `one_of` are the facets with one answer.
    """

    pictures: Mapping[str, Sequence[str]]
    one_of: Sequence[str]


def load_tags(index: str, send: Send) -> StoredTags:
    """Load vocabulary and classifier.  Raises FileInvalid or IndexConflict if damaged."""
    words, classifier = _load(index, _VOCABULARY, send), _load(index, _CLASSIFIER, send)
    vocabulary = (
        default_vocabulary()
        if words is None
        else parse_vocabulary(words["source"], f"the vocabulary of index {index!r}")
    )
    return StoredTags(
        vocabulary,
        words is None,
        None if classifier is None else TagClassifier.from_body(classifier, index),
    )


def load_training_labels(index: str, send: Send) -> TrainingLabels | None:
    """Load the labels that the classifier was trained on; None without a classifier."""
    body = _load(index, _TRAINING_LABELS, send)
    return None if body is None else TrainingLabels(body["pictures"], body["one_of"])


def store_vocabulary(store: Store, vocabulary: Vocabulary) -> None:
    """Store a vocabulary in place of the one before."""
    _put(store, _VOCABULARY, {"source": vocabulary.source})


def store_classifier(store: Store, classifier: TagClassifier, labels: TrainingLabels) -> None:
    """Store a classifier and the labels it was trained on; replace the one before."""
    _put(store, _TRAINING_LABELS, {"pictures": labels.pictures, "one_of": list(labels.one_of)})
    _put(store, _CLASSIFIER, classifier.to_body())


def delete_classifier(store: Store) -> bool:
    """Delete the classifier and its labels; return False if there was none."""
    deleted = [
        store.companions.delete(Companion.TAGS, name) for name in (_CLASSIFIER, _TRAINING_LABELS)
    ]
    return any(deleted)


def _put(store: Store, name: str, body: Mapping[str, Any]) -> None:
    document = {"stored_at": iso_timestamp(), "body": body}
    store.companions.put(Companion.TAGS, name, document)


def _warn_of_denial(index: str, error: StoreDenied) -> None:
    if index in _warned:
        return
    _warned.add(index)
    logger.warning(
        "%r cannot be read, so pictures get no tags of a classifier that was trained: give this key"
        " the right `read` on it, then run `es-imgsearch describe --only tags --index %s`. %s",
        Companion.TAGS.alias(index), index, error,
    )  # fmt: skip


def _load(index: str, name: str, send: Send) -> Mapping[str, Any] | None:
    try:
        document = get_companion(send, Companion.TAGS, index, name)
    except StoreDenied as error:
        # A key with access to the index of pictures only must be enough, for one without tags.
        _warn_of_denial(index, error)
        return None
    return None if document is None else document["body"]
