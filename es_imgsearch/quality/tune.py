"""`tune`: the cheapest kNN setting that finds what exact search finds, measured on the index.

Half of the sampled queries choose the setting, the other half confirms it.  For each k the number
of candidates climbs until the target is reached; where the recall stops rising below it, what
was quantised is to blame, and the oversample is raised instead.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.meta_entries import TunedK, Tuning
from es_imgsearch.elastic.queries import MAX_NUM_CANDIDATES, knn_body
from es_imgsearch.errors import TextUnsupported, UsageError
from es_imgsearch.quality.tune_queries import (
    PICTURE,
    TEXT,
    Point,
    SampledQuery,
    embedded_texts,
    lower_bound,
    recall_at,
    sampled_queries,
    stored_pictures,
    timed_search,
    words_of,
)
from es_imgsearch.records import iso_timestamp

if TYPE_CHECKING:
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.embed.protocol import Encoder


TUNED_KS = (1, 10, 100)
DEFAULT_TARGET_RECALL = 0.95
DEFAULT_QUERIES = 400

# 1 compares every candidate again; less would leave hits with the scores of quantised vectors,
# which are no cosines.
OVERSAMPLES = (1.0, 2.0, 3.0, 5.0, 10.0)
_QUANTISED = ("int8", "int4", "bbq")

# A narrow walk hides from sampled queries what it misses of new ones: as wide as 10 it found .938
# and .914 of their true ten, as wide as 20 .986 and .984 (`query_sample`; 15,000 synthetic vectors
# of 512 dims).  Ten more cost next to nothing: of 100,000 vectors, 10 took 1.8 ms and 50 1.9 ms.
_LEAST_CANDIDATES = 20

# Steps of num_candidates, as multiples of k: each about 1.5 times the one before.
_STEPS = (1, 1.5, 2, 3, 5, 7)

# It rises no more when twice the candidates find less than this of what was missing; on a graph
# that is only too narrow they find half of it (benchmarks/knn_settings.py).
_FOUND_OF_MISSING = 0.1

# The first searches warm the server's caches.
_WARM_UP = 10


class Setting(NamedTuple):
    """num_candidates, and the position of the oversample among those that may be tried."""

    num_candidates: int
    level: int


Measure = Callable[[Setting], Point]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `tune` measured and stored.

    `curve` has every measured point; `exact_ms` is the median round trip of a search that
    compares every vector; `raised_for` the k whose setting was raised since the held-back queries
    asked for more; `missed` the k for which no setting reached the target: what is stored for
    them is the best there was.
    """

    tuning: Tuning
    curve: tuple[Point, ...]
    exact_ms: float
    raised_for: tuple[int, ...]
    missed: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `tune --json` prints them."""
        return {
            "target_recall": self.tuning.target_recall,
            "reached": not self.missed,
            "missed": list(self.missed),
            "raised_for": list(self.raised_for),
            "exact_ms": self.exact_ms,
            "tuning": self.tuning.to_body(),
            "curve": [asdict(point) | {"recall": point.recall} for point in self.curve],
        }


def tune(
    store: Store,
    *,
    target_recall: float = DEFAULT_TARGET_RECALL,
    queries: int = DEFAULT_QUERIES,
    encoder: Encoder | None = None,
    texts: Sequence[str] | None = None,
    seed: int = 0,
    oversamples: Sequence[float] = OVERSAMPLES,
    on_point: Callable[[Point], None] = lambda _point: None,
) -> Outcome:
    """Measure, choose and store the setting of this index for k = 1, 10 and 100.

    `queries` vectors made of stored ones are searched with; with an `encoder` that knows text a
    quarter as many texts besides: `texts`, or what stored pictures are called.  The target holds
    for either kind.  `oversamples` are tried in order where vectors are quantised.

    Raises UsageError where the index holds too little to tell, TextUnsupported where `texts` are
    given to an encoder that knows none, GenerationSwitched where the index becomes another
    generation meanwhile.
    """
    if not 0 < target_recall <= 1:
        raise UsageError(f"target_recall must be above 0 and at most 1, not {target_recall:g}.")
    if not 2 <= queries <= MAX_NUM_CANDIDATES:
        raise UsageError(f"queries must be between 2 and {MAX_NUM_CANDIDATES}, not {queries}.")
    store = store.pinned()
    with store.switching.while_serving("tune"):
        return _tuned(store, target_recall, queries, encoder, texts, seed, oversamples, on_point)


def _tuned(
    store: Store,
    target_recall: float,
    queries: int,
    encoder: Encoder | None,
    texts: Sequence[str] | None,
    seed: int,
    oversamples: Sequence[float],
    on_point: Callable[[Point], None],
) -> Outcome:
    store.refresh()
    info = store.info()
    pictures = stored_pictures(store, queries, seed)
    vectors = None
    if encoder is not None and encoder.supports_text:
        wanted = words_of(pictures, max(2, queries // 4)) if texts is None else list(texts)
        vectors = embedded_texts(encoder, wanted) if wanted else None
    elif texts is not None:
        raise TextUnsupported("The encoder of this index knows pictures only: leave the texts out.")
    sampled = list(sampled_queries(store, info, pictures, max(TUNED_KS), seed, vectors))
    halves = _halves(sampled)
    if halves is None:
        raise UsageError(
            f"Index {store.index!r} holds too few different pictures to tune by: fill it first with"
            " `es-imgsearch sync DIR`."
        )
    pictures_stored = store.listings.count()
    levels = oversamples if _is_quantised(info.properties[VECTOR_FIELD]) else (None,)
    bench = _Bench(store, levels, on_point)
    found: list[TunedK] = []
    raised, missed = [], []
    for k in TUNED_KS:
        chosen, confirmed = bench.settle(k, halves, target_recall, pictures_stored)
        if confirmed.recall < target_recall - 1e-9:
            missed.append(k)
        elif _cost(confirmed) != _cost(chosen):
            raised.append(k)
        recall = round(confirmed.recall, 4)
        found.append(TunedK(k, confirmed.num_candidates, confirmed.oversample, recall))
    of_ten = next(each for each in found if each.k == 10)
    tuning = Tuning(
        num_candidates=of_ten.num_candidates,
        oversample=of_ten.oversample,
        per_k=tuple(found),
        target_recall=target_recall,
        pictures=pictures_stored,
        queries_tuned_on=len(halves[0]),
        queries_held_back=len(halves[1]),
        tuned_at=iso_timestamp(),
    )
    store.switching.check_serving()
    store.generations.update_meta(lambda meta: _with_tuning(meta, tuning))
    exact_ms = statistics.median(each.exact_ms for each in sampled)
    return Outcome(tuning, tuple(bench.curve), exact_ms, tuple(raised), tuple(missed))


def _with_tuning(meta: Meta, tuning: Tuning) -> Meta:
    return replace(meta, tuning=tuning)


def _is_quantised(field: Mapping[str, Any]) -> bool:
    return str(field.get("index_options", {}).get("type", "")).startswith(_QUANTISED)


def _halves(
    sampled: Sequence[SampledQuery],
) -> tuple[list[SampledQuery], list[SampledQuery]] | None:
    """Every other query of each kind; None where there are not two of any."""
    kinds = [[each for each in sampled if each.kind == kind] for kind in (PICTURE, TEXT)]
    # A kind of which there is one could be tuned on and not confirmed.
    kinds = [kind for kind in kinds if len(kind) > 1]
    if not kinds:
        return None
    return [e for kind in kinds for e in kind[::2]], [e for kind in kinds for e in kind[1::2]]


class _Bench:
    """Runs queries against the index and keeps every point of the curve."""

    def __init__(
        self,
        store: Store,
        levels: Sequence[float | None],
        on_point: Callable[[Point], None],
    ) -> None:
        self.curve: list[Point] = []
        self._store = store
        self._levels = levels
        self._on_point = on_point

    def settle(
        self,
        k: int,
        halves: tuple[Sequence[SampledQuery], Sequence[SampledQuery]],
        target: float,
        pictures: int,
    ) -> tuple[Point, Point]:
        """What one half chose, and what the other confirmed or raised it to."""
        # The lower bound, since a mean that just reaches the target is as often below it for
        # the queries that come.
        most = max(k, _LEAST_CANDIDATES, min(pictures, MAX_NUM_CANDIDATES))
        start = Setting(max(k, _LEAST_CANDIDATES), 0)
        setting, chosen = climb(
            self._measure(k, halves[0], held_back=False),
            lambda point: point.lower_bound >= target - 1e-9,
            levels=len(self._levels),
            most=most,
            start=start,
        )
        _, confirmed = climb(
            self._measure(k, halves[1], held_back=True),
            lambda point: point.recall >= target - 1e-9,
            levels=len(self._levels),
            most=most,
            start=setting,
        )
        return chosen, confirmed

    def _measure(self, k: int, queries: Sequence[SampledQuery], *, held_back: bool) -> Measure:
        def measure(setting: Setting) -> Point:
            oversample = self._levels[setting.level]
            for query in queries[:_WARM_UP]:
                timed_search(self._store, _body(query, k, setting.num_candidates, oversample))
            recalls: dict[str, list[float]] = {}
            took, wall = [], []
            for query in queries:
                body = _body(query, k, setting.num_candidates, oversample)
                found, took_ms, wall_ms = timed_search(self._store, body)
                others = [each for each in found if each.image_id not in query.own]
                recalls.setdefault(query.kind, []).append(
                    recall_at(k, others, query.exact, scores_are_exact=oversample != 0)
                )
                took.append(took_ms)
                wall.append(wall_ms)
            point = Point(
                k=k,
                num_candidates=setting.num_candidates,
                oversample=oversample,
                recall_by_kind={kind: statistics.fmean(each) for kind, each in recalls.items()},
                lower_bound=min(lower_bound(np.array(each)) for each in recalls.values()),
                took_ms=statistics.fmean(took),
                wall_ms=statistics.median(wall),
                held_back=held_back,
            )
            self.curve.append(point)
            self._on_point(point)
            return point

        return measure


def _body(
    query: SampledQuery, k: int, num_candidates: int, oversample: float | None
) -> dict[str, Any]:
    """The search, with room for what the query was made of besides the k and the candidates.

    A filter that leaves it out would cost what the searches to come do not pay: a look at every
    document.
    """
    own = len(query.own)
    candidates = min(num_candidates + own, MAX_NUM_CANDIDATES)
    if oversample:
        oversample = max(1.0, (num_candidates * oversample + own) / candidates)
    return knn_body(
        query.vector,
        min(k + own, candidates),
        Tuning(oversample=oversample),
        num_candidates=candidates,
        source=False,
    )


def climb(
    measure: Measure,
    reached: Callable[[Point], bool],
    *,
    levels: int,
    most: int,
    start: Setting,
) -> tuple[Setting, Point]:
    """The first setting from `start` upwards that is good enough, else the best of all.

    On each level num_candidates climbs to `most`; a recall that has stopped rising goes on to
    the next level, from the start's num_candidates.  The last level is climbed to its end.
    """
    tried: list[tuple[Setting, Point]] = []
    for level in range(start.level, levels):
        misses: list[float] = []
        for num_candidates in steps(start.num_candidates, most):
            setting = Setting(num_candidates, level)
            point = measure(setting)
            if reached(point):
                return setting, point
            tried.append((setting, point))
            misses.append(1 - point.recall)
            if level + 1 < levels and has_stopped_falling(misses):
                break
    return max(tried, key=lambda each: each[1].recall)


def steps(first: int, most: int) -> Iterator[int]:
    """first, then about 1.5 times as many each, and `most` last."""
    last = 0
    for power in range(math.ceil(math.log10(max(most / first, 1))) + 1):
        for factor in _STEPS:
            value = min(math.ceil(first * factor * 10**power), most)
            if value > last:
                yield value
            last = value


def has_stopped_falling(misses: Sequence[float]) -> bool:
    """Whether the last two steps, twice the candidates, found next to nothing that was missing."""
    return len(misses) > 2 and misses[-1] > (1 - _FOUND_OF_MISSING) * misses[-3]


def _cost(point: Point) -> tuple[float, int]:
    return point.oversample or 0.0, point.num_candidates
