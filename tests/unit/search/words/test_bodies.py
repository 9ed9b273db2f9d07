"""Bodies of searches for words, and the words that are taken from a query."""

from __future__ import annotations

from typing import Any

import pytest

from es_imgsearch.errors import UsageError
from es_imgsearch.search.words.bodies import (
    STEM_FIELDS,
    TEXT_FIELDS,
    close_body,
    exact_body,
    text_body,
)
from es_imgsearch.search.words.query_words import query_words

CLAUSES = [{"term": {"root": "photos"}}]


def match(text: str, operator: str, boost: float, **more: str) -> dict[str, Any]:
    return {
        "multi_match": {
            "query": text, "fields": [*TEXT_FIELDS, *STEM_FIELDS], "type": "best_fields",
            "tie_breaker": 0.3, "operator": operator, "boost": boost, **more,
        }
    }  # fmt: skip


def test_words_are_looked_for_in_every_text_that_is_stored():
    assert text_body([("a cat", 1.0), ("snow", 2.0)], ["a dog"], 5, filters=CLAUSES) == {
        "query": {
            "bool": {
                "should": [match("a cat", "or", 1.0), match("snow", "or", 2.0)],
                "minimum_should_match": 1,
                "must_not": [match("a dog", "and", 1.0)],
                "filter": CLAUSES,
            }
        },
        "size": 5,
        "_source": True,
    }
    bare = text_body([("a cat", 1.0)], [], 5)["query"]["bool"]
    assert bare.keys() == {"should", "minimum_should_match"}


def test_a_close_match_has_every_word_that_says_something_and_most_pairs_of_letters():
    (text,) = close_body([("a red A-1 紅色的花", 1.0)], [], 5)["query"]["bool"]["should"]
    assert text == {
        "bool": {
            "should": [
                match("red", "and", 1.0),
                match("A-1", "and", 1.0),
                match("紅色的花", "or", 1.0, minimum_should_match="2<66%"),
            ],
            "minimum_should_match": "3<75%",
        }
    }


def test_a_text_that_cannot_be_a_name_is_no_exact_match():
    assert exact_body(["x" * 301], 5)["query"] == {"match_none": {}}
    assert exact_body(["x" * 300, "y" * 301], 5)["query"] != {"match_none": {}}
    (wildcard,) = [
        each["constant_score"]["filter"]["wildcard"]["image_name.keyword"]["value"]
        for each in exact_body(["a*b?c\\d"], 5)["query"]["dis_max"]["queries"]
        if "wildcard" in each["constant_score"]["filter"]
    ]
    assert wildcard == "a\\*b\\?c\\\\d.*"


@pytest.mark.parametrize("build", [close_body, text_body])
@pytest.mark.parametrize("k", [0, 10_001])
def test_k_is_bounded(build, k: int):
    with pytest.raises(UsageError, match="k must be between"):
        build([("cat", 1.0)], [], k)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a dog on the beach", ["dog", "beach"]),
        ("The", ["The"]),
        ("  red \n tulip ", ["red", "tulip"]),
        ("A-1", ["A-1"]),
        ("IMG_1234.jpg", ["IMG_1234.jpg"]),
        ("cats & dogs", ["cats", "dogs"]),
        ("l'oiseau d’eau dell'acqua", ["oiseau", "eau", "acqua"]),
        ("the dog's bone", ["dog", "bone"]),
        ("o'clock", ["o'clock"]),
        ("die Katze, und der Hund!", ["Katze,", "Hund!"]),
        ("el gato y la luna", ["gato", "luna"]),
        ("кот и собака на траве", ["кот", "собака", "траве"]),
        ("hat man war son", ["hat", "man", "war", "son"]),
        ("红色的花", ["红色的花"]),
        ("🐧", ["🐧"]),
        ("-- !!", []),
        ("", []),
    ],
)
def test_words_that_say_nothing_are_left_out(text: str, words: list[str]):
    assert query_words(text) == words
