"""Find groups of files that show the same picture, at one of three levels.

same
    equal bytes (`content_id`).
near
    the same picture saved again, smaller, brighter, or with a slightly smaller margin; photographs
    also turned or mirrored.  Candidates by perceptual hash (in every turn and mirror image) and by
    colours, confirmed by the pixels of the originals.  What cannot be confirmed, since an original
    is not on this host or cannot be read, is counted, or grouped if that is asked for.
similar
    embeddings with at least a given cosine: the same subject, not always the same picture.

Thresholds were chosen with benchmarks/duplicates.py and benchmarks/same_picture.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from es_imgsearch.duplicates.candidates import contents_body, load_one, load_pages
from es_imgsearch.duplicates.corners import check_library
from es_imgsearch.duplicates.groups import (
    LEVELS,
    DuplicateGroup,
    DuplicatePair,
    IndexedPicture,
    Keep,
    Level,
    is_outdated,
    sorted_group,
)
from es_imgsearch.duplicates.near import HASH_RADIUS, SIMILAR_COSINE, PairSearch
from es_imgsearch.duplicates.originals import OriginalFiles
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ImageMissing, UsageError
from es_imgsearch.records import is_text

_CONTENTS_PAGE = 10_000


class FoundDuplicates(Iterator[DuplicateGroup]):
    """Groups, each found when it is asked for.

    `unconfirmed` counts the pairs so far that look the same by what is stored, and that no
    originals confirm; `left_out` are the files so far (image_id: root) that would be in a group,
    and are gone or changed since they were indexed.
    """

    def __init__(
        self,
        groups: Iterator[DuplicateGroup],
        left_out: Mapping[str, str],
        search: PairSearch | None = None,
    ) -> None:
        self._groups, self.left_out, self._search = groups, left_out, search

    def __next__(self) -> DuplicateGroup:
        return next(self._groups)

    @property
    def unconfirmed(self) -> int:
        return 0 if self._search is None else len(self._search.unconfirmed_pairs)


def find_duplicates(
    store: Store,
    level: Level = "near",
    *,
    host: str,
    threshold: float | None = None,
    image_id: str | None = None,
    thorough: bool = False,
    unconfirmed: bool = False,
    max_pixels: int = 250_000_000,
    keep: Keep = "largest",
) -> FoundDuplicates:
    """Find groups of at least two pictures; nothing is changed.

    `threshold` is, for near, the largest number of bits of 64 in which hashes of candidates differ
    (default 12); for similar, the lowest cosine (0.95).  With `image_id`, finds only copies of that
    picture.  `thorough` also compares the corners of the ten nearest by embedding, which finds
    crops, grey copies and pictures inside pictures, and reads every original on this `host` once.
    `unconfirmed` also groups pictures by hash and embedding alone whose originals are not on this
    host or cannot be read.  Files of this host that are gone or have changed are left out.  `keep`
    says which picture comes first, of those here with the most pixels; near compares all others
    with it.  Memory grows with the number of pictures in groups and a little with the
    index: 24 bytes a picture, 450 for one of few colours.

    Raises UsageError, ImageMissing; LibraryMissing for `thorough` without OpenCV.
    """
    _check_arguments(level, threshold, image_id, thorough, unconfirmed)
    if level != "same" and thorough:
        check_library()
    meta = store.info().meta
    originals = OriginalFiles(meta, host, max_pixels)
    if level == "same":
        outdated: dict[str, str] = {}
        return FoundDuplicates(_find_same(store, originals, image_id, keep, outdated), outdated)
    if level == "near":
        radius = HASH_RADIUS if threshold is None else int(threshold)
        search = PairSearch(store, meta, originals, radius, thorough, unconfirmed, keep=keep)
    else:
        min_cosine = SIMILAR_COSINE if threshold is None else threshold
        search = PairSearch(store, meta, originals, 0, min_cosine=min_cosine, keep=keep)
    return FoundDuplicates(search.groups(level, image_id), search.outdated, search)


def _check_arguments(
    level: str, threshold: float | None, image_id: str | None, thorough: bool, unconfirmed: bool
) -> None:
    if level not in LEVELS:
        raise UsageError(f"There is no level {level!r}; choose one of {', '.join(LEVELS)}.")
    if thorough and level != "near":
        raise UsageError("Only level near can be thorough: leave thorough out, or use level near.")
    if unconfirmed and level != "near":
        raise UsageError(
            "Only level near confirms pairs by their files: leave unconfirmed out, or use level"
            " near."
        )
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


def _find_same(
    store: Store,
    originals: OriginalFiles,
    image_id: str | None,
    keep: Keep,
    outdated: dict[str, str],
) -> Iterator[DuplicateGroup]:
    def grouped(content_ids: Sequence[str]) -> Iterator[DuplicateGroup]:
        for pictures in _equal_contents(store, originals, content_ids):
            here = [each for each in pictures if not is_outdated(each)]
            if len(pictures) > 1:
                outdated.update({each.image_id: each.root for each in pictures if each not in here})
            if len(here) > 1:
                first, *others = (each.image_id for each in here)
                pairs = [DuplicatePair(first, each, "bytes") for each in others]
                yield sorted_group("same", here, pairs, keep)

    if image_id is not None:
        features = load_one(store, image_id)
        yield from grouped([features.picture.content_id])
        return
    after = None
    while True:
        answer = store.searches.search(contents_body(after, _CONTENTS_PAGE))
        page = answer["aggregations"]["contents"]
        several = [
            bucket["key"]["content_id"] for bucket in page["buckets"] if bucket["doc_count"] > 1
        ]
        yield from grouped(several)
        after = page.get("after_key")
        if after is None:
            return


def _equal_contents(
    store: Store, originals: OriginalFiles, content_ids: Sequence[str]
) -> Iterator[list[IndexedPicture]]:
    by_content: dict[str, list[IndexedPicture]] = {each: [] for each in content_ids}
    if not by_content:
        return
    for page in load_pages(store, [{"terms": {"content_id": list(content_ids)}}], vectors=False):
        for each in page:
            by_content[each.picture.content_id].append(originals.located(each.picture))
    yield from by_content.values()
