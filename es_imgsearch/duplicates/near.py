"""Search for pairs of pictures that are the same or similar, and group them.

Candidates come from what is stored: perceptual hashes, colours, and embeddings.  The originals
decide: by their pixels, and where that is asked for by their corners.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np

from es_imgsearch.duplicates import colours
from es_imgsearch.duplicates.candidates import (
    Neighbour,
    PictureFeatures,
    load_by_id,
    load_one,
    load_pages,
    search_colours,
    search_hashes,
    search_vectors,
)
from es_imgsearch.duplicates.colours import ColourTable
from es_imgsearch.duplicates.corner_matcher import CornerMatcher
from es_imgsearch.duplicates.groups import (
    ORDERS,
    DisjointSets,
    DuplicateGroup,
    DuplicatePair,
    IndexedPicture,
    Keep,
    Level,
    has_equal_content,
    is_outdated,
    sorted_group,
)
from es_imgsearch.duplicates.hashes import ALL_TURNS, UPRIGHT, HashTable, Turn, turned_hash
from es_imgsearch.duplicates.originals import OriginalFiles, PixelMatcher
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.store import Store

# Bits of 64.  More distant copies are found by `thorough` only.
HASH_RADIUS = 12
# Below this cosine, hashes that differ in more than SURE_RADIUS bits are similar by chance: the
# files are not read.
MIN_COSINE = 0.5
# OriginalFiles with this many agreeing corners show the same thing.
MIN_CORNERS = 10
# Without originals, both are needed for a pair to look the same: bits of 64, and cosine.
SURE_RADIUS = 8
SURE_COSINE = 0.8
SIMILAR_COSINE = 0.95
# `thorough` compares corners of this many neighbours by embedding, from this cosine on.
THOROUGH_NEIGHBOURS = 10
THOROUGH_COSINE = 0.5

_BATCH_SIZE = 256
_MAX_REJECTED_PAIRS = 100_000


class Candidate(NamedTuple):
    """Two pictures, the distance of their hashes in bits, and the turn of the first.

    Without a turn the corners decide.
    """

    one: str
    other: str
    hash_distance: int | None
    turn: Turn | None


class PairSearch:
    """One run of level near, or of level similar: `min_cosine` is None for near.

    `unconfirmed_pairs` are those that look the same by hash and embedding, and of which an original
    is not on this host or cannot be read; `outdated` are the pictures (image_id: root) that
    would be in a group, and whose files are gone from this host or changed.
    """

    def __init__(
        self,
        store: Store,
        meta: Meta,
        originals: OriginalFiles,
        radius: int,
        thorough: bool = False,
        groups_unconfirmed: bool = False,
        min_cosine: float | None = None,
        keep: Keep = "largest",
    ) -> None:
        self._store, self._meta, self._originals = store, meta, originals
        self._radius, self._thorough, self._min_cosine = radius, thorough, min_cosine
        self._groups_unconfirmed, self._keep = groups_unconfirmed, keep
        self._pixels, self._corners = PixelMatcher(originals), CornerMatcher(originals)
        self._sets = DisjointSets()
        # Each pair comes up from both sides; a rejected pair is not compared again.
        self._rejected: OrderedDict[tuple[str, str, Turn | None], None] = OrderedDict()
        self.unconfirmed_pairs: set[tuple[str, str]] = set()
        self.outdated: dict[str, str] = {}

    def groups(self, level: Level, image_id: str | None) -> Iterator[DuplicateGroup]:
        """Yield the groups; with an id that of this picture only."""
        if image_id is not None:
            pages: Iterator[list[PictureFeatures]] = iter([[load_one(self._store, image_id)]])
        else:
            # Only candidates need their vectors, unless neighbours of all pictures are searched.
            vectors = self._thorough or level == "similar"
            pages = load_pages(self._store, vectors=vectors, colours=level == "near")
        if self._min_cosine is not None:
            for page in pages:
                self._merge_similar(page, self._min_cosine)
        else:
            self._merge_near(pages, is_one=image_id is not None)
        chained = level == "similar" or self._thorough or self._groups_unconfirmed
        for image_ids, pairs in self._sets.components():
            features = load_by_id(self._store, image_ids, vectors=not chained)
            pictures = [self._originals.located(each.picture) for each in features.values()]
            if len(pictures) > 1 and chained:
                yield sorted_group(level, pictures, pairs, self._keep)
            elif len(pictures) > 1:
                for group in self._confirmed_groups(level, pictures, pairs, features):
                    if image_id in {None, *(each.image_id for each in group.pictures)}:
                        yield group

    def _merge_near(self, pages: Iterable[list[PictureFeatures]], *, is_one: bool) -> None:
        hashes, few_colours = HashTable(), ColourTable()
        for page in pages:
            if self._thorough:
                self._decide_all(self._candidates_by_vector(page))
            if is_one:
                self._decide_all(self._candidates_of(page[0]))
                continue
            # A picture without a hash is flat: all such pictures would look like copies.
            for each in page:
                if each.perceptual_hash is not None:
                    hashes.add(each.picture.image_id, each.perceptual_hash)
                    if each.colours is not None:
                        few_colours.add(each.picture.image_id, each.colours)
        self._decide_all(Candidate(*each) for each in hashes.pairs(self._radius))
        self._decide_all(Candidate(*each, None, UPRIGHT) for each in few_colours.pairs())

    def _confirmed_groups(
        self,
        level: Level,
        pictures: Sequence[IndexedPicture],
        pairs: Sequence[DuplicatePair],
        features: Mapping[str, PictureFeatures],
    ) -> Iterator[DuplicateGroup]:
        """Split connected pictures: each was compared with the first of its group.

        A small copy may fit two large pictures that differ in what it does not show.
        """
        known = {frozenset((each.one, each.other)): each for each in pairs}
        left = sorted(pictures, key=ORDERS[self._keep])
        while len(left) > 1:
            centre, *others = left
            group, left = [centre], []
            evidence = []
            for each in others:
                pair = known.get(frozenset((centre.image_id, each.image_id)))
                pair = pair or self._compare_turned(
                    features[centre.image_id], features[each.image_id]
                )
                if pair is None:
                    left.append(each)
                else:
                    group.append(each)
                    evidence.append(pair)
            if evidence:
                yield sorted_group(level, group, evidence, self._keep)

    def _compare_turned(self, one: PictureFeatures, other: PictureFeatures) -> DuplicatePair | None:
        """Compare two pictures in the turns in which their hashes are near, and upright."""
        turns: list[tuple[int | None, Turn]] = [(None, UPRIGHT)]
        if one.perceptual_hash is not None and other.perceptual_hash is not None:
            for turn in ALL_TURNS:
                turned = turned_hash(one.perceptual_hash, turn)
                distance = (turned ^ other.perceptual_hash).bit_count()
                if distance <= self._radius:
                    turns.append((distance, turn))
        for bits, turn in turns:
            candidate = Candidate(one.picture.image_id, other.picture.image_id, bits, turn)
            if pair := self._compare(one, other, candidate):
                return pair
        return None

    def _merge_similar(self, page: Sequence[PictureFeatures], min_cosine: float) -> None:
        found = list(self._neighbours_by_vector(page, min_cosine))
        image_ids = sorted({name for one, other in found for name in (one, other.image_id)})
        features = load_by_id(self._store, image_ids, vectors=False)
        outdated = self._outdated(each.picture for each in features.values())
        self.outdated |= outdated
        for one, other in found:
            if one not in outdated and other.image_id not in outdated:
                cosine = round(other.measure, 4)
                self._sets.merge(DuplicatePair(one, other.image_id, "cosine", cosine=cosine))

    def _outdated(self, pictures: Iterable[IndexedPicture]) -> dict[str, str]:
        located = map(self._originals.located, pictures)
        return {each.image_id: each.root for each in located if is_outdated(each)}

    def _decide_all(self, candidates: Iterable[Candidate]) -> None:
        remaining = iter(candidates)
        while batch := list(islice(remaining, _BATCH_SIZE)):
            self._decide(batch)

    def _candidates_of(self, one: PictureFeatures) -> Iterator[Candidate]:
        if one.perceptual_hash is None:
            return
        own = one.picture.image_id
        hashes = [turned_hash(one.perceptual_hash, turn) for turn in ALL_TURNS]
        answers = search_hashes(self._store, hashes, self._radius)
        for turn, answer in zip(ALL_TURNS, answers, strict=True):
            for other in answer:
                if other.image_id != own:
                    yield Candidate(own, other.image_id, int(other.measure), turn)
        if one.colours is not None:
            k = colours.NEAREST + 1
            for name in search_colours(self._store, one.colours, k, colours.MIN_COSINE):
                if name != own:
                    yield Candidate(own, name, None, UPRIGHT)

    def _candidates_by_vector(self, page: Sequence[PictureFeatures]) -> Iterator[Candidate]:
        # One more, since a picture is its own nearest neighbour.
        max_k = THOROUGH_NEIGHBOURS + 1
        for one, other in self._neighbours_by_vector(page, THOROUGH_COSINE, max_k=max_k):
            yield Candidate(one, other.image_id, None, None)

    def _neighbours_by_vector(
        self, page: Sequence[PictureFeatures], min_cosine: float, **options: int
    ) -> Iterator[tuple[str, Neighbour]]:
        """Yield image_id and neighbours of every picture of the page that has a vector."""
        vectors = {each.picture.image_id: each.vector for each in page if each.vector is not None}
        image_ids = list(vectors)
        for start in range(0, len(image_ids), _BATCH_SIZE):
            chunk = image_ids[start : start + _BATCH_SIZE]
            queries = [vectors[image_id] for image_id in chunk]
            answers = search_vectors(self._store, self._meta, queries, min_cosine, **options)
            for image_id, answer in zip(chunk, answers, strict=True):
                yield from ((image_id, each) for each in answer if each.image_id != image_id)

    def _decide(self, candidates: Sequence[Candidate]) -> None:
        undecided = [each for each in candidates if self._is_undecided(each)]
        image_ids = sorted({name for each in undecided for name in (each.one, each.other)})
        features = load_by_id(self._store, image_ids)
        for each in undecided:
            # Deleted meanwhile, or decided by another candidate of this batch.
            if {each.one, each.other} - features.keys() or not self._is_undecided(each):
                continue
            pair = self._compare(features[each.one], features[each.other], each)
            if pair is None:
                self._reject(each)
            else:
                self._sets.merge(pair)

    def _is_undecided(self, candidate: Candidate) -> bool:
        one, other = candidate.one, candidate.other
        return not self._sets.are_connected(one, other) and _key(candidate) not in self._rejected

    def _reject(self, candidate: Candidate) -> None:
        self._rejected[_key(candidate)] = None
        if len(self._rejected) > _MAX_REJECTED_PAIRS:
            self._rejected.popitem(last=False)

    def _compare(
        self, one: PictureFeatures, other: PictureFeatures, candidate: Candidate
    ) -> DuplicatePair | None:
        """Return the pair with its evidence, or None if that is not sufficient."""
        cosine = _cosine(one, other)
        by: Literal["bytes", "pixels", "corners", "cosine"] | None = None
        corners, turn = None, candidate.turn
        distance = candidate.hash_distance
        is_equal = has_equal_content(one.picture, other.picture)
        if outdated := self._outdated((one.picture, other.picture)):
            self.outdated |= outdated if is_equal or is_sure(distance, cosine) else {}
            return None
        if is_equal:
            by = "bytes"
        elif not is_by_chance(distance, cosine):
            is_same = None
            if turn is not None:
                is_same = self._pixels.show_the_same(one.picture, other.picture, turn)
            if is_same:
                by = "pixels"
            elif self._thorough:
                mirrored = turn is not None and turn.is_reflection
                corners = self._corners.count_agreeing(
                    one.picture, other.picture, mirrored=mirrored
                )
                if corners is not None and corners >= MIN_CORNERS:
                    by = "corners"
            if is_same is None and by is None and is_sure(distance, cosine):
                first, second = sorted((candidate.one, candidate.other))
                self.unconfirmed_pairs.add((first, second))
                by = "cosine" if self._groups_unconfirmed else None
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


def _key(candidate: Candidate) -> tuple[str, str, Turn | None]:
    """Identify a comparison; a rejected pair may still be a mirror image."""
    one, other = sorted((candidate.one, candidate.other))
    return one, other, candidate.turn


def _cosine(one: PictureFeatures, other: PictureFeatures) -> float | None:
    if one.vector is None or other.vector is None:
        return None
    lengths = float(np.linalg.norm(one.vector) * np.linalg.norm(other.vector))
    return round(float(one.vector @ other.vector) / lengths, 4)
