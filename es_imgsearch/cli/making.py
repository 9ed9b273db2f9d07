"""`init`: what is done once to an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.shared import open_store, with_settings_options

if TYPE_CHECKING:
    from es_imgsearch.settings import Settings


@click.command()
@with_settings_options
@click.option("--encoder", metavar="NAME", help="Encoder of the index.  [default: clip]")
@click.option("--profile", metavar="NAME", default=None, help="Vector profile: exact, balanced,"
              " compact or binary.  [default: balanced]")  # fmt: skip
@click.option("--similarity", metavar="NAME", default=None, help="cosine, dot_product or l2_norm."
              "  [default: cosine]")  # fmt: skip
def init(settings: Settings, profile: str | None, similarity: str | None) -> None:
    """Make the index, its alias and its templates.

    Safe to repeat: an index that is there already is checked, and only fields that it lacks are
    added.
    """
    from es_imgsearch.creation import create_index

    store = open_store(settings)
    outcome = create_index(store, settings, profile=profile, similarity=similarity)
    click.echo(outcome, err=True)
