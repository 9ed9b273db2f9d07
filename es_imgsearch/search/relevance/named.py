"""Recognise hits whose name, title or tags hold the words that were searched for.

A picture that is called what was searched for is right more often than its vector tells: of 104
pictures of animals and food whose file name had the word, 102 showed it (the stamps and queries of
`benchmarks/belief.py`).  Tags that were computed from the vector (`tag_scores`) say no more than
the vector: with them .55 of the hits at 50 % or more were right, without them .85.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

NAMED_RELEVANCE: Final = 0.95

_WORD = re.compile(r"[^\W\d_]+|\d+")
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SMALL_WORDS = frozenset({"a", "an", "the", "of", "in", "on", "at", "with", "and", "some"})
# Scripts that put no spaces between words: Kana, Han, Thai and so on.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


def named_relevance(texts: Sequence[str], source: Mapping[str, Any]) -> float | None:
    """Return the relevance of a hit by its words alone; None if they say nothing.

    The words of one of the texts stand all in the file name, in the title or among the tags.
    """
    name = str(source.get("image_name") or source.get("relative_path", "").rpartition("/")[2])
    titles = [name.rpartition(".")[0] or name, *_listed(source.get("title"))]
    scores = source.get("tag_scores") or {}
    given = [tag for tag in _listed(source.get("tags")) if tag not in scores]
    for text in texts:
        wanted = _wanted(text)
        if not wanted:
            continue
        if any(_holds([title], wanted) for title in titles) or _holds(given, wanted):
            return NAMED_RELEVANCE
    return None


def words(text: str) -> list[str]:
    """Split a text into words without case, accents and the s of a plural."""
    folded = unicodedata.normalize("NFKD", _CAPITAL.sub(" ", text)).casefold()
    plain = "".join(letter for letter in folded if not unicodedata.combining(letter))
    return [_singular(word) for word in _WORD.findall(plain)]


def _wanted(text: str) -> list[str]:
    """Return the words without articles, if any of the others has letters."""
    whole = words(text)
    content = [word for word in whole if word not in _SMALL_WORDS]
    return content if any(word.isalpha() for word in content) else whole


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _holds(texts: Iterable[str], wanted: Sequence[str]) -> bool:
    held = [word for text in texts for word in words(text)]
    return all(
        word in held or (_UNSPACED.search(word) is not None and any(word in one for one in held))
        for word in wanted
    )


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]
