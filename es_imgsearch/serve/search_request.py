"""What is searched for, from the parameters of a GET, a JSON object or a form."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from datetime import date
from typing import Annotated, Any, Final, Literal, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from es_imgsearch.errors import UsageError
from es_imgsearch.search.filtering.periods import parse_period
from es_imgsearch.search.filters import parse_filters
from es_imgsearch.search.options import SearchOptions
from es_imgsearch.search.query import StoredPicture, Weighted
from es_imgsearch.serve.query_pictures import QueryFile

MOST_HITS: Final = 1000
_MOST_TERMS: Final = 50
# A page of the gallery has 60 hits, which may all be selected.
_MOST_EXAMPLES: Final = 100
_LONGEST_TEXT: Final = 2000
_WEIGHTED: Final = "may end in ^NUMBER, its weight"
_WEIGHT: Final = re.compile(
    r"(?P<text>.*)\^(?P<weight>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))", re.DOTALL
)
_Text = Annotated[str, Field(max_length=_LONGEST_TEXT)]


def _box_numbers(value: Any) -> Any:
    """Split 1,2,3,4, as a box stands in an address."""
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if not isinstance(value, str):
        return value
    numbers = value.split(",")
    if not all(each.strip() for each in numbers):
        raise ValueError("it needs left, top, width and height: fill in all four, or none")
    return numbers


def _texts(value: Any) -> Any:
    """Take one text as a list of one."""
    return value if isinstance(value, list) else [value]


_Texts = Annotated[list[_Text], BeforeValidator(_texts, json_schema_input_type=_Text | list[_Text])]
_Box = Annotated[
    tuple[float, float, float, float] | None,
    BeforeValidator(_box_numbers),
    Field(
        description="x,y,width,height in pixels of the upright picture that is sent, or of the"
        " one in `like`"
    ),
]


class SearchRequest(BaseModel):
    """What hits should be like and unlike, filters, and how many are returned."""

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        allow_inf_nan=False,
        # Megabytes of text keep Elasticsearch busy for minutes.
        str_max_length=_LONGEST_TEXT,
    )

    q: _Texts = Field(
        [],
        max_length=_MOST_TERMS,
        description=f"words; several texts are added up; {_WEIGHTED}",
        examples=[["a cat on a sofa"], ["a cat", "a garden^0.5"]],
    )
    unwanted: list[_Text] = Field(
        [],
        alias="not",
        max_length=_MOST_TERMS,
        description=f"words that hits should be unlike; {_WEIGHTED}",
    )
    like: list[str] = Field(
        [], max_length=_MOST_EXAMPLES, description=f"image_ids of stored pictures; {_WEIGHTED}"
    )
    unlike: list[str] = Field(
        [], max_length=_MOST_TERMS, description=f"image_ids to be unlike; {_WEIGHTED}"
    )
    image: str = Field("", description="hash of a picture that was sent before")
    box: _Box = None
    filter: list[_Text] = Field(
        [],
        max_length=_MOST_TERMS,
        description="field:value, or -field:value for pictures without it; also field=value and"
        " field!=value",
        examples=[["format:png", "-folder:scans"]],
    )
    since: str | None = Field(None, description="taken on this day or later")
    until: str | None = Field(None, description="taken on this day or earlier")
    when: str | None = Field(
        None, description="the same in words, instead of both", examples=["last summer"]
    )
    min_relevance: float | None = Field(
        None, ge=0, le=1, description="only hits that are likely right to this degree"
    )
    mode: Literal["auto", "vector", "text", "hybrid"] = Field(
        "auto", description="compare what is seen, what is written, or both"
    )
    sort: Literal["relevance", "newest", "oldest", "largest", "folder"] = Field(
        "relevance", description="order of the relevant hits"
    )
    k: int = Field(60, ge=1, le=MOST_HITS, description="number of hits")
    cursor: str = Field("", description="`next` of the answer before: go on behind it")
    facets: list[str] = Field([], max_length=_MOST_TERMS, description="fields to count, or year")
    collapse: bool = Field(False, description="only the best of files with the same content")
    explain: bool = Field(False, description="how each score came about")
    exact: bool = Field(False, description="compare with every picture, slowly")
    regions: bool = Field(False, description="compare with parts of pictures, too")
    codes: bool = Field(False, description="search by binary codes")
    num_candidates: int | None = Field(
        None, ge=1, description="candidates that are weighed in each shard, at least k"
    )

    def queries(self, picture: QueryFile | None) -> tuple[list[Weighted], list[Weighted]]:
        """Return the positive and the negative queries.

        `picture` is the one that was sent, or that of which the box is a part.  Raises UsageError
        without a positive query, and for a box without a picture.
        """
        if self.box is not None and picture is None:
            raise UsageError(
                "A box is a part of a picture: send one, the `image` of an answer to one, or one"
                " stored picture as `like`; or leave the box out."
            )
        positive: list[Weighted] = [*map(weighted, self.words)]
        if self.boxed_id is None:
            positive += map(_stored, self.like)
        if picture is not None:
            _, weight = (None, 1.0) if self.boxed_id is None else weighted(self.like[0])
            positive.append((picture.part(self.box), weight))
        if not positive:
            raise UsageError("Say what to search for: q=WORDS, like=IMAGE_ID, or a picture.")
        return positive, [*map(weighted, self.unwanted), *map(_stored, self.unlike)]

    def dated(self, today: date) -> SearchRequest:
        """Return the same with `since` and `until` in place of the words `when`.

        Raises UsageError for words that say no dates, and for both.
        """
        if self.when is None:
            return self
        if self.since is not None or self.until is not None:
            raise UsageError("`when` says the dates: leave `since` and `until` out, or `when`.")
        first, last = parse_period(self.when, today)
        return self.model_copy(update={"since": str(first), "until": str(last), "when": None})

    @property
    def words(self) -> list[str]:
        """The texts that hits should be like, without empty ones."""
        return [each for each in self.q if weighted(each)[0].strip()]

    @property
    def boxed_id(self) -> str | None:
        """The stored picture of which the box is a part; None if it is part of another."""
        is_stored = self.box is not None and not self.image and len(self.like) == 1
        return weighted(self.like[0])[0] if is_stored else None

    def options(self) -> SearchOptions:
        """Return the options of the client's search, without those of the page."""
        filters, without = parse_filters(self.filter, in_address=True)
        if self.boxed_id is not None:
            # As of `like` without a box: the picture itself is not among the hits.
            without = {**without, "image_id": [*without.get("image_id", ()), self.boxed_id]}
        names = ("since", "until", "min_relevance", "num_candidates")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        given |= {each: getattr(self, each) for each in ("collapse", "explain", "exact")}
        given |= {each: True for each in ("regions", "codes") if getattr(self, each)}
        given["mode"] = self.mode
        options: SearchOptions = {
            **given,  # type: ignore[typeddict-item]
            "filters": filters,
            "without": without,
            "facets": self.facets,
        }
        return options

    def digest(self) -> str:
        """Hash of what is searched for, to which a cursor is bound."""
        asked = self.model_dump_json(exclude={"cursor", "k", "facets", "explain"})
        return hashlib.sha256(asked.encode()).hexdigest()[:16]


