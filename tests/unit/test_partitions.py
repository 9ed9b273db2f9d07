"""The division of a root's files: equal parts, one for each file, by nothing but its path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from es_imgsearch.errors import UsageError
from es_imgsearch.records import Partition, Root, image_id
from es_imgsearch.records.partition import MOST_PARTITIONS, partitions

COUNTS = st.integers(1, MOST_PARTITIONS)


@given(COUNTS, st.text(st.characters(exclude_characters="\0"), min_size=1).filter(str.isprintable))
def test_each_file_is_in_one_partition(count: int, path: str):
    root = Root("r", Path("/r"))
    holding = [each for each in partitions(count) if replace(root, partition=each).holds(path)]
    assert len(holding) == 1


@given(COUNTS, st.binary(min_size=16, max_size=16))
def test_each_id_is_in_one_partition_as_elasticsearch_compares(count: int, digest: bytes):
    key = digest.hex()
    clauses = [each.clause()["range"]["image_id"] for each in partitions(count)]
    found = [c["gte"] <= key and ("lt" not in c or key < c["lt"]) for c in clauses]
    assert found.count(True) == 1
    assert found == [each.holds(key) for each in partitions(count)]


@pytest.mark.parametrize("digest", ["0" * 32, "f" * 32, "5" * 32, "5" * 15 + "6" + "0" * 16])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_the_edges_are_in_one_partition(digest: str, count: int):
    assert [each.holds(digest) for each in partitions(count)].count(True) == 1


@pytest.mark.parametrize("count", [2, 3, 7])
def test_partitions_of_one_folder_are_equally_large(count: int):
    files = [image_id("r", f"{n:05}.jpg") for n in range(6_000)]
    sizes = [sum(map(each.holds, files)) for each in partitions(count)]
    assert sum(sizes) == 6_000
    assert max(sizes) - min(sizes) < 0.1 * 6_000 / count + 100


def test_a_root_has_the_name_of_its_partition_in_state_documents():
    root = Root("r", Path("/r"))
    assert (root.key, replace(root, partition=Partition(2, 3)).key) == ("r", "r/2/3")


@pytest.mark.parametrize(
    "text",
    ["0/3", "4/3", "1/0", "1/65", "-1/3", "1/3/5", "1", "1/", "/3", "a/b", "1.0/3", "1 / 3", "",
     "１/３", "1/3 "],
)  # fmt: skip
def test_what_is_no_partition_is_refused(text: str):
    with pytest.raises(UsageError, match=r"such as 1/3, 2/3 and 3/3, at most 64, not "):
        Partition.parse(text)


@pytest.mark.parametrize(
    ("text", "number", "count"), [("1/1", 1, 1), ("64/64", 64, 64), ("02/3", 2, 3)]
)
def test_what_is_a_partition(text: str, number: int, count: int):
    assert Partition.parse(text) == Partition(number, count)
