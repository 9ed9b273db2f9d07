"""Every date of `taken_at` that Elasticsearch takes gets its `taken_local`, and only once."""

from __future__ import annotations

from typing import Any

import pytest

from es_imgsearch.describe.dates import local_of
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage import taken_local
from es_imgsearch.manage.taken_local import fill_taken_local
from es_imgsearch.records import image_id
from tests.support.house import House

# As they are stored, with what the server reads there; None for years that Python has not.
DATES: list[tuple[Any, str | None]] = [
    (1.7e12, "2023-11-14T22:13:20"),
    (1700000000000.5, "2023-11-14T22:13:20"),
    ("1700000000000.25", "2023-11-14T22:13:20"),
    ("1700000000000", "2023-11-14T22:13:20"),
    (2024, "2024-01-01T00:00:00"),
    (2024.0, "1970-01-01T00:00:02.024"),
    ("123", "1970-01-01T00:00:00.123"),
    (-5, "1969-12-31T23:59:59.995"),
    ("2024", "2024-01-01T00:00:00"),
    ("2024T", "2024-01-01T00:00:00"),
    ("2024-01T", "2024-01-01T00:00:00"),
    ("2024-01-01T", "2024-01-01T00:00:00"),
    ("2024-01-01T10", "2024-01-01T10:00:00"),
    ("2024-01-01T10Z", "2024-01-01T10:00:00"),
    ("2024-01-01T10:30:45,123456789", "2024-01-01T10:30:45.123"),
    ([["2024-01-01"]], "2024-01-01T00:00:00"),
    (["-0044-03-15", "2024"], "2024-01-01T00:00:00"),
    ("-0044-03-15", None),
    (-2024, None),
    ("0000-01-01", None),
    (253402300800000, None),
]


@pytest.mark.parametrize(("taken_at", "local"), DATES, ids=[str(each) for each, _ in DATES])
def test_the_local_date_is_what_the_server_reads(taken_at: Any, local: str | None):
    assert local_of(taken_at) == local


def test_dates_are_filled_in_once(house: House):
    store: Store = house.store
    house.pictures(len(DATES))
    house.synced()
    store.refresh()
    dates = dict(zip(sorted(path for _, path in house.indexed()), DATES, strict=True))

    def dated(document: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in document.items() if name != "taken_local"}
        return kept | {"taken_at": dates[document["relative_path"]][0]}

    ids = [image_id("r", path) for path in dates]
    assert not store.rewrites.rewrite(ids, dated).refused
    store.refresh()
    assert fill_taken_local(store) == sum(local is not None for _, local in DATES)
    store.refresh()
    # Nothing is counted, listed or read at the next start.
    assert store.listings.count_matching({"bool": {"filter": list(taken_local._MISSING)}}) == 0
    assert fill_taken_local(store) == 0
