"""The vocabulary that ships, and files of words that people write."""

from __future__ import annotations

from pathlib import Path

import pytest

from es_imgsearch.errors import FileInvalid
from es_imgsearch.tags.vocabulary import (
    MANY,
    ONE,
    default_vocabulary,
    parse_vocabulary,
    read_vocabulary,
)


def test_the_built_in_vocabulary_has_several_hundred_words_in_five_facets():
    vocabulary = default_vocabulary()
    answers = {facet.name: facet.answers for facet in vocabulary.facets}
    assert answers == {
        "object": MANY, "scene": ONE, "colour": ONE, "style": ONE, "occasion": ONE,
    }  # fmt: skip
    assert len(vocabulary.labels) == len(set(vocabulary.labels)) > 300
    assert vocabulary.facet_of["beach"].name == "scene"
    assert vocabulary.texts[vocabulary.labels.index("bat")] == "a bat, the flying animal"
    assert vocabulary.texts[vocabulary.labels.index("cat")] == "cat"


def test_a_file_is_read_with_its_texts(tmp_path: Path):
    file = tmp_path / "words.toml"
    file.write_text(
        '[part]\nanswers = "one"\nlabels = ["gear", "seal"]\ntexts = {seal = "a rubber seal"}\n'
        '[state]\nlabels = ["rusty"]\n'
    )
    vocabulary = read_vocabulary(file)
    assert [(each.name, each.answers) for each in vocabulary.facets] == [
        ("part", ONE), ("state", MANY),
    ]  # fmt: skip
    assert vocabulary.texts == ("gear", "a rubber seal", "rusty")
    assert parse_vocabulary(vocabulary.source, "kept") == vocabulary


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[object", "is not TOML"),
        ("", "holds no facet"),
        ("labels = ['a']", "'labels': a facet must be a table"),
        ("['a:b']\nlabels = ['x']", 'no ":" in its name'),
        ("[object]\nlabels = []", "labels must be a list of words, not empty"),
        ("[object]\nlabels = ['a', 3]", "a label must be a word, not 3"),
        ("[object]\nlabels = ['a']\nanswers = 'two'", '"one" or "many", not \'two\''),
        ("[object]\nlabels = ['a']\nprompts = ['b']", "there is no key 'prompts'"),
        ("[object]\nlabels = ['a']\ntexts = {b = 'c'}", "'b', which is not one of its labels"),
        ("[one]\nlabels = ['a']\n[two]\nlabels = ['a']", r"'a' is in \[one\] and in \[two\]"),
    ],
)
def test_an_invalid_vocabulary_raises_with_the_reason(text: str, says: str):
    with pytest.raises(FileInvalid, match=says):
        parse_vocabulary(text, "words.toml")


def test_a_missing_file_raises(tmp_path: Path):
    with pytest.raises(FileInvalid, match="cannot be read: No such file"):
        read_vocabulary(tmp_path / "words.toml")
