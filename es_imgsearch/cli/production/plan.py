"""`plan`: how much disk, memory and time so many pictures take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import examples, json_option, open_store, with_settings_options
from es_imgsearch.cli.printing.lines import print_json, print_line
from es_imgsearch.errors import readable_bytes

if TYPE_CHECKING:
    from es_imgsearch.manage.production.plan import Plan
    from es_imgsearch.settings import Settings

_COLUMNS = ("profile", "disk", "page cache", "shards", "disk/node", "heap/node", "memory/node")


@click.command(
    epilog=examples(
        "plan --pictures 1000000",
        "plan --pictures 10000000 --dims 768 --nodes 3 --replicas 1",
        "plan --pictures 1000000000 --dims 512 --nodes 20 --profile binary --json",
        "plan --pictures 1000000000 --nodes 20 --encoder-speed 400 --machines 8",
    )
)
@with_settings_options
@click.option("--pictures", metavar="N", type=click.IntRange(1, 10**12), required=True,
              help="How many pictures there will be.")  # fmt: skip
@click.option("--encoder", metavar="NAME", help="Encoder of the index.  [default: that of the index"
              " if there is one, else clip]")  # fmt: skip
@click.option("--dims", metavar="D", type=click.IntRange(1, 4096), help="Dims of its vectors,"
              " where the encoder is not named or not known here.")  # fmt: skip
@click.option("--profile", metavar="NAME", help="Only this profile.  [default: all side by side]")
@click.option("--nodes", metavar="N", type=click.IntRange(1, 10_000), default=1, show_default=True,
              help="Data nodes of Elasticsearch.")  # fmt: skip
@click.option("--replicas", metavar="R", type=click.IntRange(0, 100), help="Copies of each shard"
              " besides the first.  [default: 1 with two nodes or more, else 0]")  # fmt: skip
@click.option("--heap", metavar="GB", type=click.IntRange(1, 1024), help="Java's heap of each"
              " node.  [default: what the largest merge needs]")  # fmt: skip
@click.option("--encoder-speed", metavar="N", type=click.FloatRange(0, min_open=True),
              help="Pictures a second that one machine embeds.  [default: assumed]")  # fmt: skip
@click.option("--machines", metavar="M", type=click.IntRange(1, 100_000), default=1,
              show_default=True, help="Machines that embed, each its own folders.")  # fmt: skip
@json_option
def plan(
    settings: Settings,
    pictures: int,
    dims: int | None,
    profile: str | None,
    nodes: int,
    replicas: int | None,
    heap: int | None,
    encoder_speed: float | None,
    machines: int,
    as_json: bool,
) -> None:
    """Compute disk, memory, shards and time of an index before it is made.

    Needs no Elasticsearch.  Where there is one with an index of this name, its documents, vectors
    and the speed of its encoder are measured; without, what is assumed is printed.
    """
    from es_imgsearch.manage.production.plan import make_plan, measure_index

    made = make_plan(
        pictures,
        index=settings.index,
        encoder=settings.encoder,
        dims=dims,
        nodes=nodes,
        replicas=replicas,
        profile=profile,
        measured=measure_index(open_store(settings)),
        encoder_speed=encoder_speed,
        machines=machines,
        heap_gb=heap,
    )
    if as_json:
        print_json(made.to_dict())
    else:
        _print(made)


def _print(made: Plan) -> None:
    copies = "copy" if made.replicas == 0 else "copies"
    nodes = "node" if made.nodes == 1 else "nodes"
    encoder = f" ({made.encoder})" if made.encoder else ""
    print_line(
        f"{made.pictures:,} pictures, {made.dims} dims{encoder}, {made.nodes} {nodes},"
        f" {1 + made.replicas} {copies} of each shard"
    )
    rows = [_COLUMNS]
    for each in made.profiles:
        sizes = each.sizes
        rows.append(
            (
                each.profile,
                readable_bytes(sizes.disk_bytes),
                readable_bytes(sizes.page_cache_bytes),
                f"{sizes.shards} of {readable_bytes(sizes.shard_bytes)}",
                readable_bytes(sizes.disk_per_node_bytes),
                readable_bytes(sizes.heap_per_node_bytes),
                readable_bytes(sizes.memory_per_node_bytes),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        print_line("  ".join([row[0].ljust(widths[0]), *cells]))
    machines = "one encoder" if made.machines == 1 else f"{made.machines:,} machines"
    print_line(f"First sync, {machines}: {made.ingest_hours:,.1f} hours")
    for each in made.profiles:
        print_line("")
        print_line(f"{each.profile}: {each.about}")
        for warning in each.warnings:
            print_line(f"  {warning}")
        for command in each.commands:
            print_line(f"  {command}")
        for name, value in each.settings.items():
            print_line(f"  {name}: {', '.join(value) if isinstance(value, list) else value}")
    for line in made.basis:
        click.echo(line, err=True)
