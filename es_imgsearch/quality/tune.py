"""`tune`: find and store the cheapest kNN setting that reaches a target recall.

Half of the sampled queries choose the setting, the other half confirms it.  For each k the number
of candidates rises until the target is reached; if the recall stops rising below the target,
quantisation is the cause, and the oversample is raised instead.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta_entries import TunedK, Tuning
from es_imgsearch.elastic.queries import MAX_NUM_CANDIDATES, knn_body
from es_imgsearch.errors import TextUnsupported, UsageError
from es_imgsearch.manage.upgrade import upgrade
from es_imgsearch.quality.recall import TuningPoint, knn_recall, recall_lower_bound
from es_imgsearch.quality.tune_queries import (
    PICTURE,
    TEXT,
    SampledQuery,
    collect_texts,
    embed_distinct_texts,
    sample_pictures,
    sample_queries,
    timed_search,
)
from es_imgsearch.records import iso_timestamp

if TYPE_CHECKING:
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.embed.protocol import Encoder


TUNED_KS = (1, 10, 100)
DEFAULT_TARGET_RECALL = 0.95
DEFAULT_QUERIES = 400

# 1 rescores every candidate; less would leave hits with scores of quantised vectors, which are not
# cosines.
OVERSAMPLES = (1.0, 2.0, 3.0, 5.0, 10.0)
_QUANTISED = ("int8", "int4", "bbq")

# With few candidates the recall of sampled queries exceeds that of new ones: .938 and .914 with 10,
# .986 and .984 with 20 (see `tune_queries`; 15,000 synthetic vectors of 512 dims).  More candidates
# cost next to nothing: among 100,000 vectors, 10 took 1.8 ms and 50 took 1.9 ms.
_MIN_CANDIDATES = 20

# Steps of num_candidates within a power of ten: each about 1.5 times the one before.
_STEPS = (1, 1.5, 2, 3, 5, 7)

# Recall has stopped rising if twice the candidates find less than this share of the missed
# neighbours; if only num_candidates is too small, they find half (benchmarks/knn_settings.py).
_MIN_GAIN = 0.1

# Untimed searches before a measurement, since the first ones fill the server's caches.
_WARM_UP_QUERIES = 10


class KnnSetting(NamedTuple):
    """num_candidates, and the position of the oversample in the list of those to try."""

    num_candidates: int
    level: int


Measure = Callable[[KnnSetting], TuningPoint]


@dataclass(frozen=True, slots=True)
class TuningResult:
    """Measurements of `tune`, and the stored setting.

    `curve` holds every measured point; `exact_ms` is the median round trip of a search that
    compares every vector; `raised_for` are the k whose setting was raised because the held-back
    queries needed more; `missed` are the k for which no setting reached the target, and the best
    one was stored.
    """

    tuning: Tuning
    curve: tuple[TuningPoint, ...]
    exact_ms: float
    raised_for: tuple[int, ...]
    missed: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, as `tune --json` prints them."""
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
    on_point: Callable[[TuningPoint], None] = lambda _point: None,
) -> TuningResult:
    """Measure, choose and store the kNN setting of an index for k = 1, 10 and 100.

    Searches with `queries` vectors derived from stored ones and, given an `encoder` of text, with
    a quarter as many texts: `texts`, or captions, tags and names of stored pictures.  The target
    holds for both kinds.  `oversamples` are tried in order if vectors are quantised.

    Raises UsageError if the index holds too few pictures, TextUnsupported for `texts` with an
    encoder of pictures only, GenerationSwitched if the index becomes another generation meanwhile.
    """
    if not 0 < target_recall <= 1:
        raise UsageError(f"target_recall must be above 0 and at most 1, not {target_recall:g}.")
    if not 2 <= queries <= MAX_NUM_CANDIDATES:
        raise UsageError(f"queries must be between 2 and {MAX_NUM_CANDIDATES}, not {queries}.")
    upgrade(store)
    store = store.pinned()
    with store.switching.while_serving("tune"):
        return _tune(store, target_recall, queries, encoder, texts, seed, oversamples, on_point)


