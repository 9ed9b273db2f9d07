"""`init`, `encoder`, `drop`: make an index, measure its encoder, delete the index."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import (
    Choice,
    examples,
    json_option,
    open_store,
    with_settings_options,
)
from es_imgsearch.cli.printing.lines import (
    print_json,
    print_line,
    print_on_request,
)
from es_imgsearch.errors import UsageError, counted, readable_bytes

if TYPE_CHECKING:
    from es_imgsearch.settings import Settings


@click.command(
    epilog=examples(
        "init",
        "init --encoder starter",
        "init --index products --profile compact --regions 2x2+centre",
        "init --index archive --shards 3 --replicas 1",
    )
)
@with_settings_options
@click.option("--encoder", metavar="NAME", help="Encoder of the index.  [default: clip]")
@click.option("--profile", metavar="NAME", default=None, help="Vector profile: exact, balanced,"
              " compact, binary or reduced.  [default: balanced]")  # fmt: skip
@click.option("--similarity", metavar="NAME", default=None, help="cosine, dot_product or l2_norm."
              "  [default: cosine]")  # fmt: skip
@click.option("--sample", metavar="FROM", help="Where `reduced` takes a sample of vectors: another"
              " index, or a file that `export` wrote.")  # fmt: skip
@click.option("--dims-kept", metavar="N", type=int, help="How many dims `reduced` keeps."
              "  [default: 96]")  # fmt: skip
@click.option("--originals", metavar="FILE", type=click.Path(path_type=Path), help="File of"
              " `export` (.h5) with whole vectors, by which `reduced` puts its best hits in order"
              " again.")  # fmt: skip
@click.option("--regions", metavar="[GRID]", is_flag=False, flag_value="2x2+centre", help="Keep"
              " vectors of tiles too, so that a crop finds its original; GRID is 2x2+centre if not"
              " given.")  # fmt: skip
@click.option("--shards", metavar="N", type=click.IntRange(1, 1024), help="Shards, of 10 to 50 GB"
              " each.  [default: 1]")  # fmt: skip
@click.option("--replicas", metavar="R", type=click.IntRange(0, 10), help="Further copies of each"
              " shard.  [default: 1 once there are two data nodes]")  # fmt: skip
@click.option("--preload", type=Choice(["auto", "off"]), help="Whether opened shards read"
              " graphs and quantised vectors into memory; auto: where they fit."
              "  [default: auto]")  # fmt: skip
def init(
    settings: Settings,
    profile: str | None,
    similarity: str | None,
    sample: str | None,
    dims_kept: int | None,
    originals: Path | None,
    regions: str | None,
    shards: int | None,
    replicas: int | None,
    preload: str | None,
) -> None:
    """Make the index, its alias and its templates.

    Safe to repeat: an index that is there already is checked, and only fields that it lacks are
    added.
    """
    from es_imgsearch.manage.init import create_index

    store = open_store(settings)
    outcome = create_index(
        store,
        settings,
        profile=profile,
        similarity=similarity,
        sample=sample,
        dims_kept=dims_kept,
        originals=originals,
        regions=regions,
        shards=shards,
        replicas=replicas,
        preload=preload,
    )
    click.echo(outcome, err=True)
    if outcome.startswith("Made "):
        print_on_request(store.index, settings.describers)


@click.command(epilog=examples("encoder", "encoder --again --json"))
@with_settings_options
@click.option("--again", is_flag=True, help="Measure again, also if there is a stored result.")
@json_option
def encoder(settings: Settings, again: bool, as_json: bool) -> None:
    """Measure how the index's encoder runs fastest on this machine, and store it.

    Exports it for ONNX Runtime, so that searches here need no torch, and times it in torch and in
    ONNX Runtime for some seconds.  `watch` and `sync` use the stored result; without one they
    choose by a rule.
    """
    from es_imgsearch.embed.index_encoder import sealed_encoder
    from es_imgsearch.embed.runtime.select import measure_for_pictures

    found = sealed_encoder(open_store(settings).info(), settings.index, settings)
    choice = measure_for_pictures(found, settings, again=again)
    if as_json:
        print_json(
            {"encoder": found.name, "runs_here": None if choice is None else choice.to_dict()}
        )
    elif choice is None:
        print_line(f"{found.name} embeds pictures in its own way; there is nothing to choose")
    else:
        print_line(
            f"{found.name} runs in {choice.why}; cosine to float32 in torch {choice.cosine:.5f}"
        )


@click.command(epilog=examples("drop --index demo", "drop --index demo --yes"))
@with_settings_options
@click.option(
    "--yes", is_flag=True, help="Delete without asking; needed where there is no terminal."
)
def drop(settings: Settings, yes: bool) -> None:
    """Delete the index with everything that belongs to it; the pictures' files stay.

    That is: vectors, fields, failures, generations that `reindex` keeps, what was learned, the log
    of searches, templates.  It cannot be undone, but `init` and `sync` make the index anew.
    """
    from es_imgsearch.manage.drop import belongings, drop_index

    store = open_store(settings)
    for each in belongings(store):
        documents = counted(each.documents, "document")
        click.echo(f"{each.name}: {documents}, {readable_bytes(each.size_bytes)}", err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("Add --yes to delete this.")
        click.confirm("Delete all of this? The pictures themselves stay.", abort=True, err=True)
    found = drop_index(store)
    indices = counted(len(found), "index", "indices")
    click.echo(
        f"Deleted {indices} of {store.index!r}; the files of the pictures are untouched.", err=True
    )
