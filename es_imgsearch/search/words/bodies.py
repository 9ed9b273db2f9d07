"""Bodies of searches in stored words, by BM25 (Robertson & Zaragoza 2009).

text_body    pictures that have any of the words        modes text and hybrid
close_body   pictures that have all, or nearly all      mode auto
exact_body   pictures that a text names as a whole      all of them, ranked first
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from es_imgsearch.elastic.queries import check_k, source_filter
from es_imgsearch.search.filtering.values import any_spelling, spellings
from es_imgsearch.search.words.query_words import is_unspaced, query_words

Clauses = Sequence[Mapping[str, Any]]
Body = dict[str, Any]

# Fields that words are searched in, with their boosts.  Names of files are often numbers, and a
# folder's name applies to everything in it; captions, descriptions and text in pictures are long
# and are about several things.
TEXT_FIELDS: Final = (
    "title^3",
    "product_id^3",
    "product_id.text^3",
    "tags.text^3",
    "keywords.text^3",
    "caption^2",
    "image_name^2",
    "folder.text",
    "creator.text",
    "description",
    "text_in_image",
    "attributes",
)
# The same words by their stems, such as penguin for penguins, at half the weight: a picture that
# has the word itself ranks higher.  An index of an earlier version lacks these fields.
STEM_FIELDS: Final = (
    "title.stems^1.5",
    "tags.stems^1.5",
    "keywords.stems^1.5",
    "caption.stems",
    "image_name.stems",
    "folder.stems^0.5",
    "creator.stems^0.5",
    "description.stems^0.5",
    "text_in_image.stems^0.5",
)
# The best matching field counts, and this share of the others.
_TIE_BREAKER: Final = 0.3
# Of four words or more, three quarters are enough; of the pairs of letters of one word in Chinese,
# Japanese or Korean two thirds, since endings and particles differ.
_MOST_WORDS: Final = "3<75%"
_MOST_PAIRS: Final = "2<66%"

# Scores of `exact_body`: what a text names.
NAMES_THE_PICTURE: Final = 2
NAMES_A_TAG: Final = 1
_OF_THE_PICTURE: Final = ("image_id", "product_id", "relative_path", "image_name.keyword")
_OF_TAGS: Final = ("tags", "keywords")
# No name of a file is longer; the server compares in any case up to 1,000 letters.
_MAX_NAME_BYTES: Final = 300


def text_body(
    positive: Sequence[tuple[str, float]],
    negative: Sequence[str],
    k: int,
    *,
    filters: Clauses = (),
    source: bool | Sequence[str] = True,
) -> Body:
    """Search for pictures with any of the words; more and rarer ones first.

    `positive` are texts and their weights, of which one has to match and all count; a picture that
    has every word of a negative text is excluded.
    """
    should = [_match(text, weight, operator="or") for text, weight in positive]
    return _body(should, negative, k, filters, source)


def close_body(
    positive: Sequence[tuple[str, float]],
    negative: Sequence[str],
    k: int,
    *,
    filters: Clauses = (),
    source: bool | Sequence[str] = True,
) -> Body:
    """Search for pictures with all words that say something, in any fields.

    Of four words or more three quarters are enough.  Otherwise as `text_body`.
    """
    should = []
    for text, weight in positive:
        each_word = [_word(each, weight) for each in query_words(text)]
        should.append({"bool": {"should": each_word, "minimum_should_match": _MOST_WORDS}})
    return _body(should, negative, k, filters, source)


def exact_body(
    texts: Sequence[str],
    k: int,
    *,
    filters: Clauses = (),
    source: bool | Sequence[str] = True,
) -> Body:
    """Search for pictures that a text names as a whole, in any case.

    The score is NAMES_THE_PICTURE if it is the id, product id, path or name of a file, with or
    without its ending, and NAMES_A_TAG if it is a tag or keyword.
    """
    check_k(k)
    names = [each for each in texts if len(each.encode()) <= _MAX_NAME_BYTES]
    clauses = [clause for each in names for clause in _naming(each)]
    query: Body = {"dis_max": {"queries": clauses}} if clauses else {"match_none": {}}
    if filters:
        query = {"bool": {"must": [query], "filter": list(filters)}}
    return {"query": query, "size": k, "_source": source_filter(source)}


def _naming(text: str) -> list[Body]:
    tiers = [(_OF_THE_PICTURE, NAMES_THE_PICTURE), (_OF_TAGS, NAMES_A_TAG)]
    clauses = [
        _scored(any_spelling(field, text), score) for fields, score in tiers for field in fields
    ]
    for each in spellings(text):
        escaped = "".join(f"\\{letter}" if letter in "*?\\" else letter for letter in each)
        pattern = {"value": f"{escaped}.*", "case_insensitive": True}
        clauses.append(_scored({"wildcard": {"image_name.keyword": pattern}}, NAMES_THE_PICTURE))
    return clauses


def _scored(clause: Body, score: int) -> Body:
    return {"constant_score": {"filter": clause, "boost": score}}


def _word(word: str, weight: float) -> Body:
    if is_unspaced(word):
        return _match(word, weight, operator="or", minimum_should_match=_MOST_PAIRS)
    return _match(word, weight, operator="and")


def any_word(text: str) -> Body:
    """Build the clause of any word of a text in any of the fields."""
    return _match(text, 1.0, operator="or")


def _match(text: str, weight: float, **how: str) -> Body:
    return {
        "multi_match": {
            "query": text,
            "fields": [*TEXT_FIELDS, *STEM_FIELDS],
            "type": "best_fields",
            "tie_breaker": _TIE_BREAKER,
            "boost": weight,
            **how,
        }
    }


def _body(
    should: Sequence[Body],
    negative: Sequence[str],
    k: int,
    filters: Clauses,
    source: bool | Sequence[str],
) -> Body:
    check_k(k)
    bool_query: Body = {"should": list(should), "minimum_should_match": 1}
    if negative:
        bool_query["must_not"] = [_match(text, 1.0, operator="and") for text in negative]
    if filters:
        bool_query["filter"] = list(filters)
    return {"query": {"bool": bool_query}, "size": k, "_source": source_filter(source)}
