"""Whose fault it is that a picture has no vector: the encoder's, or the picture's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from es_imgsearch.embed.protocol import Pixels
from es_imgsearch.errors import EncodersFailed
from es_imgsearch.records import Picture
from es_imgsearch.stages.encoders import EncoderHere, OneAtATime
from es_imgsearch.stages.vectors import VectorSource
from es_imgsearch.testing import FakeEncoder


def picture(value: int) -> Picture:
    """One whose pixels have this value; so is it called."""
    pixels = np.full((32, 32, 3), value, np.uint8)
    return Picture(str(value), (1, 1), pixels)  # type: ignore[arg-type]


class Faces:
    """Embeds pictures whose pixels all have one of these values."""

    def __init__(self, *values: int) -> None:
        self.values = set(values)
        self._encoder = FakeEncoder()
        self._encoder.before_batch = self._look
        self._here = EncoderHere(OneAtATime(self._encoder))
        self._source = VectorSource(self._encoder, lambda _ids, _fields: {}, 8)

    def _look(self, pixels: Pixels) -> None:
        if not set(np.unique(pixels).tolist()) <= self.values:
            raise RuntimeError("no face")

    def embedded(self, values: Sequence[int]) -> tuple[set[str], set[str]]:
        """Names of those that have vectors, and of those that are failures."""
        found, errors = self._source.embedded([picture(each) for each in values], self._here)
        return set(found), set(errors)


def test_the_others_of_a_batch_show_that_the_encoder_works():
    faces = Faces(3)
    assert faces.embedded([1, 2, 3, 4]) == ({"3"}, {"1", "2", "4"})
    # From then on the one that was embedded shows it.
    assert faces.embedded([5]) == (set(), {"5"})


def test_an_encoder_that_works_no_more_is_found_by_what_it_embedded():
    faces = Faces(3)
    assert faces.embedded([3]) == ({"3"}, set())
    faces.values.clear()
    with pytest.raises(EncodersFailed, match=r"can embed no picture \(RuntimeError: no face\)"):
        faces.embedded([5, 6])


def test_an_encoder_that_embeds_nothing_at_all():
    with pytest.raises(EncodersFailed, match="can embed no picture"):
        Faces().embedded([1, 2, 3])
