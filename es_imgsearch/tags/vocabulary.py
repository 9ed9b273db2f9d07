"""The words that pictures are tagged with, in facets; a file that people edit (TOML).

`vocabulary.toml` is the one that ships and says what is in it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, get_args

from es_imgsearch.errors import FileInvalid

Answers = Literal["one", "many"]
ONE: Final = "one"
MANY: Final = "many"

_KEYS = {"answers", "labels", "texts"}


@dataclass(frozen=True, slots=True)
class Facet:
    """Labels of one kind; `answers` says whether at most one of them or many fit a picture.

    `texts` are what an encoder reads in place of a label.
    """

    name: str
    answers: Answers
    labels: tuple[str, ...]
    texts: Mapping[str, str] = field(default_factory=dict)

    def text_of(self, label: str) -> str:
        return self.texts.get(label, label)


@dataclass(frozen=True)
class Vocabulary:
    """Facets, and the TOML they were read from, as it is kept and shown."""

    facets: tuple[Facet, ...]
    source: str

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Every label, facet by facet."""
        return tuple(label for facet in self.facets for label in facet.labels)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """What the encoder reads of every label, in the order of `labels`."""
        return tuple(facet.text_of(label) for facet in self.facets for label in facet.labels)

    @cached_property
    def facet_of(self) -> Mapping[str, Facet]:
        """The facet of each label."""
        return {label: facet for facet in self.facets for label in facet.labels}

    def facet(self, name: str) -> Facet | None:
        return next((facet for facet in self.facets if facet.name == name), None)


def read_vocabulary(file: Path) -> Vocabulary:
    """The vocabulary in a file.  Raises FileInvalid."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise FileInvalid(f"The vocabulary {str(file)!r} cannot be read: {reason}.") from error
    return parse_vocabulary(text, file.name)


def parse_vocabulary(text: str, name: str) -> Vocabulary:
    """The vocabulary in this TOML; `name` is what errors call it.  Raises FileInvalid."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FileInvalid(f"{name} is not TOML: {error}.") from error
    facets = tuple(_facet(facet, table, name) for facet, table in tables.items())
    if not facets:
        raise FileInvalid(f"{name} holds no facet: write a table [object] with labels.")
    owner: dict[str, str] = {}
    for facet in facets:
        for label in facet.labels:
            if label in owner:
                raise FileInvalid(
                    f"{name}: {label!r} stands in [{owner[label]}] and in [{facet.name}]; as tags"
                    " they could not be told apart, so write one of them differently."
                )
            owner[label] = facet.name
    return Vocabulary(facets, text)


@cache
def default_vocabulary() -> Vocabulary:
    """The one that ships."""
    file = "vocabulary.toml"
    text = (resources.files("es_imgsearch.tags") / file).read_text(encoding="utf-8")
    return parse_vocabulary(text, file)


def _facet(name: str, table: Any, file: str) -> Facet:
    def refused(why: str) -> FileInvalid:
        return FileInvalid(f"{file}, facet {name!r}: {why}.")

    if not isinstance(table, dict) or ":" in name:
        raise refused('a facet is a table, such as [object], whose name has no ":"')
    if unknown := sorted(table.keys() - _KEYS):
        raise refused(f"it has no {unknown[0]!r}; there are {', '.join(sorted(_KEYS))}")
    answers = table.get("answers", MANY)
    if answers not in get_args(Answers):
        raise refused(f'answers is "one" or "many", not {answers!r}')
    labels = table.get("labels")
    if not isinstance(labels, list) or not labels:
        raise refused("labels is a list of words, not empty")
    for label in labels:
        if not isinstance(label, str) or not label.strip() or "\0" in label:
            raise refused(f"a label is a word, not {label!r}")
    texts = table.get("texts", {})
    if not isinstance(texts, dict) or not all(isinstance(each, str) for each in texts.values()):
        raise refused("texts is a table of words")
    if strange := sorted(texts.keys() - set(labels)):
        raise refused(f"texts has {strange[0]!r}, which is none of its labels")
    return Facet(name, answers, tuple(dict.fromkeys(labels)), texts)
