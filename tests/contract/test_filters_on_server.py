"""Filters on the real Elasticsearch find what a loop over the documents finds."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.meta_entries import Tuning
from es_imgsearch.elastic.queries import exact_body, knn_body
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.search.filters import filter_clauses
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import FakeEncoder, remove_index

Document = dict[str, Any]

FOLDERS = [".", "a", "ab", "a/b", "a/b/c", "a b", 'q"uote', "é/ü", "a.b", "*"]
MOMENTS = [
    None,
    "2023-12-31T23:59:59",
    "2024-01-01T00:00:00",
    "2024-05-30T23:59:59",
    "2024-05-31T00:00:00",
    "2024-05-31T12:30:15",
    "2024-05-31T23:59:59",
    "2024-06-01T00:00:00",
    "2024-06-01T00:30:00+02:00",
    # Of Tokyo and New York, each near midnight.
    "2024-05-31T00:30:00+09:00",
    "2024-05-31T23:30:00-04:00",
    "2025-01-01T00:00:00",
]
CAMERAS = ["Canon EOS", 'He said "cheese"', "Olympus μ[mju:]", None, "*", "a..b"]
# Vienna, 3 km and 55 km from it, on the other side of the world, and nowhere.
PLACES: list[dict[str, float] | None] = [
    {"lat": 48.2082, "lon": 16.3738},
    {"lat": 48.235, "lon": 16.3738},
    {"lat": 48.1486, "lon": 17.1077},
    {"lat": -48.2082, "lon": -163.6262},
    None,
]
TAGS = [["cat"], ["cat", "dog"], [], ["hot dog"]]


def documents() -> Iterator[Document]:
    for number in range(120):
        folder = FOLDERS[number % len(FOLDERS)]
        name = f"{number} ä.jpg"
        fields = {
            "image_id": str(number),
            "image_name": name,
            "root": "photos" if number % 3 else "scans",
            "folder": folder,
            "relative_path": name if folder == "." else f"{folder}/{name}",
            "content_id": f"c{number}",
            "size_bytes": number * 1000,
            "mtime_ns": 1_763_800_000_123_456_700 + number,
            "width": 100 + number,
            "embed_ms": number / 8,
            "modified_at": f"2024-05-{1 + number % 31:02}T10:00:00.000+00:00",
            "taken_at": MOMENTS[number // 7 % len(MOMENTS)],
            # Documents of earlier versions lack it.
            "taken_local": (MOMENTS[number // 7 % len(MOMENTS)] or "")[:19] or None
            if number % 4
            else None,
            "camera": CAMERAS[number // 2 % len(CAMERAS)],
            "tags": TAGS[number // 5 % len(TAGS)],
            "caption": "a black cat on a mat" if number % 4 else "a dog",
            "location": PLACES[number % len(PLACES)],
            "attributes": {"colour": ["red", "dark red"][number % 2], "size": {"eu": f"{number}"}},
        }
        yield {key: value for key, value in fields.items() if value is not None}


DOCUMENTS = list(documents())


@pytest.fixture(scope="module")
def store(es_url: str) -> Iterator[Store]:
    settings = load_settings(
        {"es_url": es_url, "index": f"t-filters-{uuid.uuid4().hex[:12]}"}, environment={}
    )
    made = Store(connect(settings), settings.index)
    made.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine"))
    random = np.random.default_rng(0)
    writes = []
    for each in DOCUMENTS:
        vector = random.normal(size=FakeEncoder.dims)
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        writes.append(Write(each["image_id"], document={**each, "image_embedding": vector}))
    assert set(made.documents.write(writes).values()) == {None}
    made.refresh()
    yield made
    remove_index(made)
    made.connection.client.close()


def found(store: Store, clauses: list[dict[str, Any]]) -> set[str]:
    """By approximate and by exact search, which must agree."""
    vector = np.ones(FakeEncoder.dims, dtype=np.float32) / FakeEncoder.dims**0.5
    bodies = [
        knn_body(vector, 1000, Tuning(), filters=clauses, source=False),
        exact_body(vector, 1000, "cosine", filters=clauses, source=False),
    ]
    near, exact = (
        {hit["_id"] for hit in store.searches.search(body).get("hits", {}).get("hits", ())}
        for body in bodies
    )
    assert near == exact
    return near


def moment(text: str) -> datetime:
    """As the index reads it: without an offset it is UTC."""
    read = datetime.fromisoformat(text)
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def taken(
    low: str | None, high: str | None, *, is_moment: bool = False
) -> Callable[[Document], bool]:
    """low <= the camera's own date, or the moment, < high"""

    def holds(each: Document) -> bool:
        if "taken_at" not in each:
            return False
        at = moment(each["taken_at"] if is_moment else each.get("taken_local", each["taken_at"]))
        return (low is None or at >= moment(low)) and (high is None or at < moment(high))

    return holds


def below(folder: str) -> Callable[[Document], bool]:
    return lambda each: each["folder"] == folder or each["folder"].startswith(f"{folder}/")


