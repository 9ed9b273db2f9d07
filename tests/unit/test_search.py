"""The client without a server: what is asked for, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import picture_samples as samples
import pytest
from PIL import Image

from es_imgsearch.errors import ImageMissing, SettingsError, UsageError
from es_imgsearch.mapping import new_meta
from es_imgsearch.sealing import seal_of
from es_imgsearch.search import ImageSearch
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import FakeEncoder, MemoryStore


class SearchedStore(MemoryStore):
    """Finds nothing and keeps what it was asked."""

    def search(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked = body
        return {}


@pytest.fixture
def search() -> ImageSearch:
    encoder = FakeEncoder()
    found = ImageSearch(settings=load_settings(environment={}), encoder=encoder)
    store = SearchedStore()
    store.create(new_meta(seal_of(encoder), "exact", "cosine"))
    found._store = store  # type: ignore[assignment]
    return found


def asked(search: ImageSearch, *query: Any, **options: Any) -> np.ndarray:
    search.search(*query, **options)
    vector: np.ndarray = search._store.asked["knn"]["query_vector"]  # type: ignore[attr-defined]
    return vector


@pytest.mark.parametrize("kind", ["text", "path", "bytes", "image", "array"])
def test_one_query_needs_no_list(search: ImageSearch, kind: str, tmp_path: Path):
    content = samples.sample("png")
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
        queries: dict[str, Any] = {
            "text": "blue", "path": path, "bytes": content, "image": image, "array": pixels,
        }  # fmt: skip
        query = queries[kind]
        assert np.array_equal(asked(search, query), asked(search, [query]))
        assert np.array_equal(asked(search, "green", query), asked(search, ["green"], [query]))
        assert len(search.search(query).queries) == 1


def test_hits_keep_the_part_of_the_picture_that_was_searched_with(search: ImageSearch):
    turned = samples.four_corners().transpose(Image.Transpose.ROTATE_90)
    content = samples.saved(turned, "JPEG", quality=95, exif=samples.exif_bytes(6))
    box = (34, 2, 28, 20)
    words, part = search.search(["a cat", content], box=box).queries
    assert words == "a cat"
    assert isinstance(part, Image.Image)
    assert part.size == (28, 20)
    assert samples.near(part.getpixel((14, 10)), samples.GREEN)
    assert np.array_equal(asked(search, part), asked(search, content, box=box))
    assert np.array_equal(asked(search, part), search.embed(content, box))


def test_a_turned_image_is_turned_once(search: ImageSearch, tmp_path: Path):
    turned = samples.four_corners().transpose(Image.Transpose.ROTATE_90)
    content = samples.saved(turned, "JPEG", quality=95, exif=samples.exif_bytes(6))
    whole = (0, 0, 10_000, 10_000)
    assert np.array_equal(asked(search, content, box=whole), asked(search, content))


def test_text_that_is_not_unicode_is_refused(search: ImageSearch):
    with pytest.raises(UsageError, match="not valid Unicode"):
        search.search_text("caf\udce9")
    for ask in (search.similar, search.get):
        with pytest.raises(ImageMissing):
            ask("caf\udce9")


def test_a_k_that_is_no_whole_number_is_refused(search: ImageSearch):
    for k in (2.0, "3"):
        with pytest.raises(UsageError, match="k must be a whole number"):
            search.search_text("red", k=k)  # type: ignore[arg-type]


def test_arguments_are_checked_as_settings_are():
    settings = load_settings(environment={})
    with pytest.raises(SettingsError, match="cannot name an index"):
        ImageSearch(index="A B", settings=settings)
    with pytest.raises(SettingsError, match="http://"):
        ImageSearch("127.0.0.1:9200", settings=settings)
    with pytest.raises(UsageError, match=r"one address, .* not a list"):
        ImageSearch(["http://127.0.0.1:9200"])  # type: ignore[arg-type]
