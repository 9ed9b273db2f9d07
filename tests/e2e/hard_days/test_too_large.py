"""A proxy before Elasticsearch takes small bodies only, and says 413 to others."""

from __future__ import annotations

import json

import numpy as np
import pytest

from es_imgsearch import ImageSearch
from es_imgsearch.errors import StoreRejected
from tests.support.house import House
from tests.support.small_bodies import small_bodies

LIMIT_BYTES = 32_000
WORDS = r"too large for Elasticsearch at http.*: raise http.max_content_length there, or the proxy"

# A proxy may answer and close while it is still being sent to.
at_any_time = pytest.mark.parametrize("reads_first", [True, False])


@at_any_time
def test_bulks_are_split_and_a_document_that_never_fits_is_a_failure_with_words(
    house: House, reads_first: bool
):
    house.pictures(60)
    large = house.picture("large.png", 100)
    sidecar = large.with_name("large.png.json")
    sidecar.write_text(json.dumps({"description": "word " * 50_000}))
    proxy = small_bodies(house.settings.es_url, LIMIT_BYTES, reads_first=reads_first)
    with proxy as (url, refused):
        counts = house.synced(url=url).counts
    assert max(refused) > 2 * LIMIT_BYTES
    assert (counts.embedded, counts.failed) == (60, 1)
    (failure,) = house.store.listings.failures()
    assert (failure["image_name"], failure["error_class"]) == ("large.png", "rejected")
    assert "raise http.max_content_length there, or the proxy's limit" in failure["message"]
    # With a shorter one it is stored.
    sidecar.write_text(json.dumps({"description": "word " * 50}))
    large.touch()
    with small_bodies(house.settings.es_url, LIMIT_BYTES) as (url, _):
        assert house.synced(url=url).counts.embedded == 1
    assert not house.failed()


@at_any_time
def test_a_search_that_is_too_large_says_so(house: House, reads_first: bool):
    house.pictures(3)
    house.synced()
    proxy = small_bodies(house.settings.es_url, 200, reads_first=reads_first)
    with (
        proxy as (url, refused),
        ImageSearch(url, index=house.settings.index, encoder=house.encoder) as search,
        pytest.raises(StoreRejected, match=WORDS),
    ):
        search.search_image(np.zeros((32, 32, 3), np.uint8))
    assert refused
