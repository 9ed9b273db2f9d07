"""Encoders whose vectors fit nothing else, and how an index finds them by name."""

from __future__ import annotations

import numpy as np

from es_imgsearch.embed.protocol import Pixels, Vectors
from es_imgsearch.testing import FakeEncoder

# Modules that load encoders by name.
LOADERS = ("manage.init", "embed.index_encoder")


class OtherEncoder(FakeEncoder):
    """The same grid, its cells in another order and less of them.

    It knows no texts.
    """

    name = "other"
    dims = 24

    def __init__(self) -> None:
        super().__init__(revision="other", supports_text=False)

    def _vectors(self, pictures: Pixels) -> Vectors:
        vectors = FakeEncoder()._vectors(pictures)[:, ::-2] + 0.01
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class TwinEncoder(FakeEncoder):
    """As many dims as the first: only the seal tells its vectors from the other's."""

    name = "twin"

    def __init__(self) -> None:
        super().__init__(revision="twin")

    def _vectors(self, pictures: Pixels) -> Vectors:
        return np.ascontiguousarray(super()._vectors(pictures)[:, ::-1])


def encoders_by_name() -> dict[str, FakeEncoder]:
    """One of each, so that tests can count."""
    return {"fake": FakeEncoder(), "other": OtherEncoder(), "twin": TwinEncoder()}
