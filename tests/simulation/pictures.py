"""A tiny format of pictures, an encoder of it, and reading workers that are tasks.

A picture is `PIC`, any bytes, `END`.  With `BAD` in it it is corrupt, without `END` truncated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from es_imgsearch.embed.protocol import Pixels, Vectors
from es_imgsearch.errors import ReadError
from es_imgsearch.read.decoding import Decoded
from es_imgsearch.read.file import Skipped, read_file
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.records import Picture, unit
from tests.simulation.machine.threads import SimulatedQueue, Threads

_SIDE = 2
_CONTENT_BYTES = 40


def picture_bytes(number: int, *, length: int = _CONTENT_BYTES, mark: str = "") -> bytes:
    """Make a picture of its own; all of one length have one size."""
    middle = f"{mark}{number}".encode().ljust(length - 6, b".")
    return b"PIC" + middle + b"END"


def is_whole(content: bytes) -> bool:
    """Return True if the content can be decoded."""
    return content.startswith(b"PIC") and content.endswith(b"END") and b"BAD" not in content


def content_id(content: bytes) -> str:
    """Return the content id as the product computes it."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _pixels(content: bytes) -> npt.NDArray[np.uint8]:
    digest = hashlib.blake2b(content, digest_size=_SIDE * _SIDE * 3).digest()
    return np.frombuffer(digest, np.uint8).reshape(_SIDE, _SIDE, 3)


def decode(file: Any, **_: Any) -> Decoded:
    """Decode a file of the format; stands in for `read.decoding.decode`."""
    file.seek(0)
    content = file.read()
    if not content.startswith(b"PIC"):
        raise ReadError("unidentified", "This is no picture.")
    if not content.endswith(b"END"):
        raise ReadError("truncated", "It ends too early.")
    if b"BAD" in content:
        raise ReadError("corrupt", "It does not decode.")
    image = Image.fromarray(_pixels(content))
    return Decoded(image, "PNG", Image.Exif(), image.size)


class SimulatedEncoder:
    """An encoder whose vector is a function of content and revision."""

    dims = _SIDE * _SIDE * 3
    similarity = "cosine"
    supports_text = False
    preparation = Preparation(width=_SIDE, height=_SIDE, mode="squash")
    fingerprint = "simulated"

    def __init__(self, name: str, shift: int) -> None:
        self.name = name
        self.revision = name
        self._shift = shift

    def embed_images(self, pictures: Pixels) -> Vectors:
        flat = pictures.reshape(len(pictures), self.dims).astype(np.float32) - 127.5
        return unit(np.roll(flat, self._shift, axis=1))

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        raise NotImplementedError

    def of_content(self, content: bytes) -> npt.NDArray[np.float32]:
        """Return the vector that belongs to a content."""
        vector: npt.NDArray[np.float32] = self.embed_images(_pixels(content)[np.newaxis])[0]
        return vector


ENCODERS = {name: SimulatedEncoder(name, shift) for name, shift in {"one": 1, "two": 5}.items()}


def load_encoder(spec: str, **_: Any) -> SimulatedEncoder:
    """Stand in for `embed.registry.load_encoder`."""
    return ENCODERS[spec]


class TaskWorkers:
    """Reading workers that run `read_file` in tasks of the process."""

    def __init__(self, threads: Threads, plan: Any, processes: int) -> None:
        self._plan = plan
        self._queue = SimulatedQueue(threads.scheduler)
        self._closing = False
        self._processes = processes
        for number in range(processes):
            threads.threading.Thread(target=self._work, name=f"reader-{number}").start()

    def read(self, path: str, done: Callable[[Any], None]) -> None:
        if self._closing:
            raise RuntimeError("the workers are closed")
        self._queue.put((path, done))

    def close(self) -> None:
        self._closing = True
        for _ in range(self._processes):
            self._queue.put(None)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None and not self._closing:
            path, done = item
            outcome = self._outcome(path)
            if not self._closing:
                done(outcome)

    def _outcome(self, path: str) -> Picture | Skipped | ReadError:
        plan = self._plan
        try:
            return read_file(path, plan.preparation, (), max_pixels=plan.max_pixels, grid=plan.grid)
        except ReadError as error:
            return error
        except Exception as error:  # noqa: BLE001 - as a worker does
            return ReadError("corrupt", f"{type(error).__name__}: {error}")
