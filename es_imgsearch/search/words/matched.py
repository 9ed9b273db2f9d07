"""Find the stored fields of one picture that have words of a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from es_imgsearch.elastic.documents import Documents
from es_imgsearch.records import folded
from es_imgsearch.search.words.bodies import STEM_FIELDS, TEXT_FIELDS, any_word
from es_imgsearch.search.words.query_words import query_words

# Compared as a whole: ids, the path, and values of a sidecar file.
_WHOLE: Final = ("image_id", "product_id", "relative_path")
_FLATTENED: Final = "attributes"
_FIELDS: Final = tuple(
    name for each in (*TEXT_FIELDS, *STEM_FIELDS) if (name := each.partition("^")[0]) != _FLATTENED
)


def matched_fields(
    documents: Documents, image_id: str, fields: Mapping[str, Any], texts: Sequence[str]
) -> dict[str, Any]:
    """Return the fields that have a word of one of the texts, as in mode text.

    `fields` are those of the picture.  Of a list only the values with a word are returned, of
    `attributes` those that are the text as a whole.  Words such as "a" and "the" do not count.
    """
    if not texts:
        return {}
    found: dict[str, Any] = {}
    query = {"bool": {"should": [any_word(" ".join(query_words(each))) for each in texts]}}
    for name, values in documents.highlighted(image_id, query, _FIELDS).items():
        name = name.partition(".")[0]
        stored = fields.get(name)
        if isinstance(stored, list):
            known = found.setdefault(name, [])
            known += [each for each in stored if each in values and each not in known]
        elif stored is not None:
            found[name] = stored
    wanted = {folded(each) for each in texts}
    found |= {
        name: fields[name] for name in _WHOLE if name in fields and folded(fields[name]) in wanted
    }
    attributes = {
        key: value
        for key, value in (fields.get(_FLATTENED) or {}).items()
        if isinstance(value, str) and value in texts
    }
    return found | ({_FLATTENED: attributes} if attributes else {})
