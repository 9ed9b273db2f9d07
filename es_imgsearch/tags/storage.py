"""Load and store vocabulary, trained classifier and training labels in `<index>-tags`.

They are stored with the index so that every machine gives the same tags.  Each is one document;
without a stored vocabulary the built-in one is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from es_imgsearch.elastic.mapping import tags_alias, tags_body
from es_imgsearch.elastic.requests import Talk
from es_imgsearch.elastic.store import Store, keep_beside, kept_beside
from es_imgsearch.errors import ImageMissing, IndexMissing, StoreDenied
from es_imgsearch.records import iso_timestamp
from es_imgsearch.tags.classifier import TagClassifier
from es_imgsearch.tags.vocabulary import Vocabulary, default_vocabulary, parse_vocabulary

_VOCABULARY: Final = "vocabulary"
_HEAD: Final = "head"
_LABELLED: Final = "labelled"


@dataclass(frozen=True, slots=True)
class KeptTags:
    """The vocabulary of an index, `is_default` if built in, and its classifier, if trained."""

    vocabulary: Vocabulary
    is_default: bool
    classifier: TagClassifier | None


@dataclass(frozen=True, slots=True)
class Labelled:
    """The labels a classifier was trained on, written ``facet:label``, by image_id.

    `one_of` are the facets with one answer.
    """

    pictures: Mapping[str, Sequence[str]]
    one_of: Sequence[str]


def kept_tags(index: str) -> Talk[KeptTags]:
    """What is kept beside this index.  Raises FileInvalid or IndexConflict if damaged."""
    words = yield from _body(index, _VOCABULARY)
    head = yield from _body(index, _HEAD)
    vocabulary = (
        default_vocabulary()
        if words is None
        else parse_vocabulary(words["source"], f"the vocabulary of index {index!r}")
    )
    return KeptTags(
        vocabulary,
        words is None,
        None if head is None else TagClassifier.from_body(head, index),
    )


def kept_labelled(index: str) -> Talk[Labelled | None]:
    """What the head of this index was trained on; None where there is none."""
    body = yield from _body(index, _LABELLED)
    return None if body is None else Labelled(body["pictures"], body["one_of"])


def store_vocabulary(store: Store, vocabulary: Vocabulary) -> None:
    """Store a vocabulary in place of the one before."""
    _put(store, _VOCABULARY, {"source": vocabulary.source})


def store_classifier(store: Store, classifier: TagClassifier, labels: Labelled) -> None:
    """Store a classifier, and the labels it was trained on, in place of the one before."""
    _put(store, _LABELLED, {"pictures": labels.pictures, "one_of": list(labels.one_of)})
    _put(store, _HEAD, classifier.to_body())


def delete_classifier(store: Store) -> bool:
    """Delete the classifier and its labels; return False if there was none."""
    found = False
    for name in (_HEAD, _LABELLED):
        try:
            store.request("DELETE", f"/{tags_alias(store.index)}/_doc/{name}?refresh=true")
            found = True
        except (IndexMissing, ImageMissing):
            continue
    return found


def _put(store: Store, name: str, body: Mapping[str, Any]) -> None:
    document = {"stored_at": iso_timestamp(), "body": body}
    keep_beside(store, tags_alias(store.index), tags_body(), name, document)


def _body(index: str, name: str) -> Talk[Mapping[str, Any] | None]:
    try:
        document = yield from kept_beside(tags_alias(index), name)
    except StoreDenied:
        # A key with access to the index of pictures only must be enough for searching.
        return None
    return None if document is None else document["body"]
