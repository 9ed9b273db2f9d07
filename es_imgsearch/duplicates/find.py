"""Find groups of files that show the same picture, at one of three levels.

same
    equal bytes (`content_id`).
near
    recompressed, resized, slightly cropped, turned, mirrored, watermarked…: candidates by
    perceptual hash (in every turn and mirror image), confirmed by corners of the originals if they
    are on this host and OpenCV is installed, else by a smaller hash distance together with the
    cosine of the embeddings.
similar
    embeddings with at least a given cosine: the same subject, not always the same picture.

Thresholds were chosen with benchmarks/same_picture.py: scikit-image's photographs and tuxpaint's
stamps, 17 kinds of copies of each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import numpy as np

from es_imgsearch.duplicates.candidates import (
    Neighbour,
    PictureFeatures,
    contents_body,
    load_by_id,
    load_pages,
    search_hashes,
    search_vectors,
)
from es_imgsearch.duplicates.corner_matcher import CornerMatcher
from es_imgsearch.duplicates.corners import check_library
from es_imgsearch.duplicates.groups import (
    LEVELS,
    DisjointSets,
    DuplicateGroup,
    DuplicatePair,
    IndexedPicture,
    Level,
    sorted_group,
)
from es_imgsearch.duplicates.hashes import ALL_TURNS, HashTable, Turn, turned_hash
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ImageMissing, UsageError
from es_imgsearch.records import is_text

# Bits of 64.  More distant copies are found by `thorough` only.
HASH_RADIUS = 12
# Below this cosine, hashes that differ in more than SURE_RADIUS bits are similar by chance: the
# files are not read.
MIN_COSINE = 0.5
# Originals with this many agreeing corners are the same picture.
MIN_CORNERS = 10
# Without originals, both are needed: bits of 64, and cosine.
SURE_RADIUS = 8
SURE_COSINE = 0.8
SIMILAR_COSINE = 0.95
# `thorough` compares corners of this many neighbours by embedding, from this cosine on.
THOROUGH_NEIGHBOURS = 10
THOROUGH_COSINE = 0.5

_CONTENTS_PAGE = 10_000
_BATCH_SIZE = 256
_MAX_REJECTED_PAIRS = 100_000


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
) -> Iterator[DuplicateGroup]:
    """Find groups of at least two pictures; nothing is changed.

    `threshold` is, for near, the largest number of bits of 64 in which hashes of candidates differ
    (default 12); for similar, the lowest cosine (0.95).  With `image_id`, finds only copies of that
    picture.  `thorough` also compares the corners of the ten nearest by embedding, which finds
    crops and pictures inside pictures, and reads every original on this `host` once.  Memory grows
    with the number of pictures in groups, not with the index.

    Raises UsageError, ImageMissing; LibraryMissing for `thorough` without OpenCV.
    """
    _check_arguments(level, threshold, image_id, thorough)
    if level == "same":
        return _find_same(store, image_id)
    if thorough:
        check_library()
    meta = store.info().meta
    if level == "near":
        radius = HASH_RADIUS if threshold is None else int(threshold)
        matcher = CornerMatcher(meta, host, max_pixels)
        search = _Search(store, meta, matcher, radius, thorough, None)
    else:
        min_cosine = SIMILAR_COSINE if threshold is None else threshold
        search = _Search(store, meta, None, 0, False, min_cosine)
    return search.groups(level, image_id)


def _check_arguments(
    level: str, threshold: float | None, image_id: str | None, thorough: bool
) -> None:
    if level not in LEVELS:
        raise UsageError(f"There is no level {level!r}; choose one of {', '.join(LEVELS)}.")
    if thorough and level != "near":
        raise UsageError("Only level near can be thorough: leave thorough out, or use level near.")
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


def _find_same(store: Store, image_id: str | None) -> Iterator[DuplicateGroup]:
    if image_id is not None:
        features = _load_one(store, image_id)
        yield from _group_contents(store, [features.picture.content_id])
        return
    after = None
    while True:
        answer = store.searches.search(contents_body(after, _CONTENTS_PAGE))
        page = answer["aggregations"]["contents"]
        several = [
            bucket["key"]["content_id"] for bucket in page["buckets"] if bucket["doc_count"] > 1
        ]
        yield from _group_contents(store, several)
        after = page.get("after_key")
        if after is None:
            return


def _group_contents(store: Store, content_ids: Sequence[str]) -> Iterator[DuplicateGroup]:
    by_content: dict[str, list[IndexedPicture]] = {each: [] for each in content_ids}
    if not by_content:
        return
    for page in load_pages(store, [{"terms": {"content_id": list(content_ids)}}], vectors=False):
        for each in page:
            by_content[each.picture.content_id].append(each.picture)
    for pictures in by_content.values():
        # Files may be deleted between two searches.
        if len(pictures) > 1:
            first, *others = (each.image_id for each in pictures)
            pairs = [DuplicatePair(first, each, "bytes") for each in others]
            yield sorted_group("same", pictures, pairs)


def _load_one(store: Store, image_id: str) -> PictureFeatures:
    features = load_by_id(store, [image_id]).get(image_id)
    if features is None:
        raise ImageMissing(f"No picture has the image_id {image_id!r}.")
    return features


@dataclass(slots=True)
class _Search:
    """One run of level near or similar; `min_cosine` is None for near."""

    store: Store
    meta: Meta
    matcher: CornerMatcher | None
    radius: int
    thorough: bool
    min_cosine: float | None
    sets: DisjointSets = field(default_factory=DisjointSets)
    # Each pair comes up from both sides; a rejected pair is not compared again.
    rejected: OrderedDict[tuple[str, str, bool | None], None] = field(default_factory=OrderedDict)

    def groups(self, level: Level, image_id: str | None) -> Iterator[DuplicateGroup]:
        if image_id is not None:
            pages: Iterator[list[PictureFeatures]] = iter([[_load_one(self.store, image_id)]])
        else:
            # Only candidates need their vectors, unless neighbours of all pictures are searched.
            pages = load_pages(self.store, vectors=self.thorough or level == "similar")
        table = HashTable()
        for page in pages:
            if self.min_cosine is not None:
                self._merge_similar(page, self.min_cosine)
                continue
            if self.thorough:
                self._decide_all(self._candidates_by_vector(page))
            if image_id is not None:
                self._decide_all(self._candidates_by_hash(page[0]))
                continue
            for each in page:
                if each.perceptual_hash is not None:
                    table.add(each.picture.image_id, each.perceptual_hash)
        self._decide_all(_Candidate(*each) for each in table.pairs(self.radius))
        for image_ids, pairs in self.sets.components():
            features = load_by_id(self.store, image_ids, vectors=False)
            if len(features) > 1:
                yield sorted_group(level, (each.picture for each in features.values()), pairs)

    def _merge_similar(self, page: Sequence[PictureFeatures], min_cosine: float) -> None:
        for one, other in self._neighbours_by_vector(page, min_cosine):
            cosine = round(other.measure, 4)
            self.sets.merge(DuplicatePair(one, other.image_id, "cosine", cosine=cosine))

    def _decide_all(self, candidates: Iterable[_Candidate]) -> None:
        remaining = iter(candidates)
        while batch := list(islice(remaining, _BATCH_SIZE)):
            self._decide(batch)

    def _candidates_by_hash(self, one: PictureFeatures) -> Iterator[_Candidate]:
        if one.perceptual_hash is None:
            return
        hashes = [turned_hash(one.perceptual_hash, turn) for turn in ALL_TURNS]
        answers = search_hashes(self.store, hashes, self.radius)
        for turn, answer in zip(ALL_TURNS, answers, strict=True):
            for other in answer:
                if other.image_id != one.picture.image_id:
                    distance = int(other.measure)
                    yield _Candidate(one.picture.image_id, other.image_id, distance, turn)

    def _candidates_by_vector(self, page: Sequence[PictureFeatures]) -> Iterator[_Candidate]:
        # One more, since a picture is its own nearest neighbour.
        max_k = THOROUGH_NEIGHBOURS + 1
        for one, other in self._neighbours_by_vector(page, THOROUGH_COSINE, max_k=max_k):
            yield _Candidate(one, other.image_id, None, None)

    def _neighbours_by_vector(
        self, page: Sequence[PictureFeatures], min_cosine: float, **options: int
    ) -> Iterator[tuple[str, Neighbour]]:
        """Yield image_id and neighbours of every picture of the page that has a vector."""
        vectors = {each.picture.image_id: each.vector for each in page if each.vector is not None}
        image_ids = list(vectors)
        for start in range(0, len(image_ids), _BATCH_SIZE):
            chunk = image_ids[start : start + _BATCH_SIZE]
            queries = [vectors[image_id] for image_id in chunk]
            answers = search_vectors(self.store, self.meta, queries, min_cosine, **options)
            for image_id, answer in zip(chunk, answers, strict=True):
                yield from ((image_id, each) for each in answer if each.image_id != image_id)

    def _decide(self, candidates: Sequence[_Candidate]) -> None:
        undecided = [each for each in candidates if self._is_undecided(each)]
        image_ids = sorted({name for each in undecided for name in (each.one, each.other)})
        features = load_by_id(self.store, image_ids)
        for each in undecided:
            # Deleted meanwhile, or decided by another candidate of this batch.
            if {each.one, each.other} - features.keys() or not self._is_undecided(each):
                continue
            pair = self._compare(features[each.one], features[each.other], each)
            if pair is None:
                self._reject(each)
            else:
                self.sets.merge(pair)

    def _is_undecided(self, candidate: _Candidate) -> bool:
        one, other = candidate.one, candidate.other
        return not self.sets.are_connected(one, other) and _key(candidate) not in self.rejected

    def _reject(self, candidate: _Candidate) -> None:
        self.rejected[_key(candidate)] = None
        if len(self.rejected) > _MAX_REJECTED_PAIRS:
            self.rejected.popitem(last=False)

    def _compare(
        self, one: PictureFeatures, other: PictureFeatures, candidate: _Candidate
    ) -> DuplicatePair | None:
        """Return the pair with its evidence, or None if that is not sufficient."""
        cosine = None
        if one.vector is not None and other.vector is not None:
            lengths = float(np.linalg.norm(one.vector) * np.linalg.norm(other.vector))
            cosine = round(float(one.vector @ other.vector) / lengths, 4)
        by: Literal["bytes", "corners", "cosine"] | None = None
        corners, turn = None, candidate.turn
        distance = candidate.hash_distance
        # Imported pictures may have no content_id; that two have none is no evidence.
        if one.picture.content_id and one.picture.content_id == other.picture.content_id:
            by = "bytes"
        elif not is_by_chance(distance, cosine):
            if self.matcher is not None:
                mirrored = turn is not None and turn.is_reflection
                corners = self.matcher.count_agreeing(one.picture, other.picture, mirrored=mirrored)
            if corners is not None and corners >= MIN_CORNERS:
                by = "corners"
            elif is_sure(distance, cosine):
                by = "cosine"
        if by is None:
            return None
        name = None if turn is None else turn.name
        return DuplicatePair(candidate.one, candidate.other, by, distance, name, corners, cosine)


def is_by_chance(hash_distance: int | None, cosine: float | None) -> bool:
    """Return whether similar hashes are a coincidence, as embeddings are dissimilar."""
    return (
        hash_distance is not None
        and hash_distance > SURE_RADIUS
        and cosine is not None
        and cosine < MIN_COSINE
    )


def is_sure(hash_distance: int | None, cosine: float | None) -> bool:
    """Return whether two pictures are the same by hash and embedding alone."""
    return (
        hash_distance is not None
        and hash_distance <= SURE_RADIUS
        and cosine is not None
        and cosine >= SURE_COSINE
    )


def _key(candidate: _Candidate) -> tuple[str, str, bool | None]:
    """Identify a comparison; a rejected pair may still be a mirror image."""
    one, other = sorted((candidate.one, candidate.other))
    return one, other, None if candidate.turn is None else candidate.turn.is_reflection
