"""Take from a query's text the words that stored words have to match.

Elasticsearch analyses the words; here only those are left out that say nothing about a picture,
since a file called red-car.jpg has no "a" of "a red car".
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Articles, prepositions and conjunctions of the languages that names of files are most often in.
# Words that are a noun or a name in another language (man, hat, son, sin, van, dal) are not here.
_BY_LANGUAGE: Final = {
    "English": "a an the of in on at with and or to from for by near under over behind some my",
    "German": "ein eine einen einem einer eines der die das dem des den und oder mit im am auf von"
    " vom zu zum zur für bei aus über unter hinter neben",
    "Dutch": "de het een en met op bij aan uit naar voor",
    "French": "le la les un une du et ou au aux avec dans sur sous chez par",
    "Spanish": "el los las unos unas y con del al por para",
    "Portuguese": "o os as e um uma uns umas do da dos das no na nos nas com em",
    "Italian": "il lo gli i uno di dalla della dello dei degli delle nel nella su sul sulla alla",
    "Scandinavian": "ett och på med av till från og et til fra det som",
    "Turkish, Indonesian": "bir ve ile yang",
    "Polish, Czech": "w z ze na do od v se",
    "Russian, Ukrainian, Bulgarian": "и в на с со у к от из за под над для та й і із з",
    "Greek": "ο η το οι τα του της των τον την και σε με από στο στη στην ένα μια ένας",
    "Arabic, Persian": "في على من مع و در از با",
    "Hebrew": "של על את עם",
    "Hindi": "का की के में पर और एक",
}
_SAYS_NOTHING: Final = frozenset(word for words in _BY_LANGUAGE.values() for word in words.split())
# l'oiseau, d’un, dell'acqua; dog's.
_ELISION: Final = re.compile(
    r"^(?:[cdjlmnst]|qu|un|all|dall|dell|nell|sull|quell)['\u2019](?=\w)", re.IGNORECASE
)
_POSSESSIVE: Final = re.compile(r"['\u2019]s$", re.IGNORECASE)
_UNSPACED: Final = re.compile(
    r"[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uff66-\uff9f\U00020000-\U0003ffff]"
)


def query_words(text: str) -> list[str]:
    """List the words of a text that say something; all of them if none does.

    A word is what stands between spaces, so that `A-1` and `IMG_1234` stay whole.
    """
    words = [each for each in text.split() if any(map(_has_meaning, each))]
    said = [each for each in words if _bare(each).casefold() not in _SAYS_NOTHING]
    return [_ELISION.sub("", _POSSESSIVE.sub("", each)) for each in said or words]


def is_unspaced(word: str) -> bool:
    """Check for Chinese, Japanese or Korean, which are searched by pairs of letters."""
    return _UNSPACED.search(word) is not None


def _has_meaning(character: str) -> bool:
    # Letters, numbers, and symbols such as emoji: what the analysers keep.
    return character.isalnum() or unicodedata.category(character) in {"So", "Mn", "Mc"}


def _bare(word: str) -> str:
    return word.strip(".,;:!?\"'()[]«»„“”‘’…")