# Names that may stand several times in an address or a form.
LISTS: Final = frozenset(
    each.alias or name
    for name, each in SearchRequest.model_fields.items()
    if get_origin(each.annotation) is list
)


def weighted(text: str) -> tuple[str, float]:
    """Split TEXT^NUMBER into text and weight, by default 1.

    A ^ that no number follows is part of the text.
    Raises UsageError for a weight that is not above 0.
    """
    match = _WEIGHT.fullmatch(text)
    if match is None:
        return text, 1.0
    weight = float(match["weight"])
    if not 0 < weight < math.inf:
        raise UsageError(
            f"The weight behind ^ must be above 0, not {match['weight'][:20]}: to be unlike"
            " something is `not` or `unlike`."
        )
    return match["text"].rstrip(), weight


def _stored(text: str) -> Weighted:
    image_id, weight = weighted(text)
    return StoredPicture(image_id), weight


def write_cursor(request: SearchRequest, offset: int, generation: str) -> str:
    """Return a cursor that goes on at an offset, in this generation of the index."""
    plain = json.dumps([offset, request.digest(), generation])
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


class CursorOutdated(UsageError):
    """The cursor is of another search, or of another generation of the index."""


def read_cursor(request: SearchRequest, generation: str) -> int:
    """Return the offset of a cursor; 0 without one.  Raises CursorOutdated."""
    if not request.cursor:
        return 0
    try:
        padded = request.cursor + "=" * (-len(request.cursor) % 4)
        offset, digest, made_in = json.loads(base64.urlsafe_b64decode(padded))
    except (ValueError, TypeError, RecursionError):
        raise CursorOutdated("That is no cursor: send `next` of an answer, as it is.") from None
    if digest != request.digest():
        raise CursorOutdated("The cursor is of another search: leave it out to begin this one.")
    if made_in != generation:
        raise CursorOutdated("The index was made anew since: leave the cursor out to begin again.")
    if not (isinstance(offset, int) and 0 <= offset < MOST_HITS):
        raise CursorOutdated("That is no cursor: send `next` of an answer, as it is.")
    return offset
