"""What the templates show of a search: pictures, chips, facets, a summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from es_imgsearch.search.filtering.dates import date_of
from es_imgsearch.search.hits import Hit
from es_imgsearch.serve.answers.ranking import is_likely, is_relevant
from es_imgsearch.serve.page.address import Address

# What a tile, its facets and its day are made of.
FIELDS: Final = (
    "root", "relative_path", "image_name", "folder", "content_id", "width", "height", "format",
    "orientation", "camera", "tags", "colours", "caption", "title", "taken_local", "taken_at",
    "modified_at",
)  # fmt: skip
FACETS: Final = {
    "year": "Year", "tags": "Tags", "colours": "Colours", "root": "Root", "folder": "Folder",
    "camera": "Camera", "format": "Format", "orientation": "Orientation",
}  # fmt: skip
_MOST_VALUES: Final = 12
_MOST_BADGE: Final = 99
# What every browser of now shows; of others there is a preview.
_SHOWN: Final = frozenset({"jpeg", "png", "webp", "gif", "avif"})


@dataclass(frozen=True, slots=True)
class Thumb:
    """One picture in the grid, with the addresses that begin at it."""

    image_id: str
    number: int
    name: str
    place: str
    path: str
    width: int
    height: int
    percent: str
    score: float
    relevance: float | None
    cosine: float | None
    why: str
    more_copies: str
    day: str
    likely: bool
    relevant: bool
    large: str
    view: str
    similar: str
    more: str
    less: str
    part: str


@dataclass(frozen=True, slots=True)
class Chip:
    """One part of the question, and the address without it."""

    kind: str
    label: str
    without: str


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value of a field, its count, and the addresses with and without it."""

    label: str
    count: int
    only: str
    none: str


@dataclass(frozen=True, slots=True)
class FacetShown:
    """The most frequent values of a field."""

    name: str
    title: str
    values: Sequence[FacetValue]


def tiles(
    hits: Iterable[Hit], address: Address, first: int, copies: Mapping[str, int]
) -> Iterator[Thumb]:
    """Make the tiles of a page whose first hit has this number, from 1 on."""
    # An id needs no escapes: 60 times five addresses are put together, not parsed.
    view = address.dropping("page")
    more, less = (f"/?{view.query}{'&' * bool(view.pairs)}{name}=" for name in ("like", "unlike"))
    for number, hit in enumerate(hits, first):
        others = copies.get(str(hit.fields.get("content_id")), 1) - 1
        alone = f"/?like={hit.image_id}"
        is_shown = hit.fields.get("format") in _SHOWN
        yield Thumb(
            image_id=hit.image_id,
            number=number,
            name=hit.image_name,
            place=f"{hit.root}/{hit.relative_path}",
            path="" if hit.path is None else hit.to_dict()["path"],
            width=int(hit.fields.get("width") or 0),
            height=int(hit.fields.get("height") or 0),
            percent=hit.percent,
            score=hit.score,
            relevance=hit.relevance,
            cosine=hit.cosine,
            why="words" if hit.matches_words else "",
            more_copies=f"+{min(others, _MOST_BADGE)}" if others > 0 else "",
            day=date_of(hit.fields)[:10],
            likely=is_likely(hit),
            relevant=is_relevant(hit),
            large=f"/{'images' if is_shown else 'previews'}/{hit.image_id}",
            view=f"/pictures/{hit.image_id}?{view.query}{'&' * bool(view.pairs)}n={number}",
            similar=alone,
            more=f"{more}{hit.image_id}",
            less=f"{less}{hit.image_id}",
            part=f"{alone}&part=1",
        )


def by_day(shown: Sequence[Thumb], is_divided: bool) -> list[tuple[str, list[Thumb]]]:
    """Group pictures by day, or put all into one group without a name."""
    if not is_divided:
        return [("", list(shown))]
    return [(day, list(each)) for day, each in groupby(shown, key=lambda tile: tile.day)]


