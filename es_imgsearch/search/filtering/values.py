"""Meet the values of filters as people type them, or offer the nearest.

Case, the normal form of letters, and names such as jpg or gray make no difference: a clause asks
for the usual spellings of a value (`spellings`).  If no picture has one of them, `met_filters` asks
the index for its values, takes those that differ in nothing else (ß and SS, full width), and notes
what does not exist.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from os import PathLike
from typing import Any, Final, NamedTuple

from es_imgsearch.elastic.queries import to_json
from es_imgsearch.elastic.requests import search_request
from es_imgsearch.records import composed, folded, is_text
from es_imgsearch.search.request_flow import RequestFlow

Clause = dict[str, Any]

# The way to one file, and what programs compare: met as they are.
EXACT_FIELDS: Final = frozenset({"image_id", "relative_path", "content_id", "sidecar_id"})
# Names that may differ in case alone: Photos and photos are two roots.  Another spelling is asked
# for only if no picture has the one that was typed.
EXACT_FIRST_FIELDS: Final = frozenset({"root", "product_id", "source_url"})
# A list of more values is a program's, and is met as it is.
MOST_FOLDED: Final = 50
_MOST_FOLDED_BYTES: Final = 300
# Make and model are one value: the make alone stands for all of its models.
_MAKE_AND_MODEL: Final = {"camera", "lens"}

# Names that people use, beside the one that is stored.
_SYNONYMS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "format": {
        "jpeg": ("jpg", "jpe", "jfif", "pjpeg", "mpo"),
        "tiff": ("tif",),
        "heif": ("heic", "heics", "heifs", "hif"),
        "avif": ("avifs",),
        "png": ("apng",),
        "jpeg2000": ("jpeg 2000", "jpeg-2000", "jp2", "j2k", "j2c", "jpf", "jpx"),
        "jpegxl": ("jpeg xl", "jpeg-xl", "jxl"),
        "ppm": ("pnm", "pbm", "pgm", "pfm", "portable-anymap"),
        "psd": ("photoshop", "vnd.adobe.photoshop"),
        "dds": ("vnd-ms.dds",),
        "xbm": ("xbitmap",),
        "xpm": ("xpixmap",),
        "bmp": ("bitmap",),
        "ico": ("icon",),
        "tga": ("targa",),
    },
    "colours": {"grey": ("gray",)},
}
_STORED_NAMES: Final = {
    field: {other: name for name, others in names.items() for other in others}
    for field, names in _SYNONYMS.items()
}

# Values that are read of a field, the most frequent first, and offered.
_MOST_VALUES = 10_000
# Pictures that were found, of which the values are compared with those that were typed.
_MOST_SEEN = 100
_OFFERED = 5
_ALL_OFFERED = 20


def stored_name(field: str, value: str) -> str:
    """Return the name under which a format or a colour is stored; else the value."""
    plain = folded(value)
    if field == "format":
        plain = plain.removeprefix("image/").removeprefix("x-").lstrip(".")
    field = "colours" if field == "colour_shares" else field
    names = _STORED_NAMES.get(field)
    return value if names is None else names.get(plain, plain)


def spellings_clause(field: str, name: str, value: str) -> Clause:
    """Build the clause of a keyword's value, in any case and normal form.

    `field` is compared; `name` is the field that the filter names.
    """
    if name in EXACT_FIELDS | EXACT_FIRST_FIELDS:
        return {"term": {field: value}}
    return any_spelling(field, stored_name(name, value))


def any_spelling(field: str, value: str) -> Clause:
    """Build the clause of a value in any case and normal form."""
    terms = [_term(field, each) for each in spellings(value)]
    return terms[0] if len(terms) == 1 else {"bool": {"should": terms, "minimum_should_match": 1}}


def spellings(value: str) -> list[str]:
    """List the usual spellings of a value that differ beyond the case of A to Z."""
    if value.isascii():
        return [value]
    cases = (value, value.lower(), value.upper(), value.capitalize(), value.title())
    forms = (form for each in cases for form in (each, composed(each), decomposed(each)))
    return list({_plain(each): each for each in forms}.values())


def _plain(text: str) -> str:
    """Fold the case of A to Z only, as the server's comparison does."""
    return "".join(each.lower() if each.isascii() else each for each in text)


