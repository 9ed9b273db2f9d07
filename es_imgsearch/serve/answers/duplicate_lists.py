"""Groups of duplicates for page and API: compared in a thread, one at a time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from es_imgsearch.duplicates.find import find_duplicates
from es_imgsearch.duplicates.groups import DuplicateGroup
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import StoreBusy, UsageError, did_you_mean
from es_imgsearch.settings import Settings

# Each picture is a search by its hash or vector, of some 3 ms.
MOST_COMPARED: Final = 20_000
# A group of two takes 2 kB.
_MOST_GROUPS: Final = 10_000
_MOST_KEPT: Final = 4
_MOST_WAITING: Final = 4
_KEPT_SECONDS: Final = 600


class DuplicateRequest(BaseModel):
    """What counts as a duplicate, and which file of each group is kept."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    level: Literal["same", "near", "similar"] = Field(
        "near", description="equal bytes, the same picture, or a like one"
    )
    image_id: Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")] = Field(
        "", description="only the copies of this picture"
    )
    threshold: float | None = Field(
        None, description="near: the most bits of 64 that may differ; similar: the least cosine"
    )
    thorough: bool = Field(
        False,
        description="near: compare each picture's nearest by embedding, too, which finds crops and"
        " grey copies; reads every original",
    )
    unconfirmed: bool = Field(
        False, description="near: also what looks the same and no file here confirms"
    )
    keep: Literal["largest", "oldest", "newest"] = Field(
        "largest", description="which file of each group comes first, of those with most pixels"
    )
    folder: Annotated[str, Field(max_length=4096)] = Field(
        "", description="files in this folder come first: ROOT, ROOT/FOLDER or an absolute path"
    )
    offset: Annotated[int, Field(ge=0, le=_MOST_GROUPS)] = 0
    k: Annotated[int, Field(ge=1, le=1000)] = Field(100, description="number of groups")


@dataclass(frozen=True, slots=True)
class DuplicateList:
    """The groups, that which frees most first; how many files and pairs were left out."""

    groups: tuple[DuplicateGroup, ...]
    left_out: int
    unconfirmed: int
    is_cut: bool

    def keeping(self, keep: Literal["largest", "oldest", "newest"], folder: str) -> DuplicateList:
        """Return the same groups with another file to keep first."""
        kept = (each.keeping(keep, folder) for each in self.groups)
        groups = tuple(sorted(kept, key=lambda group: -group.reclaimable_bytes))
        return DuplicateList(groups, self.left_out, self.unconfirmed, self.is_cut)


def _places(found: DuplicateList) -> set[str]:
    """Return ROOT/FOLDER of every file."""
    return {
        f"{each.root}/{each.relative_path}".rpartition("/")[0]
        for group in found.groups
        for each in group.pictures
    }


class DuplicateLists:
    """Compare pictures one request at a time; keep the last results.  Thread-safe.

    A result is kept for ten minutes, while the index has the same generation and as many pictures.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings
        self._lock = threading.Lock()
        self._comparing = threading.Lock()
        self._closing = threading.Event()
        self._kept: OrderedDict[tuple[Any, ...], tuple[float, Future[DuplicateList]]] = (
            OrderedDict()
        )

    def close(self) -> None:
        """Give up what is being compared."""
        self._closing.set()

    def find(self, request: DuplicateRequest, wait_seconds: float) -> DuplicateList:
        """Return the groups, as the request keeps them.

        Raises StoreBusy if comparing takes longer than that, and goes on with it; UsageError for
        more pictures than are compared here.
        """
        count = self._store.listings.count()
        if request.level != "same" and not request.image_id and count > MOST_COMPARED:
            raise UsageError(
                f"The index has {count:,} pictures, and at most {MOST_COMPARED:,} are compared"
                f" here: choose the same bytes or one picture, or run `es-imgsearch duplicates"
                f" --level {request.level} --index {self._store.index}`."
            )
        key = (
            self._store.info().name, count, request.level, request.image_id, request.threshold,
            request.thorough, request.unconfirmed, request.keep,
        )  # fmt: skip
        try:
            found = self._future(key, request).result(wait_seconds)
        except TimeoutError:
            raise ComparisonRunning(
                "The pictures are being compared: ask again in a few seconds."
            ) from None
        folder = request.folder
        if folder and found.groups and not any(each.has_in(folder) for each in found.groups):
            # Else another file would be kept than was meant, and a script would remove it.
            raise UsageError(
                f"No file of these groups is in {folder!r}: write ROOT, ROOT/FOLDER or an absolute"
                f" path, or leave the folder out.{did_you_mean(folder, _places(found))}"
            )
        return found.keeping(request.keep, folder)

    def _future(self, key: tuple[Any, ...], request: DuplicateRequest) -> Future[DuplicateList]:
        with self._lock:
            now = time.monotonic()
            for old in [each for each, (at, _) in self._kept.items() if now - at > _KEPT_SECONDS]:
                if self._kept[old][1].done():
                    del self._kept[old]
            if key in self._kept:
                return self._kept[key][1]
            if sum(not future.done() for _, future in self._kept.values()) >= _MOST_WAITING:
                raise StoreBusy("Other pictures are being compared: ask again in a minute.")
            future: Future[DuplicateList] = Future()
            self._kept[key] = now, future
            for done in [each for each, (_, one) in self._kept.items() if one.done()]:
                if len(self._kept) > _MOST_KEPT:
                    del self._kept[done]
        # It ends with the process, whatever it waits for.
        threading.Thread(
            target=self._compare, args=(key, request, future), name="duplicates", daemon=True
        ).start()
        return future

    def _compare(
        self, key: tuple[Any, ...], request: DuplicateRequest, future: Future[DuplicateList]
    ) -> None:
        try:
            with self._comparing:
                future.set_result(self._found(request))
        except BaseException as error:  # noqa: BLE001
            # A result that failed is not kept.
            with self._lock:
                self._kept.pop(key, None)
            future.set_exception(error)

    def _found(self, request: DuplicateRequest) -> DuplicateList:
        found = find_duplicates(
            self._store,
            request.level,
            host=self._settings.host,
            threshold=request.threshold,
            image_id=request.image_id or None,
            thorough=request.thorough,
            unconfirmed=request.unconfirmed,
            max_pixels=self._settings.max_pixels,
            keep=request.keep,
        )
        groups = []
        for group in islice(found, _MOST_GROUPS + 1):
            if self._closing.is_set():
                raise StoreBusy("The service ends.")
            groups.append(group)
        is_cut = len(groups) > _MOST_GROUPS
        return DuplicateList(
            tuple(groups[:_MOST_GROUPS]), len(found.left_out), found.unconfirmed, is_cut
        )


class ComparisonRunning(StoreBusy):
    """Pictures are still being compared; the result comes later."""
