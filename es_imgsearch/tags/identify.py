"""What is it: tags of a picture, and a vote of the stored pictures nearest to it.

The vote is how products are named: who is nearest and has a name gives it.  A neighbour's vote
counts as much as the hit is relevant, so that ten that hardly fit do not outvote one that does
(k-nearest neighbours weighted by their nearness, Dudani 1976, IEEE Transactions SMC-6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from es_imgsearch.embed.context import open_encoder
from es_imgsearch.embed.protocol import embed_queries
from es_imgsearch.errors import UsageError
from es_imgsearch.search.query import Box, QueryPicture, open_query_picture
from es_imgsearch.tags.describer import LEAST_SCORE, Tagger, tagger_of

if TYPE_CHECKING:
    from es_imgsearch.search.client import ImageSearch
    from es_imgsearch.search.hits import Hit


UNKNOWN: Final = "unknown"
# Fields that name what is on a picture, the most specific first.
NAMING_FIELDS: Final = ("product_id", "title", "tags")
# Types of fields that have parts, as hits carry them.
_OBJECTS: Final = {"flattened", "object", "nested"}
DEFAULT_NEIGHBOURS: Final = 10
DEFAULT_MIN_RELEVANCE: Final = 0.3


@dataclass(frozen=True, slots=True)
class Label:
    """A word of the vocabulary or of the head, and its score; `is_tag` from its threshold on."""

    facet: str
    label: str
    score: float
    is_tag: bool
    is_trained: bool


@dataclass(frozen=True, slots=True)
class Vote:
    """A name that neighbours have in a field.

    `share` is theirs of the votes in this field, `relevance` the largest among those who gave it,
    None where it cannot be told; `pictures` are their image_ids, nearest first.
    """

    field: str
    name: str
    share: float
    relevance: float | None
    pictures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Identified:
    """`answer` is a name, or ``unknown``; `by` the field or facet it comes from, None if unknown.

    `labels` and `votes` are what it was chosen from, best first; `notes` say what a person should
    know.
    """

    answer: str
    by: str | None
    labels: tuple[Label, ...]
    votes: tuple[Vote, ...]
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `identify --json` prints them."""
        return asdict(self)


def identify(
    search: ImageSearch,
    picture: QueryPicture,
    *,
    box: Box | None = None,
    neighbours: int = DEFAULT_NEIGHBOURS,
    min_relevance: float = DEFAULT_MIN_RELEVANCE,
    fields: Sequence[str] = NAMING_FIELDS,
) -> Identified:
    """Say what a picture shows.

    The answer is the name with the most votes, of those given by a neighbour of at least
    `min_relevance`, in the first of `fields` that has any; else the label with the best score among
    those that are tags, whatever its facet, which is the first of the `tags` that a document of
    this picture would have; else ``unknown``.  Without relevance (see `es-imgsearch calibrate`)
    votes are shown and do not answer.  `fields` may be parts of objects, ``attributes.brand``.

    Raises QueryPictureInvalid, and UsageError for `neighbours` or `min_relevance` out of range or
    a field that the index has not.
    """
    if not 0.0 <= min_relevance <= 1.0:
        raise UsageError(f"min_relevance must be from 0 to 1, not {min_relevance:g}.")
    if not fields:
        raise UsageError("Name a field at least by which neighbours vote, such as title.")
    _check_fields(fields, search)
    image = open_query_picture(picture, box, max_pixels=search.settings.max_pixels)
    hits = search.search_image(image, k=neighbours, collapse=True, fields=[*fields, "content_id"])
    tagger, labels = _labels(search, image)
    votes = [vote for name in fields for vote in _votes(hits, name)]
    notes = [] if tagger.note is None else [tagger.note]
    if hits and all(hit.relevance is None for hit in hits):
        notes.append(
            f"Index {search.store.index!r} cannot tell relevance, so neighbours do not answer:"
            f" label some pictures and run `es-imgsearch calibrate LABELS --index"
            f" {search.store.index}`."
        )
    answer, by = _answer(votes, labels, min_relevance)
    return Identified(answer, by, tuple(labels), tuple(votes), tuple(notes))


def _labels(search: ImageSearch, image: Any) -> tuple[Tagger, list[Label]]:
    info = search.info
    encoder = open_encoder(search.store, info, search.settings, search.encoder)
    pixels = np.stack([encoder.preparation.apply(image)])
    vectors = embed_queries(encoder, encoder.embed_images, pixels)
    tagger = tagger_of(search.store.index, info.meta, encoder, search.store.send)
    found = []
    for facet in tagger.scores(vectors):
        scored = [
            Label(
                facet.facet,
                label,
                round(float(facet.scores[0, n]), 4),
                bool(facet.holds[0, n]),
                facet.is_trained,
            )
            for n, label in enumerate(facet.labels)
        ]
        shown = [each for each in scored if each.is_tag or each.score >= LEAST_SCORE]
        found += sorted(shown, key=lambda each: (not each.is_tag, -each.score))
    return tagger, found


def _votes(hits: Sequence[Hit], name: str) -> list[Vote]:
    """What the hits say in one field, the largest share first."""
    weights: dict[str, float] = {}
    given: dict[str, list[Hit]] = {}
    for hit in hits:
        names = _values(hit.fields, name)
        weight = max(0.0, hit.score) if hit.relevance is None else hit.relevance
        for each in dict.fromkeys(names):
            weights[each] = weights.get(each, 0.0) + weight
            given.setdefault(each, []).append(hit)
    # A neighbour with several tags gives each of them its whole vote.
    voters = {hit.image_id: hit for each in given.values() for hit in each}.values()
    total = sum(max(0.0, hit.score) if hit.relevance is None else hit.relevance for hit in voters)
    votes = [
        Vote(
            name,
            each,
            round(weights[each] / total, 4) if total else 0.0,
            max((hit.relevance for hit in of if hit.relevance is not None), default=None),
            tuple(hit.image_id for hit in of),
        )
        for each, of in given.items()
    ]
    return sorted(votes, key=lambda vote: (-vote.share, -(vote.relevance or 0.0), vote.name))


def _answer(
    votes: Sequence[Vote], labels: Sequence[Label], min_relevance: float
) -> tuple[str, str | None]:
    for vote in votes:
        if vote.relevance is not None and vote.relevance >= min_relevance:
            return vote.name, vote.field
    tags = [label for label in labels if label.is_tag]
    if tags:
        best = min(tags, key=lambda label: (-label.score, label.label))
        return best.label, best.facet
    return UNKNOWN, None


def _check_fields(fields: Sequence[str], search: ImageSearch) -> None:
    kinds = {
        name: mapping.get("type", "object")
        for name, mapping in search.info.properties.items()
        if mapping.get("type") != "dense_vector"
    }
    for name in fields:
        top, _, part = name.partition(".")
        if top not in kinds or (part and kinds[top] not in _OBJECTS):
            raise UsageError(
                f"Index {search.store.index!r} has no field {name!r} by which neighbours could"
                f" vote (an attribute is written attributes.NAME); there are"
                f" {', '.join(sorted(kinds))}."
            )


def _values(fields: Any, name: str) -> list[str]:
    """What stands in a field, as texts; the name may lead into objects, and be one with dots."""
    if isinstance(fields, list):
        return [value for each in fields for value in _values(each, name)]
    if not name:
        return [] if fields is None or isinstance(fields, Mapping) else [str(fields)]
    if not isinstance(fields, Mapping):
        return []
    found: list[str] = []
    for key, value in fields.items():
        if name == key:
            found += _values(value, "")
        elif name.startswith(f"{key}."):
            found += _values(value, name[len(key) + 1 :])
    return found
