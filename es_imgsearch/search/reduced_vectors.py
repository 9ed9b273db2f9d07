"""Searching an index of the profile `reduced`: from whole vectors to its bytes, and back.

    whole query ──reduce──▶ bytes ──Elasticsearch──▶ candidates ──originals──▶ hits

The scores of bytes are estimates of the cosine.  Where a candidate's original is at hand, its
score is the exact cosine; the others keep their estimates, and all are ordered by them.  The
estimates are .02 too high on average (see `Reduction.estimated`), so a picture without an original
may stand some places too high among pictures nearly as good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from es_imgsearch.reduction import Reduction

Vector: TypeAlias = npt.NDArray[np.float32]
Raw: TypeAlias = Mapping[str, Any]
# Keys -> unit vectors by their places among the keys, as far as there are originals.
Lookup: TypeAlias = Callable[[Sequence[str]], Mapping[int, Vector]]


class Refinement(NamedTuple):
    """What is done to the answer of a search by bytes.

    `depth` says how many candidates so many hits are chosen from; `refine` gives candidates their
    better scores, best first.
    """

    depth: Callable[[int], int]
    refine: Callable[[Sequence[Raw]], list[Raw]]


@dataclass(frozen=True, slots=True)
class ReducedVectors:
    """What a client needs to search one reduced index.

    `originals` is None where this machine has none; then nothing is compared again.
    """

    reduction: Reduction
    oversample: float
    originals: Lookup | None = None

    def asked_for(self, vector: Vector) -> Vector:
        """A whole vector as the index stores it, of shape (dims_kept,), in whole numbers."""
        found: Vector = self.reduction.reduce(vector[None])[0].astype(np.float32)
        return found

    def whole(self, stored: Vector, key: str) -> tuple[Vector, bool]:
        """The unit vector of a stored picture; False where it was expanded, not looked up."""
        if self.originals is not None and (found := self.originals([key])):
            return found[0], True
        return self.reduction.expand(stored[None])[0], False

    def refinement(self, query: Vector, *, is_whole: bool) -> Refinement:
        """For the search with this whole unit vector; an expanded one is compared with nothing.

        What an expanded vector lacks are the very dims in which originals differ: by them .64 of
        the true ten came first, by the bytes alone .81.
        """
        compare = is_whole and self.originals is not None
        factor = self.oversample if compare else 1.0
        return Refinement(
            depth=lambda wanted: math.ceil(wanted * factor),
            refine=partial(self.refined, query=query, compare=compare),
        )

    def refined(self, hits: Sequence[Raw], query: Vector, *, compare: bool) -> list[Raw]:
        """The hits with better scores, best first; `query` is a whole unit vector.

        `compare` with originals; without, the order stays and the scores become estimates.
        """
        if not hits:
            return []
        of_bytes = 2.0 * np.array([hit["_score"] for hit in hits]) - 1.0
        cosines = self.reduction.estimated(of_bytes, query)
        if compare and self.originals is not None:
            keys = [key_of(hit["_id"], hit.get("_source", {})) for hit in hits]
            for place, vector in self.originals(keys).items():
                cosines[place] = np.clip(float(vector @ query), -1.0, 1.0)
        order = np.argsort(-cosines, kind="stable")
        return [{**hits[n], "_score": (1.0 + float(cosines[n])) / 2.0} for n in order]


def key_of(image_id: str, fields: Mapping[str, Any]) -> str:
    """By what the original of a stored picture is found; its path may have got another content."""
    return str(fields.get("content_id") or image_id)
