"""Odd arguments do the same through a service as with Elasticsearch."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from es_imgsearch.records import image_id
from es_imgsearch.search.client import ImageSearch
from es_imgsearch.search.query import StoredPicture
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.serve.traffic.served_search import ServedSearch
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import FakeEncoder
from tests.support.gallery import served
from tests.support.house import House, house_of_module

pytestmark = [pytest.mark.es, pytest.mark.process]

FIRST = image_id("r", "000.png")


@pytest.fixture(scope="module")
def house(es_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of_module(es_url, tmp_path_factory.mktemp("arguments")) as house:
        house.pictures(4)
        house.synced()
        house.store.refresh()
        yield house


@pytest.fixture(scope="module")
def local(house: House) -> Iterator[ImageSearch]:
    with ImageSearch(settings=house.settings, encoder=FakeEncoder()) as search:
        yield search


@pytest.fixture(scope="module")
def remote(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageSearch]:
    files = PictureFiles(house.store, house.settings, tmp_path_factory.mktemp("cache"))
    service = SearchService(house.settings, ServedSearch(house.settings, FakeEncoder()))
    settings = load_settings(
        {"index": house.settings.index, "host": house.settings.host}, environment={}
    )
    with (
        served(create_app(files, service)) as url,
        ImageSearch(service=url, settings=settings) as search,
    ):
        yield search


def outcome(search: ImageSearch, ask: Any) -> Any:
    """What a call gives, or raises."""
    try:
        hits = ask(search)
    except Exception as error:  # noqa: BLE001 - also a TypeError is the same
        return type(error).__name__, str(error)
    plain = [
        (each.image_id, each.path, dict(each.fields), each.relevance, round(each.score, 5))
        for each in hits
    ]
    return plain, hits.mode, hits.facets, sorted(hits.notes), list(map(str, hits.queries))


KS = [
    10.0, 3.5, "3", None, True, False, 0, -1, 1, 2, 10_000, 10_001, 10**30, np.int64(2), np.int8(1),
    np.float64(2), np.uint64(3), float("nan"), float("inf"), b"2", [2], (2,), Decimal(2),
    Fraction(2), 1e3, np.array(2), np.bool_(True), complex(2), date(2024, 1, 1), 2**63, -(2**63),
]  # fmt: skip
OPTIONS: list[dict[str, Any]] = [
    {"fields": each} for each in (
        [], (), None, set(), frozenset(), np.array([]), np.array(["width"]), ["width"], ("width",),
        {"width"}, "width", "", [""], ["*"], ["w*"], ["nothing"], ["width", "width"], [1], [None],
        {}, {"width": 1}, b"width", 0, ["attributes.x"], ["\ud800"], iter(["width"]),
        ["image_embedding"], ["x" * 300], ["width"] * 1001,
    )
] + [
    {"facets": each} for each in (
        [], (), None, ["format"], ("format", "year"), "format", {"format"}, [1], ["nothing"], [""],
        ["\ud800"], np.array(["format"]), {}, ["format"] * 1001,
    )
] + [
    {"offset": each} for each in (0, 1, 1.0, -1, "1", None, True, np.int64(1), 10**30, 2.5)
] + [
    {"size": each} for each in (0, 1, 1.0, -1, "1", None, True, np.int64(1), 10**30, float("nan"))
] + [
    {"num_candidates": each} for each in (
        None, 10, 10.0, 1, 0, -1, "10", True, np.int64(50), 10_000, 10_001, 10**30, 2.5,
    )
] + [
    {"min_relevance": each} for each in (
        None, 0, 1, 0.5, -0.1, 1.1, "0.5", True, float("nan"), float("inf"), np.float64(0.5),
        Decimal("0.5"), np.int64(0),
    )
] + [
    {name: each} for name in ("exact", "collapse", "explain", "regions", "codes") for each in (
        True, False, None, 0, 1, "no", np.bool_(False), [],
    )
] + [
    {"mode": each} for each in ("auto", "vector", "text", "hybrid", "", None, "Vector", 1, [])
] + [
    {name: each} for name in ("since", "until") for each in (
        None, "", "2020", date(2020, 1, 1), "someday", 2020, [], np.datetime64("2020-01-01"), True,
    )
] + [
    {"weights": each} for each in (
        None, {}, {"content": 1}, {"content": 1.0, "colour": 0}, {"content": "1"}, {"nothing": 1},
        {"content": -1}, {"content": None}, {"content": float("nan")}, [], "content", {1: 1},
        {"content": True}, {"content": np.float64(1)}, {"content": 10**400},
    )
] + [
    {name: each} for name in ("filters", "without") for each in (
        None, {}, [], "format", {"format": "png"}, {"format": []}, {"format": ["png", "jpeg"]},
        {"format": None}, {"width": (1, None)}, {"width": (None, None)}, {"width": (1,)},
        {"width": (1, 2, 3)}, {"width": [1, 2]}, {"width": True}, {"width": 1.5}, {"width": "x"},
        {"width": float("nan")}, {"width": float("inf")}, {"width": (float("-inf"), 1)},
        {"width": 10**30}, {"": "x"}, {1: "x"}, {"nothing": 1}, {"format": b"png"},
        {"format": Path("png")}, {"modified_at": date(2020, 1, 1)}, {"format": {"png"}},
        {"format": {"a": 1}}, {"format": ""}, {"format": "\ud800"}, {"format": [None, "png"]},
        {"format": [[]]}, {"format": ("a", "b")}, {"location": (1, 2, "3km")}, {"tags": []},
        {"format": np.array(["png"])}, {"width": np.int64(64)},
        {"width": [float("inf")]}, {"width": [1, float("nan")]}, {"format": [("a", "b")]},
        {"root": "\udce9"}, {"format": [["png"]]}, {"width": ([1], 2)},
        {"width": np.float64("nan")}, {"width": 2**63}, {"width": -(10**400)}, {"format": object},
    )
] + [{"nothing": 1}, {"filter": {}}, {"box": (0, 0, 1, 1)}, {"box": "x"}]  # fmt: skip


@pytest.mark.parametrize("number", range(len(KS)))
def test_numbers_of_hits(local: ImageSearch, remote: ImageSearch, number: int) -> None:
    k = KS[number]
    for ask in (
        lambda search: search.search_text("red", k=k),
        lambda search: search.search(StoredPicture(FIRST), k=k),
        lambda search: search.similar(FIRST, k=k),
        lambda search: search.search_many(["red"], k=k)[0],
    ):
        assert outcome(remote, ask) == outcome(local, ask)


@pytest.mark.parametrize("number", range(len(OPTIONS)))
def test_options(local: ImageSearch, remote: ImageSearch, number: int) -> None:
    options = OPTIONS[number]
    for ask in (
        lambda search: search.search_text("red", k=3, **options),
        lambda search: search.similar(FIRST, k=3, **options),
    ):
        assert outcome(remote, ask) == outcome(local, ask), options
