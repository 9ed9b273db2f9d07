"""What is preloaded: files by profile, and whether they fit into the memory of the nodes."""

from __future__ import annotations

import pytest

from es_imgsearch.elastic.meta_entries import ShardLayout
from es_imgsearch.manage.production.plan import vector_kind
from es_imgsearch.manage.production.preload import fitting, memory_left

GB = 10**9


@pytest.mark.parametrize(
    ("profile", "files"),
    [
        ("balanced", ("vex", "veq")), ("compact", ("vex", "veq")), ("binary", ("vex", "veb")),
        ("exact", ()), ("reduced", ("vex",)),
    ],
)  # fmt: skip
def test_the_files_of_a_profile(profile: str, files: tuple[str, ...]):
    assert fitting(vector_kind(profile, 512), 1000, ShardLayout(), [8 * GB]).files == files


@pytest.mark.parametrize(
    ("millions", "layout", "left", "is_fitting"),
    [
        # 512 dims of profile balanced: 580 bytes a picture.
        (1, ShardLayout(), [2 * GB], True),
        (1, ShardLayout(), [GB], False),
        (10, ShardLayout(), [11 * GB], False),
        (10, ShardLayout(), [12 * GB], True),
        # A shard is not divided: of three nodes one holds it.
        (10, ShardLayout(1, 0), [4 * GB] * 3, False),
        (10, ShardLayout(3, 0), [4 * GB] * 3, True),
        (10, ShardLayout(3, 1), [4 * GB] * 3, False),
        (10, ShardLayout(3, 1), [8 * GB] * 3, True),
        # Once there are two nodes, there are two copies.
        (10, ShardLayout(2), [6 * GB] * 2, False),
        (10, ShardLayout(2), [12 * GB] * 2, True),
        # The smallest node decides.
        (10, ShardLayout(3, 1), [8 * GB, 8 * GB, GB], False),
        (0, ShardLayout(), [1], True),
        (1, ShardLayout(), [], False),
        (1, ShardLayout(), [0], False),
        (1000, ShardLayout(80, 1), [128 * GB] * 20, True),
        (1000, ShardLayout(80, 1), [64 * GB] * 20, False),
    ],
)
def test_they_fit(millions: int, layout: ShardLayout, left: list[int], is_fitting: bool):
    found = fitting(vector_kind("balanced", 512), millions * 10**6, layout, left)
    assert bool(found.files) is is_fitting
    assert found.why


def test_the_heap_leaves_the_rest():
    nodes = [
        {
            "os": {"mem": {"adjusted_total_in_bytes": total}},
            "jvm": {"mem": {"heap_max_in_bytes": 4 * GB}},
        }
        for total in (16 * GB, 3 * GB)
    ]
    assert memory_left(nodes) == [12 * GB, 0]


@pytest.mark.parametrize(
    ("settings", "layout"),
    [
        ({"number_of_shards": "3"}, ShardLayout(3, 0)),
        ({"auto_expand_replicas": "0-1", "number_of_replicas": "1"}, ShardLayout()),
        ({"store": {"preload": []}}, ShardLayout(1, 0, ())),
        ({"store": {"preload": ["vex", "veb"]}}, ShardLayout(1, 0, ("vex", "veb"))),
        ({"merge": {"policy": {"max_merged_segment": "7gb"}}}, ShardLayout(1, 0, None, "7gb")),
    ],
)
def test_a_layout_is_read_from_the_settings_and_kept(
    settings: dict[str, object], layout: ShardLayout
):
    assert ShardLayout.from_settings(settings) == layout
    written = layout.to_settings()
    preload = None if layout.preload is None else list(layout.preload)
    assert written.get("store.preload") == preload
    assert written.get("merge.policy.max_merged_segment") == layout.max_merged_segment
