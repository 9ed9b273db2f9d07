"""Identify a picture by its tags and by a vote of its nearest stored pictures.

The vote names products: the nearest pictures that have a name vote for it.  A vote's weight is the
relevance of the hit, so that ten poor matches do not outvote a good one (distance-weighted
k-nearest neighbours, Dudani 1976, IEEE Transactions SMC-6).

Every facet of tags answers for itself, since "animals" and "duck" are both right.  Of what pictures
show, the most specific comes first: the tag that the fewest pictures of the index have (information
content, Resnik 1995).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from es_imgsearch.embed.context import open_encoder
from es_imgsearch.embed.protocol import embed_queries
from es_imgsearch.errors import UsageError
from es_imgsearch.search.query import QueryBox, QueryPicture, open_query_picture
from es_imgsearch.search.relevance import MIN_BACKGROUND, load_background
from es_imgsearch.tags.describer import MIN_SCORE, Tagger, load_tagger
from es_imgsearch.tags.train import TRAINED, ZERO_SHOT
from es_imgsearch.tags.vocabulary import ONE

if TYPE_CHECKING:
    from es_imgsearch.search.client import ImageSearch
    from es_imgsearch.search.hits import Hit


UNKNOWN: Final = "unknown"
NEIGHBOURS: Final = "neighbours"
TAGS: Final = "tags"
# Votes for a tag that decide before the picture's own tags.
_MAJORITY = 0.5
# Fields that name the content of a picture, the most specific first.
NAMING_FIELDS: Final = ("product_id", "title", "tags")
# Types of fields with parts, such as attributes.brand.
_OBJECT_TYPES: Final = {"flattened", "object", "nested"}
DEFAULT_NEIGHBOURS: Final = 10
DEFAULT_MIN_RELEVANCE: Final = 0.3


@dataclass(frozen=True, slots=True)
class ScoredLabel:
    """A label and its score; `is_tag` from the threshold on."""

    facet: str
    label: str
    score: float
    is_tag: bool
    is_trained: bool


@dataclass(frozen=True, slots=True)
class Vote:
    """A name that neighbours have in a field.

    `share` is its share of the votes in this field, `relevance` the highest of its voters, None
    if the index has no relevance; `pictures` are the voters' image_ids, nearest first.
    """

    field: str
    name: str
    share: float
    relevance: float | None
    pictures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The name that a field of neighbours or a facet of tags gives.

    `source` is ``neighbours``, ``trained`` or ``zero-shot``; `score` the share of the votes, or the
    score of the tag.
    """

    name: str
    by: str
    source: str
    score: float