def near(latitude: float, longitude: float, km: float) -> Callable[[Document], bool]:
    """By the haversine on a sphere of 6,371 km."""

    def holds(each: Document) -> bool:
        if "location" not in each:
            return False
        place = np.radians([latitude, longitude, *each["location"].values()])
        half = np.sin((place[:2] - place[2:]) / 2) ** 2
        root = half[0] + np.cos(place[0]) * np.cos(place[2]) * half[1]
        return bool(2 * 6371 * np.arcsin(np.sqrt(root)) <= km)

    return holds


DAY = taken("2024-05-31", "2024-06-01")

CASES: list[tuple[dict[str, Any], Callable[[Document], bool]]] = [
    ({"root": "scans"}, lambda d: d["root"] == "scans"),
    ({"root": ["scans", "photos"]}, lambda d: True),
    ({"root": []}, lambda d: False),
    ({"camera": 'He said "cheese"'}, lambda d: d.get("camera") == 'He said "cheese"'),
    ({"camera": "Olympus μ[mju:]"}, lambda d: d.get("camera") == "Olympus μ[mju:]"),
    ({"camera": "*"}, lambda d: d.get("camera") == "*"),
    ({"camera": "a..b"}, lambda d: d.get("camera") == "a..b"),
    ({"camera": None}, lambda d: "camera" not in d),
    ({"camera": ["*", None]}, lambda d: d.get("camera") in {"*", None}),
    ({"camera": ("A", "D")}, lambda d: "A" <= d.get("camera", "") <= "D"),
    ({"tags": "dog"}, lambda d: "dog" in d["tags"]),
    ({"tags": "hot dog"}, lambda d: "hot dog" in d["tags"]),
    ({"tags": None}, lambda d: not d["tags"]),
    ({"tags": ["dog", "hot dog"]}, lambda d: bool({"dog", "hot dog"} & set(d["tags"]))),
    *(({"folder": folder}, below(folder)) for folder in FOLDERS),
    ({"folder": "a/"}, below("a")),
    ({"folder": "nowhere"}, lambda d: False),
    ({"folder": ["ab", "a/b"]}, lambda d: below("ab")(d) or below("a/b")(d)),
    ({"image_name": "5 ä.jpg"}, lambda d: d["image_name"] == "5 ä.jpg"),
    ({"image_name": "5"}, lambda d: False),
    ({"relative_path": "a/b/23 ä.jpg"}, lambda d: d["relative_path"] == "a/b/23 ä.jpg"),
    ({"caption": "cat black"}, lambda d: "cat" in d["caption"]),
    ({"caption": "cat dog"}, lambda d: False),
    ({"attributes.colour": "red"}, lambda d: d["attributes"]["colour"] == "red"),
    ({"attributes.colour": "dark red"}, lambda d: d["attributes"]["colour"] == "dark red"),
    ({"attributes.size.eu": "7"}, lambda d: d["image_id"] == "7"),
    ({"attributes.none": None}, lambda d: True),
    ({"attributes": "dark red"}, lambda d: d["attributes"]["colour"] == "dark red"),
    ({"width": 117}, lambda d: d["width"] == 117),
    ({"width": "110..120"}, lambda d: 110 <= d["width"] <= 120),
    ({"width": (None, 120)}, lambda d: d["width"] <= 120),
    ({"width": "200.."}, lambda d: d["width"] >= 200),
    ({"width": (110.5, 119.5)}, lambda d: 110.5 <= d["width"] <= 119.5),
    ({"width": 117.5}, lambda d: False),
    ({"width": "..1e15"}, lambda d: True),
    ({"width": (2**31, None)}, lambda d: False),
    ({"width": (-(2**40), 150)}, lambda d: d["width"] <= 150),
    ({"mtime_ns": (1e30, None)}, lambda d: False),
    ({"mtime_ns": (-1e30, 1e30)}, lambda d: True),
    ({"embed_ms": (-1e300, 5)}, lambda d: d["embed_ms"] <= 5),
    ({"location": (48.2082, 16.3738, "5km")}, near(48.2082, 16.3738, 5)),
    ({"location": "48.2082,16.3738,100km"}, near(48.2082, 16.3738, 100)),
    ({"location": (48.2082, 16.3738, "10m")}, near(48.2082, 16.3738, 0.01)),
    ({"location": [(48.2082, 16.3738, "1km"), (-48, -163, "100mi")]},
     lambda d: near(48.2082, 16.3738, 1)(d) or near(-48, -163, 160.9)(d)),
    ({"location": None}, lambda d: "location" not in d),
    ({"width": 10**15}, lambda d: False),
    ({"embed_ms": "1.5..2.25"}, lambda d: 1.5 <= d["embed_ms"] <= 2.25),
    ({"embed_ms": 1.625}, lambda d: d["embed_ms"] == 1.625),
    ({"mtime_ns": 1763800000123456789}, lambda d: d["mtime_ns"] == 1763800000123456789),
    (
        {"mtime_ns": "1763800000123456789.."},
        lambda d: d["mtime_ns"] >= 1763800000123456789,
    ),
    ({"taken_at": "2024"}, taken("2024-01-01", "2025-01-01")),
    ({"taken_at": "2024-05"}, taken("2024-05-01", "2024-06-01")),
    ({"taken_at": "2024-05-31"}, DAY),
    ({"taken_at": "2024-05-31..2024-05-31"}, DAY),
    ({"taken_at": ("2024-05-31", None)}, taken("2024-05-31", None)),
    ({"taken_at": (None, "2023")}, taken(None, "2024-01-01")),
    ({"taken_at": "2024-05-31 12:30"}, taken("2024-05-31T12:30", "2024-05-31T12:31")),
    ({"taken_at": "2024-05-31T12:30:15"}, taken("2024-05-31T12:30:15", "2024-05-31T12:30:16")),
    (
        {"taken_at": "2024-05-31T14:30:15+02:00"},
        taken("2024-05-31T12:30:15", "2024-05-31T12:30:16", is_moment=True),
    ),
    ({"taken_at": "2024-05-31T12:30:15Z.."}, taken("2024-05-31T12:30:15", None, is_moment=True)),
    ({"taken_local": "2024-05-31"}, DAY),
    (
        {"taken_at": ("2024-05-31", "2024-05-31T15:30:00Z")},
        lambda d: taken("2024-05-31", None)(d)
        and taken(None, "2024-05-31T15:30:01", is_moment=True)(d),
    ),
    (
        {"taken_at": ("2024-05-31T12:30:15.000", "2024-05-31T12:30:15.500")},
        taken("2024-05-31T12:30:15", "2024-05-31T12:30:16"),
    ),
    (
        {"taken_at": datetime(2024, 6, 1, tzinfo=UTC)},
        taken("2024-06-01", "2024-06-01T00:00:01", is_moment=True),
    ),
    ({"taken_at": None}, lambda d: "taken_at" not in d),
    (
        {"taken_at": ["2023", "2025"]},
        lambda d: d.get("taken_local", d.get("taken_at", ""))[:4] in {"2023", "2025"},
    ),
    ({"root": "scans", "folder": "a", "width": "..150"},
     lambda d: d["root"] == "scans" and below("a")(d) and d["width"] <= 150),
]  # fmt: skip


