import pytest

from es_imgsearch.elastic.mapping import Companion, failures_body
from es_imgsearch.elastic.server.version import (
    check,
    holds_vectors,
    with_vectors_in_source,
)
from es_imgsearch.errors import StoreRejected

SETTING = "index.mapping.exclude_source_vectors"


@pytest.mark.parametrize(
    "version",
    [
        "8.18.0", "8.18.9", "8.19.0", "8.19.13", "8.20.0", "8.19.14-SNAPSHOT", "9.0.0",
        "9.0.0-beta1", "9.1.1", "9.2.0", "9.4.3", "9.5.3", "9.10.0", "9.99.99", "9.4",
    ],
)  # fmt: skip
def test_8_18_to_9_x_is_supported(version: str) -> None:
    assert check(version) is None


@pytest.mark.parametrize(
    "version",
    ["2.19.1", "7.17.28", "8.0.0", "8.9.0", "8.17.10", "8.17", "10.0.0", "10.0.0-alpha1", "19.4.3"],
)
def test_older_and_newer_ones_are_refused_by_one_line_that_says_what_is_needed(
    version: str,
) -> None:
    with pytest.raises(StoreRejected) as refused:
        check(version)
    assert str(refused.value) == (
        f"Elasticsearch {version} is not supported: use a server of version 8.18 to 9.x."
    )


@pytest.mark.parametrize("version", ["", "nine", "9", "9.x", "9.4.3.2", "v9.4.3", "٩.٤.٣"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(StoreRejected, match="cannot be parsed"):
        check(version)


@pytest.mark.parametrize(
    ("version", "update"),
    [
        ("9.1.0", "9.1.1"),
        ("9.1.0-SNAPSHOT", "9.1.1"),
        ("9.5.0", "9.5.3"),
        ("9.5.1", "9.5.3"),
        ("9.5.2", "9.5.3"),
    ],
)
def test_a_version_with_a_known_fault_is_warned_of(version: str, update: str) -> None:
    warning = check(version)
    assert warning is not None
    assert warning.startswith(f"Elasticsearch {version} ")
    assert warning.endswith(f": update it to {update} or later.")


@pytest.mark.parametrize(
    ("version", "is_sent"),
    [
        ("8.18.0", False), ("8.19.13", False), ("9.0.4", False), ("9.1.10", False),
        ("9.2.0", True), ("9.4.3", True), ("9.10.0", True), ("9.5.0-SNAPSHOT", True),
    ],
)  # fmt: skip
def test_vectors_in_source_are_asked_for_where_the_setting_is_known(
    version: str, is_sent: bool
) -> None:
    body = {"settings": {"number_of_shards": 1}, "mappings": {}}
    expected = {"number_of_shards": 1, **({SETTING: False} if is_sent else {})}
    assert with_vectors_in_source(version, body)["settings"] == expected
    template = with_vectors_in_source(version, {"index_patterns": ["a"], "template": body})
    assert template["template"]["settings"] == expected
    assert template["index_patterns"] == ["a"]
    assert body["settings"] == {"number_of_shards": 1}


def test_which_indices_hold_vectors() -> None:
    vector = {"type": "dense_vector", "dims": 2}
    assert holds_vectors({"properties": {"a": {"type": "keyword"}, "b": vector}})
    assert holds_vectors({"properties": {"a": {"type": "nested", "properties": {"b": vector}}}})
    assert holds_vectors(Companion.BACKGROUND.body()["mappings"])
    assert not holds_vectors(failures_body()["mappings"])
    assert not holds_vectors({})
