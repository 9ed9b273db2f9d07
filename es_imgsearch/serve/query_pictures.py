"""Pictures that are searched with: decoded in a reading process, kept for an hour."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from PIL import Image

from es_imgsearch.errors import (
    EXIT_UNREACHABLE,
    ImageMissing,
    ImgSearchError,
    QueryPictureInvalid,
    ReadError,
)
from es_imgsearch.read.decoding import PICTURE_SUFFIXES
from es_imgsearch.read.file import Skipped
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.read.workers import ReadPlan, ReadWorkers
from es_imgsearch.records import Picture
from es_imgsearch.serve.traffic.stages import timed
from es_imgsearch.settings import Settings

# Encoders see a few hundred pixels of the box that is cut from it.
_SIDE_PIXELS: Final = 1600
# 40 pictures of 1600 x 1200 take 230 MB.
_MOST_KEPT: Final = 40
_KEPT_SECONDS: Final = 3600
_MOST_ORIGINALS: Final = 10

# Of 20 MB each, in memory while they wait; a usual one is decoded in 0.1 s, a hostile one within
# `read_timeout_seconds`.
_MOST_WAITING: Final = 16
_WAIT_SECONDS: Final = 30.0

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class QueryFile:
    """An upright picture of at most 1600 pixels, and the size that its file has."""

    picture: Image.Image
    width: int
    height: int

    def jpeg(self) -> bytes:
        """Return it as a JPEG file."""
        stream = io.BytesIO()
        self.picture.convert("RGB").save(stream, "JPEG", quality=85)
        return stream.getvalue()

    def part(self, box: Box | None) -> Image.Image:
        """Return the part in a box, in pixels of the file; without one, all of it.

        Raises QueryPictureInvalid if the box holds nothing of the picture.
        """
        if box is None:
            return self.picture
        x, y, width, height = box
        ends = (max(0, x), max(0, y), min(self.width, x + width), min(self.height, y + height))
        if ends[2] - ends[0] < 1 or ends[3] - ends[1] < 1:
            raise QueryPictureInvalid(
                f"The box {x:g},{y:g},{width:g},{height:g} holds no part of the picture, which is"
                f" {self.width} x {self.height} pixels."
            )
        across, down = self.picture.width / self.width, self.picture.height / self.height
        left, top = int(ends[0] * across), int(ends[1] * down)
        right, bottom = round(ends[2] * across), round(ends[3] * down)
        return self.picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


class Upload(NamedTuple):
    """The content of a file that was sent, and the name that its sender gave it."""

    content: bytes
    name: str = ""

    @property
    def suffix(self) -> str:
        """The suffix, which some formats are recognised by; "" if it is of none."""
        suffix = os.path.splitext(self.name)[1].lower()
        return suffix if suffix in PICTURE_SUFFIXES else ""


# By key, the one used last at the end: when it was sent, and the picture.
_Kept: TypeAlias = OrderedDict[str, tuple[float, QueryFile]]


class PicturesQueued(ImgSearchError):
    """As many pictures wait to be decoded as may, or one waited for too long."""

    transient = True
    exit_code = EXIT_UNREACHABLE


class _Turns:
    """One thread at a time; bounds how many wait, and for how long.  Thread-safe."""

    def __init__(self, most_waiting: int, wait_seconds: float) -> None:
        self._wait_seconds = wait_seconds
        self._places = threading.BoundedSemaphore(most_waiting + 1)
        self._turn = threading.Lock()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a turn.  Raises PicturesQueued."""
        if not self._places.acquire(blocking=False):
            raise PicturesQueued(
                "Too many pictures wait to be decoded already: send it again in a few seconds."
            )
        try:
            if not self._turn.acquire(timeout=self._wait_seconds):
                raise PicturesQueued(
                    f"The picture waited {self._wait_seconds:g} s for others to be decoded: send it"
                    " again in a few seconds."
                )
            try:
                yield
            finally:
                self._turn.release()
        finally:
            self._places.release()


