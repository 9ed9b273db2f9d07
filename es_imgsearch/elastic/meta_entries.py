"""Entries of `_meta`: tuning, reduction, codes, relevance curves, copy checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

# For an index that was not tuned: its num_candidates is for k = 10, and a larger k needs more.  The
# server's own default is 1.5 k, which found .95 (int8) and .87 (int4) of the true ten of 10,000
# vectors, the profiles' tuning all of them (benchmarks/knn_settings.py).
_CANDIDATES_PER_HIT = 2

# A graph is searched with a width of num_candidates; for a small k that alone decides the recall.
# Half-way between 3 for k = 1 and 15 for k = 10, 9 candidates found .924 of the true five where .95
# was the target (2,000 vectors).
_WIDTH_DECIDES_UP_TO_K = 10


LARGEST_SEGMENT: Final = "merge.policy.max_merged_segment"


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """Shards of an index, their copies, and how they are stored and opened.

    `replicas` None: one more copy once there are two data nodes.  `preload`: endings of the files
    that are read into memory when a shard is opened; None was never chosen, () means none.
    `max_merged_segment` None: that of mappings/common.json.  By itself Elasticsearch merges up to
    5 GB, so a shard of 40 GB has eight large segments and more; up to 20 GB it has two, and a merge
    writes half of what is kept free for it (`plan`).
    """

    shards: int = 1
    replicas: int | None = None
    preload: tuple[str, ...] | None = None
    max_merged_segment: str | None = None

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Parse the settings of an index."""
        is_automatic = settings.get("auto_expand_replicas", "false") != "false"
        replicas = None if is_automatic else int(settings.get("number_of_replicas", 0))
        preload = settings.get("store", {}).get("preload")
        return cls(
            int(settings.get("number_of_shards", 1)),
            replicas,
            None if preload is None else tuple(preload),
            settings.get("merge", {}).get("policy", {}).get("max_merged_segment"),
        )

    def copies(self) -> dict[str, Any]:
        """Settings of the copies, which may change later."""
        if self.replicas is None:
            return {"auto_expand_replicas": "0-1"}
        return {"auto_expand_replicas": False, "number_of_replicas": self.replicas}

    def to_settings(self) -> dict[str, Any]:
        settings = {"number_of_shards": self.shards, **self.copies()}
        if self.preload is not None:
            settings["store.preload"] = list(self.preload)
        if self.max_merged_segment is not None:
            settings[LARGEST_SEGMENT] = self.max_merged_segment
        return settings


