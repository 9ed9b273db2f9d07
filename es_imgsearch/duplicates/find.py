"""Groups of files that show the same picture: by bytes, by looks, by likeness.

same
    equal bytes (`content_id`).
near
    saved anew, resized, cropped a little, turned, mirrored, watermarked…: candidates by
    perceptual hash (every turn and mirror image), confirmed by the originals' corners where they
    are on this host and OpenCV is installed, or by a smaller distance of the hashes together with
    the embeddings' cosine.
similar
    embeddings with at least a given cosine: the same subject, not always the same picture.

Thresholds were chosen on benchmarks/same_picture.py: scikit-image's photographs and tuxpaint's
stamps, 17 kinds of copies of each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from es_imgsearch.duplicates.candidates import (
    Seen,
    contents_body,
    near_hashes,
    near_vectors,
    pages_of,
    pictures_by_id,
)
from es_imgsearch.duplicates.corners import CornerMatches, check_library
from es_imgsearch.duplicates.groups import LEVELS, Group, Level, Pair, Stored, Unions, group_of
from es_imgsearch.duplicates.hashes import ALL_TURNS, HashTable, Turn, turned_hash
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ImageMissing, UsageError
from es_imgsearch.records import is_text

# Bits of 64.  Copies that are farther apart are found by `thorough` only.
HASH_RADIUS = 12
# Below this cosine, hashes of more than SURE_RADIUS bits are alike by chance: files are not read.
LEAST_COSINE = 0.5
# Agreeing corners that make two originals the same picture.
LEAST_CORNERS = 10
# Without originals: bits of 64, and cosine.
SURE_RADIUS = 8
SURE_COSINE = 0.8
SIMILAR_COSINE = 0.95
# `thorough`: how many neighbours by embedding are compared corner by corner, from this cosine.
THOROUGH_NEIGHBOURS = 10
THOROUGH_COSINE = 0.5

_CONTENTS_PAGE = 10_000
_SEARCHES_AT_ONCE = 256
_REFUSED_PAIRS = 100_000


@dataclass(frozen=True, slots=True)
class _Candidate:
    one: str
    other: str
    hash_distance: int | None
    turn: Turn | None


def find_duplicates(
    store: Store,
    level: Level = "near",
    *,
    host: str,
    threshold: float | None = None,
    image_id: str | None = None,
    thorough: bool = False,
    max_pixels: int = 250_000_000,
) -> Iterator[Group]:
    """Groups of at least two pictures; nothing is changed.

    `threshold`: for near the most bits of 64 by which hashes may differ to be compared at all
    (12), for similar the least cosine (0.95).  With `image_id` only the copies of that picture
    are looked for.  `thorough` compares, besides, the ten nearest by embedding corner by
    corner, which finds crops and pictures inside pictures and reads every original of this
    `host` once.  Memory grows with the pictures that are in groups, not with the index.

    Raises UsageError, ImageMissing; LibraryMissing where `thorough` lacks OpenCV.
    """
    _check(level, threshold, image_id, thorough)
    if level == "same":
        return _same(store, image_id)
    if thorough:
        check_library()
    meta = store.info().meta
    if level == "near":
        radius = HASH_RADIUS if threshold is None else int(threshold)
        matches = CornerMatches(meta, host, max_pixels)
        search = _Search(store, meta, matches, radius, thorough, None)
    else:
        least = SIMILAR_COSINE if threshold is None else threshold
        search = _Search(store, meta, None, 0, False, least)
    return search.groups(level, image_id)


def _check(level: str, threshold: float | None, image_id: str | None, thorough: bool) -> None:
    if level not in LEVELS:
        raise UsageError(f"There is no level {level!r}; choose one of {', '.join(LEVELS)}.")
    if thorough and level != "near":
        raise UsageError("Only level near can be thorough: leave it out, or ask for level near.")
    if threshold is not None:
        if level == "same":
            raise UsageError("Level same compares bytes and has no threshold: leave it out.")
        if level == "near" and not (0 <= threshold <= 20 and threshold == int(threshold)):
            raise UsageError(
                f"The threshold of level near is a number of bits from 0 to 20, not {threshold:g}:"
                " unrelated pictures differ by about 30 of 64."
            )
        if level == "similar" and not -1 <= threshold <= 1:
            raise UsageError(
                f"The threshold of level similar is a cosine from -1 to 1, not {threshold:g}."
            )
    if image_id is not None and not is_text(image_id):
        raise ImageMissing(f"No picture has the image_id {image_id!r}.")


# -- by bytes --------------------------------------------------------------------------------


def _same(store: Store, image_id: str | None) -> Iterator[Group]:
    if image_id is not None:
        (seen,) = _wanted(store, image_id)
        yield from _of_contents(store, [seen.picture.content_id])
        return
    after = None
    while True:
        answer = store.searches.search(contents_body(after, _CONTENTS_PAGE))
        found = answer["aggregations"]["contents"]
        several = [
            bucket["key"]["content_id"] for bucket in found["buckets"] if bucket["doc_count"] > 1
        ]
        yield from _of_contents(store, several)
        after = found.get("after_key")
        if after is None:
            return


def _of_contents(store: Store, content_ids: Sequence[str]) -> Iterator[Group]:
    by_content: dict[str, list[Stored]] = {each: [] for each in content_ids}
    if not by_content:
        return
    for page in pages_of(store, [{"terms": {"content_id": list(content_ids)}}], vectors=False):
        for seen in page:
            by_content[seen.picture.content_id].append(seen.picture)
    for pictures in by_content.values():
        # Files come and go between two searches.
        if len(pictures) > 1:
            first, *others = (each.image_id for each in pictures)
            yield group_of("same", pictures, [Pair(first, each, "bytes") for each in others])


def _wanted(store: Store, image_id: str) -> list[Seen]:
    found = pictures_by_id(store, [image_id])
    if image_id not in found:
        raise ImageMissing(f"No picture has the image_id {image_id!r}.")
    return [found[image_id]]


# -- by looks, by likeness -------------------------------------------------------------------


@dataclass(slots=True)
class _Search:
    """One run of level near or similar; `least_cosine` is None for near."""

    store: Store
    meta: Meta
    matches: CornerMatches | None
    radius: int
    thorough: bool
    least_cosine: float | None
    unions: Unions = field(default_factory=Unions)
    # Each pair is met from both sides; what was refused once need not be compared again.
    refused: OrderedDict[tuple[str, str, bool | None], None] = field(default_factory=OrderedDict)

    def groups(self, level: Level, image_id: str | None) -> Iterator[Group]:
        if image_id is not None:
            pages: Iterator[list[Seen]] = iter([_wanted(self.store, image_id)])
        else:
            # Only candidates need their vectors, unless every picture is asked for by its own.
            pages = pages_of(self.store, vectors=self.thorough or level == "similar")
        table = HashTable()
        for page in pages:
            if self.least_cosine is not None:
                self._join_similar(page, self.least_cosine)
                continue
            if self.thorough:
                self._decide_all(self._by_vector(page))
            if image_id is not None:
                self._decide_all(self._by_hash(page[0]))
                continue
            for each in page:
                if each.perceptual_hash is not None:
                    table.add(each.picture.image_id, each.perceptual_hash)
        self._decide_all(_Candidate(*each) for each in table.pairs(self.radius))
        yield from self._made(level)

    def _made(self, level: Level) -> Iterator[Group]:
        for image_ids, pairs in self.unions.groups():
            found = pictures_by_id(self.store, image_ids, vectors=False)
            if len(found) > 1:
                yield group_of(level, (each.picture for each in found.values()), pairs)

    def _join_similar(self, page: Sequence[Seen], least_cosine: float) -> None:
        asked = [each for each in page if each.vector is not None]
        for start in range(0, len(asked), _SEARCHES_AT_ONCE):
            chunk = asked[start : start + _SEARCHES_AT_ONCE]
            vectors = [each.vector for each in chunk if each.vector is not None]
            answers = near_vectors(self.store, self.meta, vectors, least_cosine)
            for seen, answer in zip(chunk, answers, strict=True):
                for near in answer:
                    if near.image_id != seen.picture.image_id:
                        cosine = round(near.measure, 4)
                        one = seen.picture.image_id
                        self.unions.join(Pair(one, near.image_id, "cosine", cosine=cosine))

    def _decide_all(self, candidates: Iterable[_Candidate]) -> None:
        batch: list[_Candidate] = []
        for candidate in candidates:
            batch.append(candidate)
            if len(batch) == _SEARCHES_AT_ONCE:
                self._decide(batch)
                batch = []
        self._decide(batch)

    def _by_hash(self, one: Seen) -> Iterator[_Candidate]:
        if one.perceptual_hash is None:
            return
        hashes = [turned_hash(one.perceptual_hash, turn) for turn in ALL_TURNS]
        answers = near_hashes(self.store, hashes, self.radius)
        for turn, answer in zip(ALL_TURNS, answers, strict=True):
            for near in answer:
                if near.image_id != one.picture.image_id:
                    distance = int(near.measure)
                    yield _Candidate(one.picture.image_id, near.image_id, distance, turn)

    def _by_vector(self, page: Sequence[Seen]) -> Iterator[_Candidate]:
        asked = [each for each in page if each.vector is not None]
        for start in range(0, len(asked), _SEARCHES_AT_ONCE):
            chunk = asked[start : start + _SEARCHES_AT_ONCE]
            vectors = [each.vector for each in chunk if each.vector is not None]
            most = THOROUGH_NEIGHBOURS + 1
            answers = near_vectors(self.store, self.meta, vectors, THOROUGH_COSINE, most=most)
            for seen, answer in zip(chunk, answers, strict=True):
                for near in answer:
                    if near.image_id != seen.picture.image_id:
                        yield _Candidate(seen.picture.image_id, near.image_id, None, None)

    def _decide(self, candidates: Sequence[_Candidate]) -> None:
        open_ones = [each for each in candidates if self._is_open(each)]
        wanted = sorted({name for each in open_ones for name in (each.one, each.other)})
        pictures = pictures_by_id(self.store, wanted)
        for each in open_ones:
            # Gone since, or decided by another candidate of this batch.
            if {each.one, each.other} - pictures.keys() or not self._is_open(each):
                continue
            pair = self._pair(pictures[each.one], pictures[each.other], each)
            if pair is None:
                self._refuse(each)
            else:
                self.unions.join(pair)

    def _is_open(self, candidate: _Candidate) -> bool:
        one, other = candidate.one, candidate.other
        return not self.unions.are_joined(one, other) and _key(candidate) not in self.refused

    def _refuse(self, candidate: _Candidate) -> None:
        self.refused[_key(candidate)] = None
        if len(self.refused) > _REFUSED_PAIRS:
            self.refused.popitem(last=False)

    def _pair(self, one: Seen, other: Seen, candidate: _Candidate) -> Pair | None:
        """The pair with its evidence, or None where that is not enough."""
        cosine = None
        if one.vector is not None and other.vector is not None:
            lengths = float(np.linalg.norm(one.vector) * np.linalg.norm(other.vector))
            cosine = round(float(one.vector @ other.vector) / lengths, 4)
        by: Literal["bytes", "corners", "cosine"] | None = None
        corners, turn = None, candidate.turn
        distance = candidate.hash_distance
        # Imported pictures may have no content_id, which says nothing.
        if one.picture.content_id and one.picture.content_id == other.picture.content_id:
            by = "bytes"
        elif not by_chance(distance, cosine):
            if self.matches is not None:
                mirrored = turn is not None and turn.changes_hands
                corners = self.matches.agreeing_corners(
                    one.picture, other.picture, mirrored=mirrored
                )
            if corners is not None and corners >= LEAST_CORNERS:
                by = "corners"
            elif is_sure(distance, cosine):
                by = "cosine"
        if by is None:
            return None
        name = None if turn is None else turn.name
        return Pair(candidate.one, candidate.other, by, distance, name, corners, cosine)


def by_chance(hash_distance: int | None, cosine: float | None) -> bool:
    """Whether hashes are alike and embeddings so unlike that comparing files is not worth it."""
    return (
        hash_distance is not None
        and hash_distance > SURE_RADIUS
        and cosine is not None
        and cosine < LEAST_COSINE
    )


def is_sure(hash_distance: int | None, cosine: float | None) -> bool:
    """Whether two pictures are the same by hash and embedding alone, without their originals."""
    return (
        hash_distance is not None
        and hash_distance <= SURE_RADIUS
        and cosine is not None
        and cosine >= SURE_COSINE
    )


def _key(candidate: _Candidate) -> tuple[str, str, bool | None]:
    """A pair that was refused as it is may still be a mirror image."""
    one, other = sorted((candidate.one, candidate.other))
    return one, other, None if candidate.turn is None else candidate.turn.changes_hands
