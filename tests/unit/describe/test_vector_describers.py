"""Describers of vectors: what is their failure, and what is the end of the process."""

from __future__ import annotations

import numpy as np
import pytest

from es_imgsearch.describe.fields import VectorDescribers
from es_imgsearch.describe.registry import VectorSpace
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.errors import GenerationSwitched, StoreRejected
from es_imgsearch.testing import FakeEncoder

SPACE = VectorSpace(
    "images", new_meta(Seal("f", "1", 2, "f"), "exact", "cosine"), FakeEncoder(), lambda _: None
)
VECTORS = np.eye(2, dtype=np.float32)


class Asks:
    name, source, mapping = "asks", "vector", {"said": {"type": "keyword"}}

    def __init__(self, error: Exception) -> None:
        self._error = error

    def begin(self, _space: VectorSpace) -> None:
        if self.name == "begins":
            raise self._error

    def describe_vectors(self, vectors: np.ndarray) -> list[dict[str, str]]:
        raise self._error


@pytest.mark.parametrize("error", [Stopped(), GenerationSwitched("Another one.")])
def test_the_end_of_the_process_is_not_noted_as_a_failure(error: Exception):
    by_vector = VectorDescribers([Asks(error)])
    by_vector.begin(SPACE)
    with pytest.raises(type(error)):
        by_vector.describe(VECTORS)
    begins = Asks(error)
    begins.name = "begins"
    with pytest.raises(type(error)):
        VectorDescribers([begins]).begin(SPACE)


def test_what_else_it_raises_is_noted_of_each_picture():
    by_vector = VectorDescribers([Asks(StoreRejected("No."))])
    by_vector.begin(SPACE)
    note = {"asks": {"describe_errors": ["asks: StoreRejected: No."]}}
    assert by_vector.describe(VECTORS) == [note, note]
