"""What every search may be told besides its query."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, TypedDict, get_args

import numpy as np

from es_imgsearch.elastic.queries import check_k, check_whole
from es_imgsearch.errors import UsageError
from es_imgsearch.search.filters import Filters

Mode = Literal["vector", "text", "hybrid"]
_MODES = get_args(Mode)


class SearchOptions(TypedDict, total=False):
    """Options of every search, all of them optional.

    `mode`
        ``vector`` (default) compares vectors; ``text`` looks for words among the words stored
        (title, tags, caption, name, folder, description, text in the picture) and needs no
        model; ``hybrid`` does both and joins the rankings by their reciprocal ranks.
    `weights`
        {"content": 0.7, "colour": 0.3}: how much each vector of a picture counts.  `colour` is
        which colours are where, and needs a picture as the query.  By default the content alone.
    `filters`
        {field: value}, all of which a hit meets; see `filters.filter_clauses`.
    `since`, `until`
        the days between which a picture was taken (or modified, where no camera said).
    `offset`, `size`
        a page of the k hits: leave out the first `offset`, then give `size` (default: all).
    `collapse`
        of files with the same content only the best; still k hits where there are so many.
    `facets`
        fields to count the values of over all k hits, and ``year``; see `Hits.facets`.
    `explain`
        every hit says in `explanation` how its score came about.  `parts`: of each vector its
        weight, its cosine, and its `share` of the weighted mean; `queries`: the cosine of each
        query with the picture's content, and its weight; in mode hybrid also `ranks` in both
        lists and the `shares` of the fused score; `bm25` where words were looked for.
    `regions`
        compare the query with parts of pictures as well, so that a crop finds its original; a
        hit counts by the best of them, and says in `matched_box` which that is (`explain` tells
        the cosine of the whole all the same).  For an index made with `init --regions`; without
        weights and relevance.
    `codes`
        find candidates by their binary codes, which `es-imgsearch codes train` made, and put them
        in order by their vectors; without weights, regions and `exact`.
    `min_relevance`
        only hits of at least this relevance, 0 to 1, so fewer than k where there are not as
        many; in mode vector, without weights.
    `num_candidates`
        how many neighbours a shard weighs; more is slower and finds more.  By default what
        the index was tuned to; with codes 20 k.
    `exact`
        compare every picture instead of walking the graph.
    `fields`
        the stored fields that hits carry; by default all.
    """

    mode: Mode
    weights: Mapping[str, float] | None
    filters: Filters | None
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
    """`SearchOptions` with their defaults, checked."""

    k: int
    mode: Mode = "vector"
    weights: Mapping[str, float] | None = None
    filters: Filters | None = None
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

    @classmethod
    def parse(cls, k: int, options: SearchOptions | Mapping[str, Any]) -> SearchPlan:
        """Raises UsageError for values that cannot be, TypeError for names that are no option."""
        check_k(k)
        if unknown := sorted(options.keys() - SearchOptions.__annotations__.keys()):
            raise TypeError(
                f"A search has no option {unknown[0]!r}; there are"
                f" {', '.join(SearchOptions.__annotations__)}."
            )
        # An array that stands for a list of names is neither true nor false.
        lists = {
            name: each.tolist() for name, each in options.items() if isinstance(each, np.ndarray)
        }
        plan = cls(k=int(k), **{**options, **lists})
        if plan.mode not in _MODES:
            raise UsageError(f"There is no mode {plan.mode!r}; choose one of {', '.join(_MODES)}.")
        if plan.mode == "text" and plan.weights is not None:
            raise UsageError("Mode 'text' compares no vectors: leave the weights out.")
        _check_kinds(plan)
        if plan.regions:
            _check_regions(plan)
        if plan.codes:
            _check_codes(plan)
        if plan.min_relevance is not None:
            _check_relevance(plan.min_relevance, plan)
        _check_from_0("offset", plan.offset)
        if plan.size is not None:
            _check_from_0("size", plan.size)
        return plan

    @property
    def page(self) -> slice:
        """Which of the k hits are asked for."""
        offset = int(self.offset)
        end = self.k if self.size is None else min(self.k, offset + int(self.size))
        return slice(min(offset, end), end)


def _check_from_0(name: str, number: Any) -> None:
    check_whole(name, number)
    if number < 0:
        raise UsageError(f"{name} must be a whole number from 0 on, not {number}.")


def _check_kinds(plan: SearchPlan) -> None:
    """What is said once here need not be met, as a bare TypeError, further in."""
    for name in ("filters", "weights"):
        given = getattr(plan, name)
        if given is not None and not isinstance(given, Mapping):
            raise UsageError(f"{name} is a dict, not a {type(given).__name__}.")
    for name in ("facets", "fields"):
        given = getattr(plan, name)
        if given is not None and (isinstance(given, str) or not isinstance(given, Collection)):
            raise UsageError(
                f"facets and fields are lists of names, not one {type(given).__name__}."
            )
        for each in () if given is None else given:
            if not isinstance(each, str):
                raise UsageError(f"{name} is a list of names, and {each!r} is none.")
    for name in ("collapse", "explain", "regions", "codes", "exact"):
        if not isinstance(given := getattr(plan, name), (bool, np.bool_)):
            # "no" is as good as True to Python.
            raise UsageError(f"{name} is True or False, not {given!r}.")
    if plan.num_candidates is not None:
        check_whole("num_candidates", plan.num_candidates)


def _check_regions(plan: SearchPlan) -> None:
    if plan.mode == "text" or plan.weights is not None:
        raise UsageError(
            "Regions are compared by their content: leave mode 'text' and weights out, or regions."
        )
    if plan.min_relevance is not None:
        # The best of several cosines is higher than one, and no curve was fitted on it.
        raise UsageError(
            "Relevance was calibrated on whole pictures: leave min_relevance or regions out."
        )


def _check_codes(plan: SearchPlan) -> None:
    if plan.mode == "text" or plan.weights is not None or plan.regions or plan.exact:
        raise UsageError(
            "Codes are those of the content's vector: leave mode 'text', weights, regions and"
            " exact out, or codes."
        )
    given = plan.num_candidates
    if given is not None and given < plan.k:
        raise UsageError(f"num_candidates is {given} but must be at least k, which is {plan.k}.")


def _check_relevance(at_least: Any, plan: SearchPlan) -> None:
    if isinstance(at_least, bool) or not isinstance(at_least, (int, float)):
        raise UsageError(f"min_relevance must be a number, not a {type(at_least).__name__}.")
    if not 0 <= at_least <= 1:
        raise UsageError(f"min_relevance is a probability, from 0 to 1, not {at_least:g}.")
    if plan.mode != "vector" or plan.weights is not None:
        raise UsageError(
            "Relevance is that of the content's cosine: leave mode and weights out, or"
            " min_relevance."
        )