@dataclass(frozen=True, slots=True)
class Identification:
    """The name of a picture, with the labels and votes it was chosen from, best first.

    `answer` is a name, or ``unknown``; `by` its field or facet, None if unknown; `answers` are
    those of every field and facet that has one, the most specific first; `notes` are messages for
    the user.
    """

    answer: str
    by: str | None
    answers: tuple[Answer, ...]
    labels: tuple[ScoredLabel, ...]
    votes: tuple[Vote, ...]
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, as `identify --json` prints them."""
        return asdict(self)


def identify(
    search: ImageSearch,
    picture: QueryPicture,
    *,
    box: QueryBox | None = None,
    neighbours: int = DEFAULT_NEIGHBOURS,
    min_relevance: float = DEFAULT_MIN_RELEVANCE,
    fields: Sequence[str] = NAMING_FIELDS,
) -> Identification:
    """Identify what a picture shows.

    First come the names with the most votes in each of `fields` other than tags, among names with a
    voter of at least `min_relevance`; then the answer of each facet of tags, the most specific
    first: the tag with half of the neighbours' votes, else the picture's own best tag, else the
    neighbours' tag.  The first is the answer, or ``unknown``.  Without relevance (in an index of
    fewer than 30 pictures) votes are listed, but do not decide.  `fields` may be parts of objects,
    ``attributes.brand``.

    Raises QueryPictureInvalid, and UsageError for `neighbours` or `min_relevance` out of range or
    a field that is not in the index.
    """
    if not 0.0 <= min_relevance <= 1.0:
        raise UsageError(f"min_relevance must be from 0 to 1, not {min_relevance:g}.")
    if not fields:
        raise UsageError("Name at least one field by which neighbours vote, such as title.")
    _check_fields(fields, search)
    image = open_query_picture(picture, box, max_pixels=search.settings.max_pixels)
    hits = search.search_image(image, k=neighbours, collapse=True, fields=[*fields, "content_id"])
    tagger, labels = _score_labels(search, image)
    votes = [vote for name in fields for vote in _count_votes(hits, name)]
    notes = [] if tagger.note is None else [tagger.note]
    if hits and all(hit.relevance is None for hit in hits):
        notes.append(
            f"Index {search.store.index!r} has no relevance, which needs {MIN_BACKGROUND} different"
            " pictures of whole vectors, so neighbours do not decide: add pictures with"
            f" `es-imgsearch sync DIR --index {search.store.index}`."
        )
    names = _names(votes, min_relevance)
    facets = _facet_answers(votes, labels, min_relevance, tagger.facet_of)
    answers = (*names, *_most_specific_first(facets, search, tagger))
    answer, by = (answers[0].name, answers[0].by) if answers else (UNKNOWN, None)
    return Identification(answer, by, answers, tuple(labels), tuple(votes), tuple(notes))


def _most_specific_first(
    answers: Sequence[Answer], search: ImageSearch, tagger: Tagger
) -> list[Answer]:
    """Sort answers: things first, then what is said of them; rare tags first.

    Facets that the vocabulary gives one answer, such as scene and colour, say something of a
    picture.  How rare a tag is, is counted in a sample, since stored pictures may not have the tags
    of a new classifier yet; among equals, and without a sample, a facet of many labels is specific.
    """
    if len(answers) < 2:
        return list(answers)
    info, store = search.info, search.store
    dims = open_encoder(store, info, search.settings, search.encoder).dims
    background = load_background(store.index, info.meta, dims, store.send)
    share: dict[str, float] = {}
    for facet in tagger.scores(background) if len(background) else ():
        share |= dict(zip(facet.labels, facet.holds.mean(axis=0).tolist(), strict=True))
    size = Counter(tagger.facet_of.values())

    def rank(answer: Answer) -> tuple[bool, float, int]:
        facet = tagger.vocabulary.facet(answer.by)
        is_said = facet is not None and facet.answers == ONE
        return is_said, share.get(answer.name, 0.0), -size[answer.by]

    return sorted(answers, key=rank)


def _score_labels(search: ImageSearch, image: Any) -> tuple[Tagger, list[ScoredLabel]]:
    info = search.info
    encoder = open_encoder(search.store, info, search.settings, search.encoder)
    pixels = np.stack([encoder.preparation.apply(image)])
    vectors = embed_queries(encoder, encoder.embed_images, pixels)
    tagger = load_tagger(search.store.index, info.meta, encoder, search.store.send)
    labels = []
    for facet in tagger.scores(vectors):
        scored = [
            ScoredLabel(
                facet.facet,
                label,
                round(float(facet.scores[0, n]), 4),
                bool(facet.holds[0, n]),
                facet.is_trained,
            )
            for n, label in enumerate(facet.labels)
        ]
        shown = [each for each in scored if each.is_tag or each.score >= MIN_SCORE]
        labels += sorted(shown, key=lambda each: (not each.is_tag, -each.score))
    return tagger, labels


def _count_votes(hits: Sequence[Hit], name: str) -> list[Vote]:
    """Count the votes of the hits in one field, the largest share first."""

    def weight(hit: Hit) -> float:
        return max(0.0, hit.score) if hit.relevance is None else hit.relevance

    voters: dict[str, list[Hit]] = {}
    for hit in hits:
        for value in dict.fromkeys(_values(hit.fields, name)):
            voters.setdefault(value, []).append(hit)
    # A neighbour with several tags votes for each with its whole weight.
    all_voters = {hit.image_id: hit for each in voters.values() for hit in each}.values()
    total = sum(map(weight, all_voters))
    votes = [
        Vote(
            name,
            value,
            round(sum(map(weight, each)) / total, 4) if total else 0.0,
            max((hit.relevance for hit in each if hit.relevance is not None), default=None),
            tuple(hit.image_id for hit in each),
        )
        for value, each in voters.items()
    ]
    return sorted(votes, key=lambda vote: (-vote.share, -(vote.relevance or 0.0), vote.name))


def _names(votes: Sequence[Vote], min_relevance: float) -> list[Answer]:
    """Return the answers of the fields other than tags, in their order."""
    found: dict[str, Answer] = {}
    for vote in votes:
        if vote.field != TAGS and _is_relevant(vote, min_relevance):
            answer = Answer(vote.name, vote.field, NEIGHBOURS, vote.share)
            found.setdefault(vote.field, answer)
    return [*found.values()]


def _facet_answers(
    votes: Sequence[Vote],
    labels: Sequence[ScoredLabel],
    min_relevance: float,
    facet_of: Mapping[str, str],
) -> list[Answer]:
    """Return the answer of each facet of tags."""
    found: dict[str, Answer] = {}
    minorities: dict[str, Answer] = {}
    for vote in votes:
        if vote.field == TAGS and _is_relevant(vote, min_relevance):
            # Tags that came with `import` are of no facet.
            facet = facet_of.get(vote.name, TAGS)
            chosen = found if vote.share >= _MAJORITY else minorities
            chosen.setdefault(facet, Answer(vote.name, facet, NEIGHBOURS, vote.share))
    for label in sorted(labels, key=lambda each: (-each.score, each.label)):
        if label.is_tag:
            source = TRAINED if label.is_trained else ZERO_SHOT
            answer = Answer(label.label, label.facet, source, label.score)
            found.setdefault(label.facet, answer)
    return [*(minorities | found).values()]


def _is_relevant(vote: Vote, min_relevance: float) -> bool:
    return vote.relevance is not None and vote.relevance >= min_relevance


def _check_fields(fields: Sequence[str], search: ImageSearch) -> None:
    types = {
        name: mapping.get("type", "object")
        for name, mapping in search.info.properties.items()
        if mapping.get("type") != "dense_vector"
    }
    for name in fields:
        top, _, part = name.partition(".")
        if top not in types or (part and types[top] not in _OBJECT_TYPES):
            raise UsageError(
                f"Index {search.store.index!r} has no field {name!r} by which neighbours could"
                f" vote (write attributes.NAME for an attribute). Choose from:"
                f" {', '.join(sorted(types))}."
            )


def _values(fields: Any, name: str) -> list[str]:
    """Return a field's values as texts; `name` may be a path, or contain dots."""
    if isinstance(fields, list):
        return [value for each in fields for value in _values(each, name)]
    if not name:
        return [] if fields is None or isinstance(fields, Mapping) else [str(fields)]
    if not isinstance(fields, Mapping):
        return []
    values: list[str] = []
    for key, value in fields.items():
        if name == key:
            values += _values(value, "")
        elif name.startswith(f"{key}."):
            values += _values(value, name[len(key) + 1 :])
    return values