def _tune(
    store: Store,
    target_recall: float,
    queries: int,
    encoder: Encoder | None,
    texts: Sequence[str] | None,
    seed: int,
    oversamples: Sequence[float],
    on_point: Callable[[TuningPoint], None],
) -> TuningResult:
    store.refresh()
    info = store.info()
    pictures = sample_pictures(store, queries, seed)
    vectors = None
    if encoder is not None and encoder.supports_text:
        if texts is None:
            texts = collect_texts(pictures, max(2, queries // 4))
        vectors = embed_distinct_texts(encoder, texts) if texts else None
    elif texts is not None:
        raise TextUnsupported("The index's encoder embeds pictures only: leave the texts out.")
    sampled = list(sample_queries(store, info, pictures, max(TUNED_KS), seed, vectors))
    halves = _split_halves(sampled)
    if halves is None:
        raise UsageError(
            f"Index {store.index!r} holds too few different pictures to tune by: fill it first with"
            f" `es-imgsearch sync DIR --index {store.index}`."
        )
    pictures_stored = store.listings.count()
    levels = oversamples if _is_quantised(info.properties[VECTOR_FIELD]) else (None,)
    measurement = _Measurement(store, levels, on_point)
    per_k: list[TunedK] = []
    raised, missed = [], []
    for k in TUNED_KS:
        chosen, confirmed = measurement.choose_setting(k, halves, target_recall, pictures_stored)
        if confirmed.recall < target_recall - 1e-9:
            missed.append(k)
        elif _cost(confirmed) != _cost(chosen):
            raised.append(k)
        recall = round(confirmed.recall, 4)
        per_k.append(TunedK(k, confirmed.num_candidates, confirmed.oversample, recall))
    for_ten = next(each for each in per_k if each.k == 10)
    tuning = Tuning(
        num_candidates=for_ten.num_candidates,
        oversample=for_ten.oversample,
        per_k=tuple(per_k),
        target_recall=target_recall,
        pictures=pictures_stored,
        queries_tuned_on=len(halves[0]),
        queries_held_back=len(halves[1]),
        tuned_at=iso_timestamp(),
    )
    store.switching.check_serving()
    store.generations.update_meta(lambda meta: replace(meta, tuning=tuning))
    exact_ms = statistics.median(each.exact_ms for each in sampled)
    return TuningResult(tuning, tuple(measurement.curve), exact_ms, tuple(raised), tuple(missed))


def _is_quantised(field: Mapping[str, Any]) -> bool:
    return str(field.get("index_options", {}).get("type", "")).startswith(_QUANTISED)


def _split_halves(
    sampled: Sequence[SampledQuery],
) -> tuple[list[SampledQuery], list[SampledQuery]] | None:
    """Split queries in two halves of all kinds; None without two queries of any kind."""
    kinds = [[each for each in sampled if each.kind == kind] for kind in (PICTURE, TEXT)]
    # A single query of a kind could be tuned on, but not confirmed.
    kinds = [kind for kind in kinds if len(kind) > 1]
    if not kinds:
        return None
    return [e for kind in kinds for e in kind[::2]], [e for kind in kinds for e in kind[1::2]]


class _Measurement:
    """Measure settings on the index; record every point of the curve."""

    def __init__(
        self,
        store: Store,
        levels: Sequence[float | None],
        on_point: Callable[[TuningPoint], None],
    ) -> None:
        self.curve: list[TuningPoint] = []
        self._store = store
        self._levels = levels
        self._on_point = on_point

    def choose_setting(
        self,
        k: int,
        halves: tuple[Sequence[SampledQuery], Sequence[SampledQuery]],
        target: float,
        pictures: int,
    ) -> tuple[TuningPoint, TuningPoint]:
        """Return the point chosen on one half, and the one confirmed on the other."""
        # The lower bound, since of new queries half would be below a mean that just reaches the
        # target.
        most = max(k, _MIN_CANDIDATES, min(pictures, MAX_NUM_CANDIDATES))
        start = KnnSetting(max(k, _MIN_CANDIDATES), 0)
        setting, chosen = find_setting(
            self._measure(k, halves[0], held_back=False),
            lambda point: point.lower_bound >= target - 1e-9,
            levels=len(self._levels),
            most=most,
            start=start,
        )
        _, confirmed = find_setting(
            self._measure(k, halves[1], held_back=True),
            lambda point: point.recall >= target - 1e-9,
            levels=len(self._levels),
            most=most,
            start=setting,
        )
        return chosen, confirmed

    def _measure(self, k: int, queries: Sequence[SampledQuery], *, held_back: bool) -> Measure:
        def measure(setting: KnnSetting) -> TuningPoint:
            oversample = self._levels[setting.level]
            for query in queries[:_WARM_UP_QUERIES]:
                timed_search(self._store, _body(query, k, setting.num_candidates, oversample))
            recalls: dict[str, list[float]] = {}
            took, wall = [], []
            for query in queries:
                body = _body(query, k, setting.num_candidates, oversample)
                hits, took_ms, wall_ms = timed_search(self._store, body)
                others = [each for each in hits if each.image_id not in query.own]
                recalls.setdefault(query.kind, []).append(
                    knn_recall(k, others, query.exact, scores_are_exact=oversample != 0)
                )
                took.append(took_ms)
                wall.append(wall_ms)
            point = TuningPoint(
                k=k,
                num_candidates=setting.num_candidates,
                oversample=oversample,
                recall_by_kind={kind: statistics.fmean(each) for kind, each in recalls.items()},
                lower_bound=min(recall_lower_bound(np.array(each)) for each in recalls.values()),
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
    """Build the search; raise k and candidates by the pictures the query was made of.

    A filter that excludes these pictures would test every document, a cost that users' searches
    do not have.
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


def find_setting(
    measure: Measure,
    reached: Callable[[TuningPoint], bool],
    *,
    levels: int,
    most: int,
    start: KnnSetting,
) -> tuple[KnnSetting, TuningPoint]:
    """Return the first setting from `start` upwards that is good enough, or the best.

    On each level num_candidates rises up to `most`; once the recall stops rising, the next level
    begins with the num_candidates of `start`.  The last level is tried to its end.
    """
    tried: list[tuple[KnnSetting, TuningPoint]] = []
    for level in range(start.level, levels):
        misses: list[float] = []
        for num_candidates in candidate_steps(start.num_candidates, most):
            setting = KnnSetting(num_candidates, level)
            point = measure(setting)
            if reached(point):
                return setting, point
            tried.append((setting, point))
            misses.append(1 - point.recall)
            if level + 1 < levels and has_stopped_falling(misses):
                break
    return max(tried, key=lambda each: each[1].recall)


def candidate_steps(first: int, most: int) -> Iterator[int]:
    """Yield `first`, then about 1.5 times as many each time, and `most` last."""
    last = 0
    for power in range(math.ceil(math.log10(max(most / first, 1))) + 1):
        for factor in _STEPS:
            value = min(math.ceil(first * factor * 10**power), most)
            if value > last:
                yield value
            last = value


def has_stopped_falling(misses: Sequence[float]) -> bool:
    """Return whether twice the candidates, the last two steps, hardly reduced misses."""
    return len(misses) > 2 and misses[-1] > (1 - _MIN_GAIN) * misses[-3]


def _cost(point: TuningPoint) -> tuple[float, int]:
    return point.oversample or 0.0, point.num_candidates
