"""Every operation of `/openapi.json` answers as it is described there, whatever is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.core.result import Ok
from schemathesis.generation.feedback import FeedbackSources
from schemathesis.pytest._test_builder import build_operation_test
from schemathesis.specs.openapi.schemas import OpenApiSchema

from es_imgsearch.search.client import ImageSearch
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.openapi.description import examples, operations
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles
from tests.support.gallery import served
from tests.support.house import house_of_module

pytestmark = [pytest.mark.es, pytest.mark.process]

_CONFIGURATION = {
    "seed": 18,
    "generation": {"max-examples": 20, "deterministic": True},
    "checks": {
        # A schema cannot say that the words of a search must not cancel each other.
        "positive_data_acceptance": {
            "expected-statuses": ["2xx", "3xx", "400", "404", "422", "431"],
        },
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def site(es_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service of 42 pictures and a broken file; one is that of the examples, with a copy."""
    home = tmp_path_factory.mktemp("description")
    with house_of_module(es_url, home, "photos") as house:
        house.pictures(40, "2024")
        house.picture("2024/sofa.jpg", 40)
        house.picture("2024/sofa (1).jpg", 40)
        (house.folder / "broken.png").write_bytes(b"no picture")
        house.synced()
        pictures = PictureFiles(house.store, house.settings, home / "cache")
        search = ImageSearch(settings=house.settings, encoder=house.encoder)
        service = SearchService(house.settings, search, originals=pictures)
        with served(create_app(pictures, service)) as each:
            yield each


@pytest.fixture(scope="module")
def description(site: str) -> dict[str, Any]:
    described: dict[str, Any] = requests.get(f"{site}/openapi.json", timeout=30).json()
    return described


@pytest.fixture(scope="module")
def schema(description: dict[str, Any]) -> OpenApiSchema:
    config = SchemathesisConfig.from_dict(_CONFIGURATION)
    return schemathesis.openapi.from_dict(description, config=config)


@pytest.mark.parametrize("label", examples())
def test_an_operation_answers_as_it_is_described(
    site: str, schema: OpenApiSchema, label: str
) -> None:
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=site)

    found = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
    (operation,) = [each for each in found if each.label == label]
    test = build_operation_test(
        config=schema.config,
        operation=operation,
        test_func=ask,
        given_kwargs={},
        feedback=FeedbackSources(),
        explicit_settings=settings(
            derandomize=True, deadline=None, database=None, max_examples=20,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    test()


def test_every_operation_has_an_example(description: dict[str, Any]) -> None:
    described = {f"{method} {path}": each for method, path, each in operations(description)}
    assert described.keys() == examples().keys()
    for label, operation in described.items():
        given = {each["name"] for each in operation.get("parameters", ()) if "example" in each}
        required = {each["name"] for each in operation.get("parameters", ()) if each["required"]}
        assert required <= given, label
        body = operation.get("requestBody", {}).get("content", {})
        assert not body or "example" in body["application/json"], label
        assert operation["description"], label


@pytest.mark.parametrize("label", examples())
def test_an_example_works(site: str, label: str) -> None:
    example = examples()[label]
    method, path = label.split()
    parameters = dict(example.get("parameters", {}))
    url = site + path.format(image_id=parameters.pop("image_id", ""))
    answer = requests.request(
        method, url, params=parameters, json=example.get("body"), timeout=30
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"] == "application/json":
        assert _names(example["answer"]) <= _names(answer.json()), label
    elif "answer" in example:
        assert example["answer"].partition("{")[0] in answer.text


def _names(value: Any) -> set[str]:
    """Names of an object, and of the first object in each of its lists."""
    if isinstance(value, list):
        return _names(value[0]) if value else set()
    if not isinstance(value, dict):
        return set()
    below = {f"{name}.{each}" for name, part in value.items() for each in _names(part)}
    return {*value} | {each for each in below if not each.startswith(("roots.", "year."))}