@pytest.mark.parametrize(("filters", "holds"), CASES, ids=[str(case[0]) for case in CASES])
def test_a_filter_finds_what_it_says(store: Store, filters: dict[str, Any], holds):
    clauses = filter_clauses(filters, store.info().properties)
    assert found(store, clauses) == {each["image_id"] for each in DOCUMENTS if holds(each)}


@pytest.mark.parametrize(("filters", "holds"), CASES, ids=[str(case[0]) for case in CASES])
def test_what_a_hit_must_not_meet_leaves_the_rest(store: Store, filters: dict[str, Any], holds):
    """Of several fields a hit meets none; one that lacks a field stays."""
    properties = store.info().properties
    rest = {each["image_id"] for each in DOCUMENTS}
    for field, value in filters.items():
        rest -= found(store, filter_clauses({field: value}, properties))
    assert found(store, filter_clauses(None, properties, without=filters)) == rest
    if len(filters) == 1:
        assert rest == {each["image_id"] for each in DOCUMENTS if not holds(each)}


def test_what_hits_meet_and_what_they_must_not_meet(store: Store):
    clauses = filter_clauses(
        {"root": "photos", "tags": ["cat", "hot dog"]},
        store.info().properties,
        without={"folder": ["a", "é"], "location": (48.2082, 16.3738, "5km"), "camera": None},
    )
    expected = {
        each["image_id"]
        for each in DOCUMENTS
        if each["root"] == "photos"
        and {"cat", "hot dog"} & {*each["tags"]}
        and each["folder"].split("/")[0] not in {"a", "é"}
        and each.get("location") not in PLACES[:2]
        and "camera" in each
    }
    assert found(store, clauses) == expected
    assert 0 < len(expected) < 60


def test_the_cases_find_something_and_not_everything():
    """Else they would prove little."""
    counts = [sum(map(holds, DOCUMENTS)) for _, holds in CASES]
    assert sum(0 < count < len(DOCUMENTS) for count in counts) > 0.75 * len(CASES)


@pytest.mark.parametrize(
    ("since", "until"),
    [("2024-05-31", None), (None, "2024-05-31"), ("2024-05-31", "2024-05-31"), ("2024", "2024"),
     ("2024-05", "2024-05"), ("2025", None)],
)  # fmt: skip
def test_since_and_until_fall_back_to_the_modification(store: Store, since, until):
    def holds(each: Document) -> bool:
        at = each.get("taken_local", each.get("taken_at", each["modified_at"]))
        day = moment(at).astimezone(UTC).isoformat()[:10]
        return (since is None or day >= since) and (until is None or day[: len(until)] <= until)

    clauses = filter_clauses(None, store.info().properties, since=since, until=until)
    expected = {each["image_id"] for each in DOCUMENTS if holds(each)}
    assert found(store, clauses) == expected
    assert expected
