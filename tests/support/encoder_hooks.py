"""Encoders for tests of encoder processes: one does what the colour of a picture says.

They import no more than an encoder does: every process that a test starts imports this.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from es_imgsearch.embed.protocol import Pixels, Vectors
from es_imgsearch.errors import ModelUnavailable
from es_imgsearch.read.preparation import Preparation

KILLS, HANGS, RAISES = (255, 0, 0), (0, 255, 0), (255, 255, 0)


class Colours:
    """A picture's vector is its mean colour, and 1."""

    name = "colours"
    revision = "1"
    fingerprint = "1"
    dims = 4
    similarity = "cosine"
    supports_text = False
    preparation = Preparation(width=32, height=32, mode="squash")

    def embed_images(self, pictures: Pixels) -> Vectors:
        means = pictures.reshape(len(pictures), -1, 3).mean(axis=1) / 255
        rows = np.column_stack([means, np.ones(len(means))])
        vectors: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return vectors

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        raise NotImplementedError


class HookEncoder(Colours):
    """Notes in its folder by which processes it was called.

    `once`: the first picture that kills does so, those that follow are embedded.
    """

    def __init__(self, folder: Path, *, once: bool = False) -> None:
        self.folder = folder
        self.once = once

    def embed_images(self, pictures: Pixels) -> Vectors:
        with (self.folder / f"{os.getpid()}").open("a") as file:
            file.write(f"{len(pictures)}\n")
        means = pictures.reshape(len(pictures), -1, 3).mean(axis=1)
        for mean in means:
            if near(mean, KILLS) and not (self.once and self._was_killed()):
                os.kill(os.getpid(), signal.SIGKILL)
            if near(mean, HANGS):
                threading.Event().wait()
            if near(mean, RAISES):
                raise RuntimeError("yellow")
        return super().embed_images(pictures)

    def processes(self) -> list[int]:
        """Those that embedded something, in no order."""
        return [int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()]

    def _was_killed(self) -> bool:
        try:
            (self.folder / "killed").touch(exist_ok=False)
        except FileExistsError:
            return True
        return False


class Unloadable(Colours):
    """Its weights are not there."""

    def embed_images(self, pictures: Pixels) -> Vectors:
        raise ModelUnavailable("There are no weights: put them there.")


class Shapeless(Colours):
    """Gives nothing, whatever it is given."""

    def embed_images(self, pictures: Pixels) -> Vectors:
        return None  # type: ignore[return-value]


class Dying(Colours):
    """Ends its process when it is loaded, as the system does where memory is short."""

    def embed_images(self, pictures: Pixels) -> Vectors:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def cannot_load(_pixels: Pixels) -> None:
    """For `FakeEncoder.before_batch`: as if its weights were damaged."""
    raise OSError("weights.bin ends too early\nat byte 17")


def near(mean: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(abs(mean - colour).max() < 4)
