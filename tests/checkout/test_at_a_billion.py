"""Each number of the page on a billion pictures is output of `plan`, or computed from it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from es_imgsearch.cli import main
from es_imgsearch.elastic.mapping import load_profile, profile_names
from es_imgsearch.errors import readable_bytes
from es_imgsearch.manage.production.plan import (
    ASSUMED_EMBED_MS,
    ASSUMED_WRITES_PER_SECOND,
    Plan,
    make_plan,
    vector_kind,
)
from es_imgsearch.manage.production.sizes import Sizes

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs" / "explanation" / "at-a-billion.md"
PICTURES = 10**9
NODES = 24
MEMORY_GB, DISK_TB = 64, 2
# https://www.elastic.co/docs/reference/elasticsearch/configuration-reference/index-recovery-settings
RECOVERY_MB_PER_SECOND = 40
SHOWN_PLAN = "plan --pictures 1000000000 --nodes 24 --encoder-speed 400 --machines 8"


def plan(**given: object) -> Plan:
    return make_plan(PICTURES, index="images", **{"nodes": NODES, **given})  # type: ignore[arg-type]


def sizes(profile: str, nodes: int = NODES) -> Sizes:
    (only,) = plan(profile=profile, nodes=nodes).profiles
    return only.sizes


def run(arguments: str) -> str:
    ran = CliRunner(env={"ES_URL": "http://127.0.0.1:1"}).invoke(main, shlex.split(arguments))
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def fewest_nodes(profile: str) -> int:
    for nodes in range(2, 1000):
        found = sizes(profile, nodes)
        fits_memory = found.memory_per_node_bytes <= MEMORY_GB * 10**9
        if fits_memory and found.disk_per_node_bytes <= DISK_TB * 10**12:
            return nodes
    raise AssertionError(profile)


def rows_of_nodes() -> Iterator[str]:
    for profile in profile_names():
        nodes = fewest_nodes(profile)
        found = sizes(profile, nodes)
        parts = [
            found.disk_bytes, found.disk_per_node_bytes, found.memory_per_node_bytes,
            found.heap_per_node_bytes,
        ]  # fmt: skip
        cells = [f"`{profile}`", f"{nodes}", f"{found.shards}", *map(readable_bytes, parts)]
        yield f"| {' | '.join(cells)} |"


def rows_of_ingest() -> Iterator[str]:
    for machines, speed in (
        (1, 1000 / ASSUMED_EMBED_MS), (1, 400), (8, 400), (20, 400), (20, 4000),
    ):  # fmt: skip
        hours = plan(encoder_speed=speed, machines=machines).ingest_hours
        shown = f"{speed:,.1f}" if speed % 1 else f"{speed:,.0f}"
        yield f"| {machines} | {shown} | {hours:,.1f} | {machines * hours:,.1f} |"


def shown_plan() -> str:
    return run(SHOWN_PLAN).split("\n\n")[0]


def computed() -> set[str]:
    """Every number that stands in the running text, as it is written there."""
    binary, reduced = sizes("binary"), sizes("reduced")
    tuning = load_profile("binary")["_meta"]["tuning"]
    kind = vector_kind("binary", 512)
    held = binary.shards * 2 // NODES
    lost = held * binary.shard_bytes
    minutes = lost / ((NODES - 1) * RECOVERY_MB_PER_SECOND * 10**6) / 60
    compared = round(binary.shards * tuning["num_candidates"] * tuning["oversample"])
    writes = ASSUMED_WRITES_PER_SECOND * NODES / 2
    # With one shard more to merge, below the watermark of 85 %.
    without_a_node = round((held + 1 + 1) * binary.shard_bytes / 0.85)
    without_a_half = round((2 * held + 1) * binary.shard_bytes / 0.85)
    numbers = {
        f"{NODES}", f"{NODES - 1}", f"{NODES // 2}", "2", f"{held}", f"{held + 1}",
        f"{MEMORY_GB}", f"{DISK_TB}", f"{RECOVERY_MB_PER_SECOND}",
        f"{ASSUMED_EMBED_MS:.0f}", f"{ASSUMED_WRITES_PER_SECOND:,.0f}", f"{writes:,.0f}",
        f"{minutes:.1f}", f"{binary.shards}", f"{reduced.shards}",
        f"{tuning['num_candidates']}", f"{tuning['oversample']:.0f}", f"{compared:,}",
        f"{kind.whole_bytes:,}", f"{PICTURES / writes / 3600:.1f}",
        f"{plan().ingest_hours / 24 / 365:.1f}",
    }  # fmt: skip
    sizes_in_words = [
        binary.page_cache_bytes, binary.memory_per_node_bytes, binary.disk_per_node_bytes,
        binary.copy_bytes, 2 * binary.disk_bytes, binary.heap_per_node_bytes, lost,
        without_a_node, without_a_half, sizes("balanced").page_cache_bytes,
        reduced.heap_per_node_bytes, compared * kind.whole_bytes,
    ]  # fmt: skip
    return numbers | {readable_bytes(each).split()[0] for each in sizes_in_words}


def running_text() -> str:
    text = re.sub(r"```.*?```", "", PAGE.read_text("utf-8"), flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "#"))]
    # A list's own numbers, and addresses.
    return re.sub(r"^\d\.|\]\(.*?\)", "", "\n".join(lines), flags=re.MULTILINE)


def test_what_plan_prints_is_shown():
    text = PAGE.read_text("utf-8")
    assert f"```sh\nes-imgsearch {SHOWN_PLAN}\n```" in text
    assert f"```text\n{shown_plan()}\n```" in text


def test_what_the_page_on_planning_shows_is_printed():
    text = (CHECKOUT / "docs" / "how-to" / "plan-an-index.md").read_text("utf-8")
    shown = run("plan --pictures 10000000 --nodes 3").split("\n\n")[0]
    assert f"```text\n{shown}\n```" in text


def test_the_tables_are_computed():
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if re.match(r"\|.*\d", line)]
    assert lines == [*rows_of_nodes(), *rows_of_ingest()]


def test_each_number_in_the_text_is_computed():
    found = set(re.findall(r"(?<![\w/.-])\d[\d,]*(?:\.\d+)?(?![\w/])", running_text()))
    assert len(found) > 20
    assert sorted(found - computed()) == []
    # Nothing is computed for numbers that are no longer there.
    assert len(computed() & found) == len(found)


def test_a_small_heap_is_warned_of_as_the_page_says():
    assert "merges the graph of a shard in" in run(
        "plan --pictures 1000000000 --nodes 24 --profile binary --heap 2"
    )
    shown = run("plan --pictures 1000000000 --nodes 24 --profile binary --heap 8")
    assert "merges the graph" not in shown


@pytest.mark.parametrize("profile", profile_names())
def test_plans_are_sensible_from_ten_thousand_to_a_billion(profile: str):
    last = None
    for exponent in range(4, 10):
        (made,) = make_plan(10**exponent, index="images", nodes=NODES, profile=profile).profiles
        found = made.sizes
        assert found.shard_bytes <= 50e9
        assert found.shards == 1 or found.shard_bytes >= 10e9
        assert found.disk_per_node_bytes * NODES >= found.disk_bytes
        assert 10**9 <= found.heap_per_node_bytes <= 31 * 10**9
        assert found.memory_per_node_bytes > found.heap_per_node_bytes
        if last is not None:
            assert found.disk_bytes == pytest.approx(10 * last.disk_bytes, rel=1e-6)
            assert found.page_cache_bytes == pytest.approx(10 * last.page_cache_bytes, rel=1e-6)
            assert found.shards >= last.shards
        last = found