@dataclass(frozen=True, slots=True)
class TunedK:
    """Tuned setting for one k, and its recall@k on held-out queries."""

    k: int
    num_candidates: int
    oversample: float | None
    recall: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """Settings of the kNN searches of an index.

    `num_candidates` is per shard; `oversample` sets how many are compared again with the full
    vectors, None for vectors that are not quantised.  Both are for k = 10; `per_k` has those of
    other k.  The rest documents the measurement and is None on an index that was never tuned.

    A top-level kNN search of Elasticsearch 8.19.13 compares num_candidates · oversample vectors
    a shard again, not k · oversample as documented: 50 · 2 and 100 · 1 found the same
    (recall@100 of 1-bit codes: .785 with 100 · 2 and with 200 · 1, .986 with 500 · 2,
    200 · 5 and 1000 · 1).  9.4 compares k · oversample, so `knn_body` asks for k = num_candidates.
    """

    num_candidates: int = 50
    oversample: float | None = None
    per_k: tuple[TunedK, ...] = ()
    target_recall: float | None = None
    pictures: int | None = None
    queries_tuned_on: int | None = None
    queries_held_back: int | None = None
    tuned_at: str | None = None

    def for_k(self, k: int) -> tuple[int, float | None]:
        """Choose num_candidates and oversample for any k.

        Up to k = 10: those of the next tuned k.  Between two tuned k: the larger of linear and
        power-law interpolation, and the larger oversample.  Above the last: in proportion to k.
        """
        if not self.per_k:
            return max(self.num_candidates, _CANDIDATES_PER_HIT * k), self.oversample
        tuned = sorted(self.per_k, key=lambda each: each.k)
        low = max((each for each in tuned if each.k <= k), key=lambda each: each.k, default=None)
        high = next((each for each in tuned if each.k >= k), None)
        if high is None:
            last = tuned[-1]
            return max(k, math.ceil(last.num_candidates * k / last.k)), last.oversample
        if low is None or low is high or high.k <= _WIDTH_DECIDES_UP_TO_K:
            return max(k, high.num_candidates), high.oversample
        share = (k - low.k) / (high.k - low.k)
        line = low.num_candidates + share * (high.num_candidates - low.num_candidates)
        growth = math.log(high.num_candidates / low.num_candidates) / math.log(high.k / low.k)
        power = low.num_candidates * (k / low.k) ** growth
        oversamples = [each.oversample for each in (low, high) if each.oversample is not None]
        return max(k, math.ceil(max(line, power))), max(oversamples, default=None)

    def to_body(self) -> dict[str, Any]:
        """Body for `_meta`; unknown values are left out."""
        body = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return body | {
            "oversample": self.oversample,
            **({"per_k": [asdict(each) for each in self.per_k]} if self.per_k else {}),
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Tuning:
        """Parse an entry.  Raises TypeError or AttributeError for a body of another shape."""
        per_k = tuple(TunedK(**each) for each in body.get("per_k", ()))
        return cls(**{**body, "per_k": per_k})


@dataclass(frozen=True, slots=True)
class ReductionEntry:
    """Reduction of the vectors of an index (profile `reduced`).

    `hash` is the id of the document of `<index>-reduction` with the matrix.  `oversample` times k
    candidates are compared again with their original vectors, which are in `originals`: the `path`
    of an export file and the `host` it is on.
    """

    hash: str
    dims_kept: int
    variance_kept: float
    oversample: float = 1.0
    originals: Mapping[str, str] | None = None

    def to_body(self) -> dict[str, Any]:
        body = asdict(self)
        return {name: value for name, value in body.items() if value is not None}

    @classmethod
    def from_body(cls, body: Mapping[str, Any] | None) -> ReductionEntry | None:
        """Parse an entry.  Raises TypeError for a body of another shape."""
        return None if body is None else cls(**body)

    def with_originals(self, path: str, host: str) -> ReductionEntry:
        return replace(self, originals={"path": path, "host": host})


CODE_FIELD: Final = "image_code"


@dataclass(frozen=True, slots=True)
class CodesEntry:
    """Binary codes of an index.

    `hash` is the id of the document of `<index>-codes` with the coder; `trained_at` is when it came
    into use (ISO 8601, UTC).  `until` holds, by shard, the sequence numbers up to which documents
    were written before that; empty if they are not known.
    """

    hash: str
    method: str
    bits: int
    trained_at: str
    until: Mapping[str, int] = field(default_factory=dict)

    def to_body(self) -> dict[str, Any]:
        body = asdict(self)
        if not self.until:
            del body["until"]
        return body

    @classmethod
    def from_body(cls, body: Mapping[str, Any] | None) -> CodesEntry | None:
        """Parse an entry.  Raises TypeError for a body of another shape."""
        return None if body is None else cls(**body)

    def elsewhere(self) -> CodesEntry:
        """Copy the entry for another generation, which has other sequence numbers."""
        return replace(self, until={})


def code_mapping(bits: int) -> dict[str, Any]:
    """Mapping of the field `image_code`.

    Searched by a graph: among 50,000 codes of 128 bits it finds as much as comparing all of them
    (.974 and .971 of the true ten with 200 candidates), in 7 instead of 13 ms.
    """
    return {
        "type": "dense_vector",
        "element_type": "bit",
        "dims": bits,
        "index": True,
        "index_options": {"type": "hnsw", "m": 16, "ef_construction": 100},
    }


@dataclass(frozen=True, slots=True)
class CopyCheckpoint:
    """Up to which sequence numbers a generation was copied from another one.

    `until` holds them by shard of the generation `source`.  Documents that were written there
    later are not copied yet.
    """

    source: str
    until: Mapping[str, int] = field(default_factory=dict)

    def to_body(self) -> dict[str, Any]:
        return {"source": self.source, "until": dict(self.until)}

    @classmethod
    def from_body(cls, body: Mapping[str, Any] | None) -> CopyCheckpoint | None:
        """Parse an entry.  Raises KeyError or TypeError for a body of another shape."""
        return None if body is None else cls(body["source"], dict(body["until"]))


@dataclass(frozen=True, slots=True)
class Curve:
    """Logistic curve of relevance for one encoder and kind of query."""

    intercept: float
    z_weight: float
    cosine_weight: float

    def probability(self, z: npt.ArrayLike, cosine: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Relevance (0 to 1) of hits with these z-scores and cosines (equal shapes)."""
        odds = (
            self.intercept
            + self.z_weight * np.asarray(z, dtype=np.float64)
            + self.cosine_weight * np.asarray(cosine, dtype=np.float64)
        )
        # Beyond 60 the result is 0 or 1 in float64, and beyond 709 the exponential overflows.
        probability: npt.NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(odds, -60.0, 60.0)))
        return probability


def curves_from_body(body: Mapping[str, Mapping[str, Any]]) -> dict[str, Curve]:
    """Parse curves by kind of query, from `_meta` or the shipped file.

    Raises KeyError, TypeError or ValueError for a body of another shape.
    """
    names = Curve.__slots__
    curves = {}
    for kind, values in body.items():
        numbers = [float(values[name]) for name in names]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"{kind} has a coefficient that is not finite")
        curves[kind] = Curve(*numbers)
    return curves