def decomposed(text: str) -> str:
    """Take letters and marks apart (NFD), as names from a Mac are stored."""
    return unicodedata.normalize("NFD", text)


def _term(field: str, value: str) -> Clause:
    # The server's `case_insensitive` is of A to Z only, and refuses 1,000 letters; values that
    # long are met in another case once their own finds nothing.
    if value.lower() == value.upper() or len(value.encode()) > _MOST_FOLDED_BYTES:
        return {"term": {field: value}}
    return {"term": {field: {"value": value, "case_insensitive": True}}}


# -- what no picture has


class _Typed(NamedTuple):
    """A value of a filter, the field it is compared in, and its clause."""

    name: str
    field: str
    value: Any
    clause: Clause

    @property
    def text(self) -> str:
        return stored_name(self.name.partition(".")[0], str(self.value)).strip()


class MetFilters(NamedTuple):
    """Filters whose values exist, where there are any; notes on those that do not."""

    filters: Mapping[str, Any]
    notes: Sequence[str]


def met_filters(
    index: str,
    filters: Mapping[str, Any],
    properties: Mapping[str, Mapping[str, Any]],
    clause_of: Callable[[str, Any], Clause],
    *,
    found: Sequence[Mapping[str, Any]] = (),
) -> RequestFlow[MetFilters]:
    """Find the values that no picture has; replace them by those that mean the same.

    `clause_of` builds the clause of one value.  `found` are fields of pictures that meet the
    filters: if there are any, a value of its own exists, and only those values of lists are asked
    for that none of the first pictures has.
    """
    typed = _unseen(
        list(_typed_values(filters, properties, clause_of, only_lists=bool(found))), found
    )
    if not typed:
        return MetFilters(filters, ())
    counts = yield from _aggregated(index, [{"filter": each.clause} for each in typed])
    unmet = [each for each, answer in zip(typed, counts, strict=True) if not answer["doc_count"]]
    terms = [_values_of(each) for each in unmet] + [_spelled_values_of(each) for each in unmet]
    answers = (yield from _aggregated(index, terms)) if terms else []
    changed, notes = dict(filters), []
    for each, values, spelled in zip(
        unmet, answers[: len(unmet)], answers[len(unmet) :], strict=True
    ):
        buckets = [*spelled["values"]["buckets"], *values["buckets"]]
        alike, note = _resolved(each, list(dict.fromkeys(str(one["key"]) for one in buckets)))
        if note:
            notes.append(note)
        if alike:
            given = changed[each.name]
            given = list(given) if isinstance(given, (list, set, frozenset)) else [given]
            changed[each.name] = [one for one in given if one != each.value] + alike
    return MetFilters(changed if changed != filters else filters, notes)


def _unseen(typed: Sequence[_Typed], found: Sequence[Mapping[str, Any]]) -> list[_Typed]:
    """Leave out ids if there are pictures, and values that one of the pictures has."""
    if not found:
        return list(typed)
    seen = {name: _stored_values(name, found) for name in {each.name for each in typed}}
    return [
        each
        for each in typed
        if each.name not in EXACT_FIELDS - {"relative_path"} and not _is_in(each, *seen[each.name])
    ]


def _stored_values(name: str, found: Sequence[Mapping[str, Any]]) -> tuple[set[str], set[str]]:
    """Return the values of a field as they are, and as the server compares them."""
    values: set[str] = set()
    for stored in (fields.get(name) for fields in found[:_MOST_SEEN]):
        listed = stored if isinstance(stored, list) else [stored]
        texts = [str(each) for each in listed if each is not None]
        values.update(texts if name != "folder" else (p for t in texts for p in _with_parents(t)))
    return values, {_plain(each) for each in values}


def _is_in(typed: _Typed, exact: set[str], plain: set[str]) -> bool:
    if typed.name in EXACT_FIELDS | EXACT_FIRST_FIELDS:
        return str(typed.value) in exact
    text = typed.text.strip("/") if typed.name == "folder" else typed.text
    if len(text.encode()) > _MOST_FOLDED_BYTES:
        return text in exact
    return not plain.isdisjoint(_plain(each) for each in spellings(text))


