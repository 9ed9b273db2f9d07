"""`<index>-tags`: what tags are given by, kept beside the index, so that every machine gives the
same ones: the vocabulary, the trained head, and the labels it was trained on.

Three documents at most, by these ids; where there is none, the vocabulary that ships is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from es_imgsearch.beside import keep_beside, kept_beside
from es_imgsearch.errors import ImageMissing, IndexMissing, StoreDenied
from es_imgsearch.mapping import tags_alias, tags_body
from es_imgsearch.store import Store
from es_imgsearch.tags.heads import Head
from es_imgsearch.tags.vocabulary import Vocabulary, default_vocabulary, parse_vocabulary
from es_imgsearch.talk import Talk

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


def kept_tags(index: str) -> Talk[KeptTags]:
    """What is kept beside this index.  Raises VocabularyInvalid or IndexConflict if damaged."""
    words = yield from _body(index, _VOCABULARY)
    head = yield from _body(index, _HEAD)
    vocabulary = (
        default_vocabulary()
        if words is None
        else parse_vocabulary(words["source"], f"the vocabulary of index {index!r}")
    )
    return KeptTags(
        vocabulary, words is None, None if head is None else Head.from_body(head, index)
    )


def kept_labelled(index: str) -> Talk[Labelled | None]:
    """What the head of this index was trained on; None where there is none."""
    body = yield from _body(index, _LABELLED)
    return None if body is None else Labelled(body["pictures"], body["one_of"])


def keep_vocabulary(store: Store, vocabulary: Vocabulary) -> None:
    _keep(store, _VOCABULARY, {"source": vocabulary.source})


def keep_head(store: Store, head: Head, labelled: Labelled) -> None:
    """Store a head, and what it was trained on, in place of the one before."""
    _keep(store, _LABELLED, {"pictures": labelled.pictures, "one_of": list(labelled.one_of)})
    _keep(store, _HEAD, head.to_body())


def forget_head(store: Store) -> bool:
    """Remove the head and its labels; False where there was none."""
    found = False
    for name in (_HEAD, _LABELLED):
        try:
            store.request("DELETE", f"/{tags_alias(store.index)}/_doc/{name}?refresh=true")
            found = True
        except (IndexMissing, ImageMissing):
            continue
    return found


def _keep(store: Store, name: str, body: Mapping[str, Any]) -> None:
    document = {"stored_at": datetime.now(tz=UTC).isoformat(timespec="seconds"), "body": body}
    keep_beside(store, tags_alias(store.index), tags_body(), name, document)


def _body(index: str, name: str) -> Talk[Mapping[str, Any] | None]:
    try:
        document = yield from kept_beside(tags_alias(index), name)
    except StoreDenied:
        # A key may be good for the pictures' index alone, which has to be enough.
        return None
    return None if document is None else document["body"]
