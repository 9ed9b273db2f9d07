"""`init`: make an index, or add what an existing one lacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import examples, open_store, with_settings_options

if TYPE_CHECKING:
    from es_imgsearch.settings import Settings


@click.command(
    epilog=examples(
        "init",
        "init --encoder starter",
        "init --index products --profile compact --regions 2x2+centre",
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
def init(
    settings: Settings,
    profile: str | None,
    similarity: str | None,
    sample: str | None,
    dims_kept: int | None,
    originals: Path | None,
    regions: str | None,
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
    )
    click.echo(outcome, err=True)
