"""`codes`: make binary codes of stored vectors, and bring them up to date."""

from __future__ import annotations

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
from es_imgsearch.cli.printing.lines import print_json, print_line
from es_imgsearch.errors import UsageError, counted

if TYPE_CHECKING:
    from es_imgsearch.codes.coder import Method
    from es_imgsearch.settings import Settings


@click.command(epilog=examples("codes train", "codes train labels.csv --bits 256", "codes apply"))
@with_settings_options
@click.argument("action", type=Choice(["train", "apply"]))
@click.argument("labels", type=click.Path(path_type=Path), required=False)
@click.option("--method", type=Choice(["sign", "lsh", "learned"]),
              help="How codes are made.  [default: learned with LABELS, lsh without]")  # fmt: skip
@click.option("--bits", type=int, metavar="N",
              help="Length of a code, a multiple of 8.  [default: 128; sign: dims]")  # fmt: skip
@json_option
def codes(
    settings: Settings,
    action: str,
    labels: Path | None,
    method: Method | None,
    bits: int | None,
    as_json: bool,
) -> None:
    """Make binary codes of the stored vectors, for `search --codes`.

    `train` makes a coder, of a sample of the vectors or of the LABELS of some pictures, and gives
    every picture its code; new pictures get theirs when they are stored. `apply` only gives codes
    to pictures that lack them, or have one of another coder. LABELS is a .csv (path,label) or a
    .jsonl file.
    """
    if action == "train":
        _train(settings, labels, method, bits, as_json)
    elif labels is not None or method is not None or bits is not None:
        raise UsageError("`codes apply` uses the coder that the index has: it takes no options.")
    else:
        _apply(settings, as_json)


def _train(
    settings: Settings, labels: Path | None, method: Method | None, bits: int | None, as_json: bool
) -> None:
    from es_imgsearch.quality.code_training import train_codes
    from es_imgsearch.quality.labels import read_labels
    from es_imgsearch.search.client import ImageSearch

    known = None if labels is None else read_labels(labels)
    with ImageSearch(settings=settings) as search:
        trained = train_codes(search, method, bits=bits, labels=known, on_page=_print_progress)
    if trained.missing:
        click.echo(f"{len(trained.missing)} of the labelled pictures are not there.", err=True)
    if as_json:
        print_json(
            {
                **trained.entry.to_body(),
                "sample_size": trained.sample_size,
                "changed": trained.changed,
                "missing": list(trained.missing),
            }
        )
        return
    print_line(
        f"{trained.entry.method}: {trained.entry.bits} bits, from"
        f" {counted(trained.sample_size, 'vector')};"
        f" {counted(trained.changed, 'picture has', 'pictures have')} new codes"
    )


def _apply(settings: Settings, as_json: bool) -> None:
    from es_imgsearch.codes.apply import apply_codes

    changed = apply_codes(open_store(settings), on_page=_print_progress)
    if as_json:
        print_json({"changed": changed})
    else:
        print_line(f"{counted(changed, 'picture has', 'pictures have')} new codes")


def _print_progress(seen: int, changed: int) -> None:
    click.echo(f"  {counted(seen, 'picture')}, {changed} with new codes", err=True)
