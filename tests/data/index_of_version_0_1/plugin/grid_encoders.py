"""Two encoders without a model, installed with the index of version 0.1 that they are sealed to.

`EMBEDDED_LOG` names a file that gets a line for each picture embedded; `EMBEDDING_SECONDS` makes
each batch take that long.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from es_imgsearch.testing import FakeEncoder


class Grid48(FakeEncoder):
    """Mean colours of a 4 x 4 grid; texts are names of colours."""

    name = "grid-48"

    def embed_images(self, pictures: Any) -> Any:
        _note(self.name, len(pictures))
        return super().embed_images(pictures)


class Grid24(FakeEncoder):
    """Every second number of Grid48's vectors."""

    name = "grid-24"
    dims = 24

    def __init__(self) -> None:
        super().__init__(revision="24")
        self._whole = FakeEncoder()

    def embed_images(self, pictures: Any) -> Any:
        _note(self.name, len(pictures))
        return _every_second(self._whole.embed_images(pictures))

    def embed_texts(self, texts: Sequence[str]) -> Any:
        return _every_second(self._whole.embed_texts(texts))


def _note(name: str, pictures: int) -> None:
    time.sleep(float(os.environ.get("EMBEDDING_SECONDS", "0")))
    if log := os.environ.get("EMBEDDED_LOG"):
        with Path(log).open("a") as file:
            file.write(f"{name}\n" * pictures)


def _every_second(vectors: Any) -> Any:
    shorter = vectors[:, ::2] + np.float32(0.01)
    return (shorter / np.linalg.norm(shorter, axis=1, keepdims=True)).astype(np.float32)


def grid_48(argument: str, **_given: object) -> Grid48:
    return Grid48()


def grid_24(argument: str, **_given: object) -> Grid24:
    return Grid24()
