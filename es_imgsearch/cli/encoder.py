"""`encoder`: measure how this machine runs the encoder of an index the fastest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import examples, json_option, open_store, with_settings_options
from es_imgsearch.cli.output import print_json, print_line

if TYPE_CHECKING:
    from es_imgsearch.settings import Settings


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
