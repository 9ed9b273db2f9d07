"""Options of every search: `SearchOptions` as passed, `SearchPlan` checked.

`num_candidates` stays None unless given: `elastic.queries.knn_body` then takes the tuned number,
`codes.queries` 20 k.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, TypedDict, get_args

import numpy as np

from es_imgsearch.elastic.queries import check_k, check_whole
from es_imgsearch.errors import UsageError, did_you_mean
from es_imgsearch.records import is_text
from es_imgsearch.search.filters import Filters

Mode = Literal["auto", "vector", "text", "hybrid"]
_MODES = get_args(Mode)


class SearchOptions(TypedDict, total=False):
    """Options of every search, passed by name; all of them are optional.

        search.search_text("harbour", mode="hybrid", filters={"folder": "2024"}, since="2024-05")

    `mode`
        ``vector`` compares vectors; ``text`` searches the stored words (title, tags, caption,
        name, folder, description, text in the picture) and needs no model; ``hybrid`` does both
        and fuses the rankings by reciprocal ranks.  ``auto`` (default) does both if the query is
        words that a picture's stored words match closely, else ``vector``; `Hits.mode` says which.
        Pictures that the words name as a whole (id, product id, name, path, tag) come first in
        all but ``vector``.
    `weights`
        {"content": 0.7, "colour": 0.3}: the weight of each vector of a picture.  `colour` compares
        which colours are where, and needs a picture as the query.  By default only the content.
    `filters`
        {field: value}; a hit meets all of them.  See `filters.filter_clauses`.
    `without`
        the same, but a hit meets none of them: {"folder": ["private", "scans"]}.  Pictures that
        have no value in such a field stay; {"location": None} leaves them out.
    `since`, `until`
        the first and the last day on which a picture was taken, by the camera's own clock (or
        last modified, by the clock of this machine, if nothing says when it was taken).  A time
        with an offset, such as ``2024-01-01T00:30+09:00``, is a moment instead.
    `offset`, `size`
        a page of the k hits: skip the first `offset`, then return `size` (default: all).
    `collapse`
        return only the best of files with the same content; still k hits if there are as many.
    `facets`
        fields whose values are counted over all k hits, or ``year``; see `Hits.facets`.
    `explain`
        fill `explanation` of every hit: `parts` has the weight, the cosine and the `share` of the
        weighted mean of each vector; `queries` the weight of each query and its cosine with the
        picture's content; in mode hybrid `ranks` the ranks in both lists, and `shares` their
        contributions to the score (`exact`: of being named); `bm25` the score of a search for
        words.
    `regions`
        compare the query with parts of pictures as well, so that a crop finds its original.  The
        best part counts, and `matched_box` is its box (`explain` still has the cosine of the
        whole).  For an index made with `init --regions`; not with weights or relevance.
    `codes`
        find candidates by their binary codes (`es-imgsearch codes train`) and order them by their
        vectors; not with weights, regions or `exact`.
    `min_relevance`
        return only hits of at least this relevance, 0 to 1, possibly fewer than k; not in mode
        text, and without weights.
    `num_candidates`
        the number of candidates per shard; more is slower and finds more.  By default the number
        that the index was tuned to; with codes 20 k.
    `exact`
        compare every picture instead of using the graph (exact kNN).
    `fields`
        the stored fields that hits have; by default all.
    """

    mode: Mode
    weights: Mapping[str, float] | None
    filters: Filters | None
    without: Filters | None
    since: str | date | None
    until: str | date | None
    offset: int
    size: int | None
    collapse: bool
    facets: Sequence[str]
    explain: bool
    regions: bool
    codes: bool
    min_relevance: float | None
    num_candidates: int | None
    exact: bool
    fields: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """Checked `SearchOptions`, with defaults."""

    k: int
    mode: Mode = "auto"
    weights: Mapping[str, float] | None = None
    filters: Filters | None = None
    without: Filters | None = None
    since: str | date | None = None
    until: str | date | None = None
    offset: int = 0
    size: int | None = None
    collapse: bool = False
    facets: Sequence[str] = ()
    explain: bool = False
    regions: bool = False
    codes: bool = False
    min_relevance: float | None = None
    num_candidates: int | None = None
    exact: bool = False
    fields: Sequence[str] | None = None
    # The mode was chosen by the query.
    is_auto: bool = False

    @classmethod
    def parse(cls, k: int, options: SearchOptions | Mapping[str, Any]) -> SearchPlan:
        """Check options; raise UsageError for values, TypeError for unknown names."""
        check_k(k)
        if unknown := sorted(options.keys() - SearchOptions.__annotations__.keys()):
            raise TypeError(
                f"A search has no option {unknown[0]!r}; there are"
                f" {', '.join(SearchOptions.__annotations__)}."
            )
        # An array as a list of names has no truth value, on which the checks below rely.
        lists = {
            name: each.tolist() for name, each in options.items() if isinstance(each, np.ndarray)
        }
        plan = cls(k=int(k), **{**options, **lists})
        if plan.mode not in _MODES:
            raise UsageError(
                f"There is no mode {plan.mode!r}; choose one of {', '.join(_MODES)}."
                f"{did_you_mean(plan.mode, _MODES)}"
            )
        if plan.mode == "text" and plan.weights is not None:
            raise UsageError("Mode 'text' compares no vectors: leave the weights out.")
        _check_kinds(plan)
        if plan.regions:
            _check_regions(plan)
        if plan.codes:
            _check_codes(plan)
        if plan.min_relevance is not None:
            check_relevance(plan.min_relevance)
            if plan.mode == "text" or plan.weights is not None:
                raise UsageError(
                    "Relevance is computed from the content's cosine: leave mode 'text' and weights"
                    " out, or min_relevance."
                )
        _check_not_negative("offset", plan.offset)
        if plan.size is not None:
            _check_not_negative("size", plan.size)
        return plan

    @property
    def page(self) -> slice:
        """The requested part of the k hits."""
        offset = int(self.offset)
        end = self.k if self.size is None else min(self.k, offset + int(self.size))
        return slice(min(offset, end), end)


def _check_not_negative(name: str, number: Any) -> None:
    check_whole(name, number)
    if number < 0:
        raise UsageError(f"{name} must be a whole number from 0 on, not {number}.")


def _check_kinds(plan: SearchPlan) -> None:
    """Check types, so that a wrong one is a UsageError, not a TypeError later."""
    for name in ("filters", "without", "weights"):
        value = getattr(plan, name)
        if value is not None and not isinstance(value, Mapping):
            raise UsageError(f"{name} is a dict, not a {type(value).__name__}.")
    for each in plan.weights or ():
        if not isinstance(each, str):
            raise UsageError(f"weights is a dict of names, and {each!r} is none.")
    for name in ("facets", "fields"):
        _check_names(name, getattr(plan, name))
    for name in ("collapse", "explain", "regions", "codes", "exact"):
        if not isinstance(value := getattr(plan, name), (bool, np.bool_)):
            # The string "no" would be true.
            raise UsageError(f"{name} is True or False, not {value!r}.")
    if plan.num_candidates is not None:
        check_whole("num_candidates", plan.num_candidates)


def _check_names(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, str) or not isinstance(value, Collection):
        raise UsageError(f"facets and fields are lists of names, not one {type(value).__name__}.")
    for each in value:
        if not isinstance(each, str) or not is_text(each):
            raise UsageError(f"{name} is a list of names, and {each!r} is none.")


def _check_regions(plan: SearchPlan) -> None:
    if plan.mode == "text" or plan.weights is not None:
        raise UsageError(
            "Regions are compared by their content: leave mode 'text' and weights out, or regions."
        )
    if plan.min_relevance is not None:
        # The best of several cosines is higher than a single one, on which the curve was fitted.
        raise UsageError(
            "Relevance was calibrated on whole pictures: leave min_relevance or regions out."
        )


def _check_codes(plan: SearchPlan) -> None:
    if plan.mode == "text" or plan.weights is not None or plan.regions or plan.exact:
        raise UsageError(
            "Codes are made of the content's vector: leave mode 'text', weights, regions and"
            " exact out, or codes."
        )
    value = plan.num_candidates
    if value is not None and value < plan.k:
        raise UsageError(f"num_candidates is {value} but must be at least k, which is {plan.k}.")


def check_relevance(minimum: Any) -> None:
    """Raise UsageError unless the value is a probability."""
    if isinstance(minimum, bool) or not isinstance(minimum, (int, float)):
        raise UsageError(f"min_relevance must be a number, not a {type(minimum).__name__}.")
    if not 0 <= minimum <= 1:
        raise UsageError(f"min_relevance is a probability, from 0 to 1, not {minimum:g}.")
