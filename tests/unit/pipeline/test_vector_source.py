"""Tell a failing encoder from a picture that cannot be embedded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

from es_imgsearch.describe.plain_values import has_length
from es_imgsearch.embed.in_process import InProcessEncoder
from es_imgsearch.embed.protocol import Pixels
from es_imgsearch.errors import EncodersFailed, ReadError
from es_imgsearch.pipeline.vector_source import VectorSource
from es_imgsearch.records import Embedded, Picture, Tile
from es_imgsearch.testing import FakeEncoder


def pixels_of(value: int) -> Pixels:
    return np.full((32, 32, 3), value, np.uint8)


def picture(value: int, *tiles: int) -> Picture:
    """One whose pixels have this value; so is it called."""
    made = [Tile((n, 0, 1, 1), pixels_of(each)) for n, each in enumerate(tiles)]
    return Picture(str(value), (1, 1), pixels_of(value), tiles=made)  # type: ignore[arg-type]


class Faces:
    """Embeds pictures whose pixels all have one of these values."""

    def __init__(self, *values: int, error: Exception | None = None) -> None:
        self.values = set(values)
        self.error = error or RuntimeError("no face")
        self._encoder = FakeEncoder()
        self._encoder.before_batch = self._look
        self._here = InProcessEncoder(self._encoder)
        self._source = VectorSource(self._encoder, lambda _ids, _fields: {}, 8)

    def _look(self, pixels: Pixels) -> None:
        if not set(np.unique(pixels).tolist()) <= self.values:
            raise self.error

    def embed_pictures(
        self, pictures: Sequence[Picture]
    ) -> tuple[dict[str, Embedded], dict[str, ReadError]]:
        return self._source.embed(pictures, self._here)

    def embedded(self, values: Sequence[int]) -> tuple[set[str], set[str]]:
        """Names of those that have vectors, and of those that are failures."""
        found, errors = self.embed_pictures([picture(each) for each in values])
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


def test_a_picture_of_which_an_encoder_says_that_it_has_no_vector():
    faces = Faces(3, error=ReadError("no_face", "There is none."))
    found, errors = faces.embed_pictures([picture(1), picture(3)])
    assert set(found) == {"3"}
    assert errors["1"].error_class == "no_face"


def test_what_an_encoder_says_of_made_up_pictures_does_not_hide_that_it_is_broken():
    faces = Faces()

    def look(pixels: Pixels) -> None:
        if len(np.unique(pixels)) > 8:
            raise ReadError("no_face", "There is none.")
        raise MemoryError

    faces._encoder.before_batch = look
    with pytest.raises(EncodersFailed, match="MemoryError"):
        faces.embedded([1, 2])


@pytest.mark.parametrize("error", [RuntimeError("no face"), ReadError("no_face", "no face")])
def test_a_tile_that_cannot_be_embedded_costs_itself_only(error: Exception):
    faces = Faces(3, 4, 5, error=error)
    found, errors = faces.embed_pictures([picture(3, 4, 9, 5)])
    assert not errors
    assert [each.box[0] for each in found["3"].regions] == [0, 2]
    # The picture itself is another matter.
    assert set(faces.embed_pictures([picture(9, 4)])[1]) == {"9"}


@pytest.mark.parametrize("length", [0.0, 1e-45, 1e-30, 1e25, 3e38, np.inf, np.nan])
def test_a_vector_of_any_length_is_scaled_or_a_failure(length: float):
    """Elasticsearch squares in float32: 1e25 has no finite length there, and 1e-30 none at all."""
    faces = Faces(1, 2, 3)
    faces.embedded([3])
    vectors = FakeEncoder._vectors

    def lengths(encoder: FakeEncoder, pixels: Pixels) -> np.ndarray:
        found = vectors(encoder, pixels)
        with np.errstate(all="ignore"):
            found[pixels[:, 0, 0, 0] == 2] *= np.float32(length)
        return found

    faces._encoder._vectors = partial(lengths, faces._encoder)  # type: ignore[method-assign]
    found, errors = faces.embed_pictures([picture(1), picture(2)])
    assert found.keys() | errors.keys() == {"1", "2"}
    assert all(has_length(each.vector, "cosine") for each in found.values())
    assert ("2" in found) == (length in {1e-30, 1e25, 3e38})
