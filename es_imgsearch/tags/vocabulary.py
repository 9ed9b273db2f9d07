"""Parse vocabularies: labels for tagging, in facets, from TOML files.

`vocabulary.toml` is the built-in one, and documents the format.
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
from es_imgsearch.records import composed

Answers = Literal["one", "many"]
ONE: Final = "one"
MANY: Final = "many"

_KEYS = {"answers", "labels", "texts"}


@dataclass(frozen=True, slots=True)
class Facet:
    """Labels of one kind; `answers` says whether one at most or many fit a picture.

    `texts` map a label to the text that is embedded in its place.
    """

    name: str
    answers: Answers
    labels: tuple[str, ...]
    texts: Mapping[str, str] = field(default_factory=dict)

    def text_of(self, label: str) -> str:
        """Return the text that is embedded for a label."""
        return self.texts.get(label, label)


@dataclass(frozen=True)
class Vocabulary:
    """Facets, and the TOML they were parsed from, which is stored and printed."""

    facets: tuple[Facet, ...]
    source: str

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """All labels, by facet."""
        return tuple(label for facet in self.facets for label in facet.labels)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The texts that are embedded, in the order of `labels`."""
        return tuple(facet.text_of(label) for facet in self.facets for label in facet.labels)

    @cached_property
    def facet_of(self) -> Mapping[str, Facet]:
        """Map each label to its facet."""
        return {label: facet for facet in self.facets for label in facet.labels}

    def facet(self, name: str) -> Facet | None:
        return next((facet for facet in self.facets if facet.name == name), None)


def read_vocabulary(file: Path) -> Vocabulary:
    """Read a vocabulary from a file.  Raises FileInvalid."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise FileInvalid(f"The vocabulary {str(file)!r} cannot be read: {reason}.") from error
    return parse_vocabulary(text, file.name)


def parse_vocabulary(text: str, name: str) -> Vocabulary:
    """Parse a vocabulary from TOML; errors call it `name`.  Raises FileInvalid."""
    try:
        tables = tomllib.loads(composed(text))
    except tomllib.TOMLDecodeError as error:
        raise FileInvalid(f"{name} is not TOML: {error}.") from error
    facets = tuple(_parse_facet(facet, table, name) for facet, table in tables.items())
    if not facets:
        raise FileInvalid(f"{name} holds no facet: write a table [object] with labels.")
    owner: dict[str, str] = {}
    for facet in facets:
        for label in facet.labels:
            if label in owner:
                raise FileInvalid(
                    f"{name}: {label!r} is in [{owner[label]}] and in [{facet.name}], which would"
                    " be the same tag: rename one of them."
                )
            owner[label] = facet.name
    return Vocabulary(facets, text)


@cache
def default_vocabulary() -> Vocabulary:
    """Return the built-in vocabulary."""
    file = "vocabulary.toml"
    text = (resources.files("es_imgsearch.tags") / file).read_text(encoding="utf-8")
    return parse_vocabulary(text, file)


def _parse_facet(name: str, table: Any, file: str) -> Facet:
    def invalid(reason: str) -> FileInvalid:
        return FileInvalid(f"{file}, facet {name!r}: {reason}.")

    if not isinstance(table, dict) or ":" in name:
        raise invalid('a facet must be a table, such as [object], with no ":" in its name')
    if unknown := sorted(table.keys() - _KEYS):
        raise invalid(f"there is no key {unknown[0]!r}; the keys are {', '.join(sorted(_KEYS))}")
    answers = table.get("answers", MANY)
    if answers not in get_args(Answers):
        raise invalid(f'answers must be "one" or "many", not {answers!r}')
    labels = table.get("labels")
    if not isinstance(labels, list) or not labels:
        raise invalid("labels must be a list of words, not empty")
    for label in labels:
        if not isinstance(label, str) or not label.strip() or "\0" in label:
            raise invalid(f"a label must be a word, not {label!r}")
    texts = table.get("texts", {})
    if not isinstance(texts, dict) or not all(isinstance(each, str) for each in texts.values()):
        raise invalid("texts must be a table of words")
    if surplus := sorted(texts.keys() - set(labels)):
        raise invalid(f"texts has {surplus[0]!r}, which is not one of its labels")
    return Facet(name, answers, tuple(dict.fromkeys(labels)), texts)