def _values_of(typed: _Typed) -> Clause:
    """Aggregate the values that may be meant; of a path only its normal forms."""
    terms: Clause = {"field": typed.field, "size": _MOST_VALUES}
    if typed.name in EXACT_FIELDS:
        terms["include"] = [composed(typed.text), decomposed(typed.text)]
    return {"terms": terms}


def _spelled_values_of(typed: _Typed) -> Clause:
    """Aggregate the usual spellings of a value that was met exactly.

    They may be none of the most frequent values: there are as many products as pictures.
    """
    is_folded = typed.name in EXACT_FIRST_FIELDS
    clause = (
        any_spelling(typed.field, stored_name(typed.name, typed.text))
        if is_folded
        else {"match_none": {}}
    )
    values = {"terms": {"field": typed.field, "size": MOST_FOLDED}}
    return {"filter": clause, "aggs": {"values": values}}


def _resolved(typed: _Typed, values: Sequence[str]) -> tuple[list[str], str | None]:
    """Return the stored values that mean the typed one, and a note for a person."""
    if typed.name == "folder":
        values = list(dict.fromkeys(above for each in values for above in _with_parents(each)))
    wanted = folded(typed.text.strip("/") if typed.name == "folder" else typed.text)
    by_folded: dict[str, list[str]] = {}
    for each in values:
        by_folded.setdefault(folded(each), []).append(each)
    if alike := by_folded.get(wanted):
        return alike, None
    shown = f"{typed.name} {str(typed.value)!r}"
    if typed.name in _MAKE_AND_MODEL and wanted:
        models = [each for each in values if folded(each).startswith(f"{wanted} ")]
        if models:
            return models[:MOST_FOLDED], f"As {shown} were taken: {_listed(models)}."
    offer = "." if typed.name in EXACT_FIELDS else _offer(wanted, by_folded, values)
    return [], f"No picture has the {shown}{offer}"


def _offer(wanted: str, by_folded: Mapping[str, Sequence[str]], values: Sequence[str]) -> str:
    if not values:
        return "; no picture has a value there."
    near = get_close_matches(wanted, by_folded, n=_OFFERED, cutoff=0.5)
    near += [each for each in by_folded if wanted and (wanted in each or each in wanted)]
    if near:
        chosen = [one for each in dict.fromkeys(near) for one in by_folded[each]]
        return f"; near it are {_listed(chosen)}."
    if len(values) <= _ALL_OFFERED:
        return f"; there are {_listed(values, _ALL_OFFERED)}."
    return f"; the most frequent are {_listed(values)}."


def _listed(values: Sequence[str], most: int = _OFFERED) -> str:
    shown = [repr(each) for each in values[:most]]
    more = len(values) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _with_parents(folder: str) -> Iterator[str]:
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]


def _typed_values(
    filters: Mapping[str, Any],
    properties: Mapping[str, Mapping[str, Any]],
    clause_of: Callable[[str, Any], Clause],
    *,
    only_lists: bool,
) -> Iterator[_Typed]:
    for name, given in filters.items():
        field = _keyword_field(name, properties)
        values = list(given) if isinstance(given, (list, set, frozenset)) else [given]
        if field is None or isinstance(given, tuple) or len(values) > MOST_FOLDED:
            continue
        if only_lists and len(values) < 2:
            continue
        for value in values:
            if isinstance(value, (str, PathLike)) and is_text(str(value)):
                yield _Typed(name, field, value, clause_of(name, value))


def _keyword_field(name: str, properties: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the field whose values can be listed; None for numbers, dates, words."""
    mapping = properties.get(name.partition(".")[0], {})
    if mapping.get("type") in {"keyword", "flattened"}:
        return name
    return f"{name}.keyword" if "keyword" in mapping.get("fields", {}) else None


def _aggregated(index: str, aggregations: Sequence[Clause]) -> RequestFlow[list[Any]]:
    body = {"size": 0, "aggs": {str(n): each for n, each in enumerate(aggregations)}}
    answer = yield search_request(index, to_json(body))
    return [answer["aggregations"][str(n)] for n in range(len(aggregations))]