class QueryPictures:
    """Decode uploads and keep them under their hash.  Thread-safe."""

    def __init__(self, settings: Settings, *, most_waiting: int = _MOST_WAITING) -> None:
        """One process decodes; `most_waiting` may wait for it."""
        plan = ReadPlan.of(
            settings,
            Preparation(_SIDE_PIXELS, _SIDE_PIXELS, mode="fit", resampling="lanczos"),
            describers=(),
        )
        self._workers = ReadWorkers(plan, 1)
        self._turns = _Turns(most_waiting, _WAIT_SECONDS)
        self._lock = threading.Lock()
        self._kept: _Kept = OrderedDict()
        self._originals: _Kept = OrderedDict()

    def close(self) -> None:
        """End the reading process."""
        self._workers.close()

    def put(self, upload: Upload) -> str:
        """Decode and keep a picture; return its hash.  Raises QueryPictureInvalid."""
        key = hashlib.sha256(upload.content).hexdigest()[:32]
        self._keep(self._kept, key, self._find(self._kept, key) or self.decode(upload))
        return key

    def get(self, key: str) -> QueryFile:
        """Return one of the last 40 pictures, of the last hour.  Raises ImageMissing."""
        if (found := self._find(self._kept, key)) is None:
            raise ImageMissing("That picture is kept no longer: send it again.")
        return found

    def original(self, path: Path, image_id: str, content_id: str) -> QueryFile:
        """Read the original of a stored picture, which is kept too, as it was stored.

        Raises ImageMissing if it is gone, ReadError if it cannot be read.
        """
        if (kept := self._find(self._originals, content_id)) is not None:
            return kept
        with timed("decode"), self._turns.taken():
            ((_, outcome),) = self._workers.read_each([str(path)])
        if isinstance(outcome, ReadError):
            raise outcome
        if outcome is None or isinstance(outcome, Skipped):
            raise ImageMissing(f"The original of {image_id!r} is gone or being written.")
        found = _query_file(outcome)
        if outcome.content_id == content_id:
            self._keep(self._originals, content_id, found)
        return found

    def _keep(self, kept: _Kept, key: str, found: QueryFile) -> None:
        most = _MOST_KEPT if kept is self._kept else _MOST_ORIGINALS
        with self._lock:
            kept[key] = time.monotonic(), found
            kept.move_to_end(key)
            while len(kept) > most:
                kept.popitem(last=False)

    def _find(self, kept: _Kept, key: str) -> QueryFile | None:
        with self._lock:
            sent_at, found = kept.get(key, (0.0, None))
            if found is None:
                return None
            if time.monotonic() - sent_at > _KEPT_SECONDS:
                del kept[key]
                return None
            kept.move_to_end(key)
            return found

    def decode(self, upload: Upload) -> QueryFile:
        """Decode a picture, which is not kept.  Raises QueryPictureInvalid."""
        if not upload.content:
            raise QueryPictureInvalid("The picture is empty.")
        with timed("decode"), self._turns.taken(), _written(upload) as path:
            ((_, outcome),) = self._workers.read_each([path])
        if isinstance(outcome, ReadError):
            raise QueryPictureInvalid(
                f"This cannot be searched with: {outcome.message}"
            ) from outcome
        if outcome is None or isinstance(outcome, Skipped):
            raise QueryPictureInvalid("This is no picture.")
        return _query_file(outcome)


def _query_file(read: Picture) -> QueryFile:
    picture = Image.fromarray(read.pixels)
    width, height = (read.fields.get(each) for each in ("width", "height"))
    return QueryFile(picture, width or picture.width, height or picture.height)


@contextmanager
def _written(upload: Upload) -> Iterator[str]:
    """Write an upload for the reading process; where no disk takes it, to memory.

    In memory it has no suffix.
    """
    with ExitStack() as files:
        try:
            file = files.enter_context(
                tempfile.NamedTemporaryFile(prefix="query-", suffix=upload.suffix)
            )
            file.write(upload.content)
            file.flush()
            path = file.name
        except OSError:
            if not hasattr(os, "memfd_create"):
                raise
            number = os.memfd_create("query")
            files.callback(os.close, number)
            with open(number, "wb", closefd=False) as memory:
                memory.write(upload.content)
            path = f"/proc/{os.getpid()}/fd/{number}"
        yield path