def chips(address: Address, names: Mapping[str, str], period: str) -> Iterator[Chip]:
    """Yield a removable chip for each part of the question but the words in the field.

    Those are one, too, beside a picture: they stay when another picture is sent.

    `names` has the names of stored pictures by image_id; `period` is what `when` means.
    """
    first, with_picture = address.get_first("q"), address.get("image")
    kinds = {
        "q": "words" if with_picture else "and", "not": "not", "like": "like",
        "unlike": "not like", "since": "since", "until": "until", "when": "when", "filter": "",
        "min_relevance": "at least",
    }  # fmt: skip
    for name, value in address.pairs:
        if name not in kinds or (name == "q" and value == first and not with_picture):
            continue
        label, kind = value, kinds[name]
        if name in {"like", "unlike"}:
            image_id, caret, weight = value.partition("^")
            label = names.get(image_id, image_id) + caret + weight
        elif name == "when":
            label = f"{value} ({period})"
        elif name == "min_relevance":
            label = f"{float(value):.0%} relevant" if _is_number(value) else value
        elif name == "filter":
            kind = "without" if value.startswith("-") else ""
            label = value.removeprefix("-").replace(":", ": ", 1)
        yield Chip(kind, label, str(address.dropping(name, value)))


def facets(counts: Mapping[str, Mapping[str, int]], address: Address) -> Iterator[FacetShown]:
    """Yield the facets that have a value which is not chosen yet."""
    chosen = set(address.all("filter"))
    fields = {each.partition(":")[0] for each in chosen}
    is_dated = address.get("since") or address.get("when")
    for name, title in FACETS.items():
        values = [
            FacetValue(value, count, *_addresses(name, value, address, name in fields))
            for value, count in counts.get(name, {}).items()
            if f"{name}:{value}" not in chosen and not (name == "year" and is_dated)
        ]
        if values:
            yield FacetShown(name, title, values[:_MOST_VALUES])


def crumbs(address: Address) -> list[tuple[str, str]]:
    """Return label and address of the folder searched and of those above it."""
    roots = [each[len("root:") :] for each in address.all("filter") if each.startswith("root:")]
    folders = [
        each[len("folder:") :] for each in address.all("filter") if each.startswith("folder:")
    ]
    if len(roots) > 1 or len(folders) > 1 or not (roots or folders):
        return []
    plain = address
    for each in [*(f"root:{one}" for one in roots), *(f"folder:{one}" for one in folders)]:
        plain = plain.dropping("filter", each)
    found = [("All pictures", str(plain))]
    if roots:
        plain = plain.adding("filter", f"root:{roots[0]}")
        found.append((roots[0], str(plain)))
    steps = folders[0].strip("/").split("/") if folders else []
    for end in range(1, len(steps) + 1):
        folder = "/".join(steps[:end])
        found.append((steps[end - 1], str(plain.adding("filter", f"folder:{folder}"))))
    return found


def summary(
    count: int, relevant: int | None, with_words: int, at_least: float | None
) -> tuple[str, bool]:
    """Return a sentence on what was found, and whether the hits are only the nearest.

    `relevant` is the number of hits among `count` that are likely right, None if relevance is not
    known; `with_words` that of those whose stored words match.
    """
    if not count:
        return "No picture meets this.", False
    if at_least is not None:
        found = f"{count} of at least {at_least:.0%} relevance"
    elif relevant is not None and (relevant or with_words):
        found = f"{relevant} of {count} are relevant"
    elif relevant is not None:
        return "Nothing here matches; the nearest are these.", True
    elif with_words:
        return f"{with_words} of {count} {_contain(with_words)}", False
    else:
        return f"The {count} nearest" if count > 1 else "One picture", False
    return found + (f"; {with_words} {_contain(with_words)}" if with_words else ""), False


def _contain(count: int) -> str:
    return "contains the words" if count == 1 else "contain the words"


def _addresses(name: str, value: str, address: Address, has_value: bool) -> tuple[str, str]:
    """Return the addresses with this value only and without it.

    Several values of a field mean any of them, so that a second one would widen the search: a
    folder takes the place of the one around it, others have no link.
    """
    if name == "year":
        plain = address.dropping("when")
        return str(plain.setting("since", value).setting("until", value)), ""
    without = str(address.adding("filter", f"-{name}:{value}"))
    if has_value and name != "folder":
        return "", without
    around = [each for each in address.all("filter") if each.startswith("folder:")]
    for each in around if name == "folder" else ():
        address = address.dropping("filter", each)
    return str(address.adding("filter", f"{name}:{value}")), without


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
