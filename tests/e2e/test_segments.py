"""Segments: `status` counts them, `doctor` advises to merge them, `tune --merge` does."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, new_meta
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.production import segments
from es_imgsearch.manage.production.segments import count_segments, merge_segments
from es_imgsearch.settings import Settings

DIMS = 16


def run(settings: Settings, *arguments: str) -> Result:
    runner = CliRunner(env={"ES_URL": settings.es_url})
    return runner.invoke(main, [*arguments, "--index", settings.index])


def fill(store: Store, parts: list[int], profile: str = "balanced") -> None:
    """Write documents; each part becomes a segment."""
    store.generations.create(new_meta(Seal("f", "1", DIMS, "1"), profile, "cosine"))
    settings: dict[str, Any] = {"merge.policy.segments_per_tier": 100, "refresh_interval": "-1"}
    store.connection.request("PUT", f"/{store.index}/_settings", {"index": settings})
    random, first = np.random.default_rng(1), 0
    for size in parts:
        writes = []
        for n in range(first, first + size):
            fields = {
                "image_id": str(n), "image_name": f"{n}.jpg", "root": "r", "content_id": str(n),
                "relative_path": f"{n}.jpg", VECTOR_FIELD: random.normal(size=DIMS),
            }  # fmt: skip
            writes.append(Write(str(n), document=fields))
        assert not any(store.documents.write(writes).values())
        store.refresh()
        first += size
    store.connection.request(
        "PUT", f"/{store.index}/_settings", {"index": {"refresh_interval": "1s"}}
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if some hundred pictures were many."""
    monkeypatch.setattr(segments, "_WORTH_FROM", 100)


@pytest.mark.parametrize(
    ("parts", "large", "is_advised"),
    [
        ([400], 1, False),
        ([200, 200], 2, False),
        ([80] * 5, 5, False),
        ([80] * 6, 6, True),
        # What a daemon added lately is small.
        ([900, *[3] * 8], 1, False),
        ([900, *[20] * 8], 9, True),
        # Few pictures are searched fast in any case.
        ([12] * 8, 8, False),
        ([], 0, False),
    ],
)
def test_large_segments_are_counted(
    real_store: Store, small: None, parts: list[int], large: int, is_advised: bool
):
    fill(real_store, parts)
    found = count_segments(real_store, has_graph=True)
    assert found is not None
    assert (found.total, found.most) == (len(parts), len(parts))
    assert (found.most_large, found.merge_advised) == (large, is_advised)
    without = count_segments(real_store, has_graph=False)
    assert without is not None
    assert not without.merge_advised


def test_it_is_advised_with_the_command_that_does_it(
    real_store: Store, settings: Settings, small: None
):
    fill(real_store, [80] * 7)
    shown = run(settings, "status").stdout
    assert "7 segments, at most 7 in a shard; 7 large segments are in a shard" in shown
    (command,) = re.findall(r"`(es-imgsearch tune --merge .*?)`", shown)
    done = run(settings, *shlex.split(command)[1:-2], "--no-texts")
    assert done.exit_code in {0, 1}, done.output
    assert "Merging the segments" in done.stderr
    assert "1 segment, at most 1 in a shard\n" in run(settings, "status").stdout
    assert real_store.listings.count() == 560
    found = json.loads(run(settings, "status", "--json").stdout)["segments"]
    assert found == {"total": 1, "most": 1, "most_large": 1, "merge_advised": False}


def test_a_large_shard_keeps_several(
    real_store: Store, monkeypatch: pytest.MonkeyPatch, small: None
):
    """Above 20 GB a single one would keep what is deleted."""
    fill(real_store, [300] * 7)
    path = f"/{real_store.index}/_stats/store"
    size = real_store.connection.request("GET", path)["_all"]["primaries"]["store"]["size_in_bytes"]
    monkeypatch.setattr(segments, "_LARGEST_SEGMENT_BYTES", size // 2)
    assert merge_segments(real_store)
    found = count_segments(real_store, has_graph=True)
    assert found is not None
    assert found.total in {2, 3}
