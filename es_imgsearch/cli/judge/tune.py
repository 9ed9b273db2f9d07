"""`tune`: measure which kNN settings reach the recall of exact search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import examples, json_option, open_store, with_settings_options
from es_imgsearch.cli.printing.lines import print_json, print_line
from es_imgsearch.errors import (
    EXIT_DIFFERENCE,
    EncoderMismatch,
    EncoderUnknown,
    ModelUnavailable,
    UsageError,
    counted,
)

if TYPE_CHECKING:
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.embed.protocol import Encoder
    from es_imgsearch.quality.recall import TuningPoint
    from es_imgsearch.quality.tune import TuningResult
    from es_imgsearch.settings import Settings


@click.command(
    epilog=examples(
        "tune",
        "tune --target-recall 0.99 --plot recall.png",
        "tune --texts queries.txt --queries 1000",
        "tune --merge",
    )
)
@with_settings_options
@click.option("--target-recall", type=click.FloatRange(0, 1, min_open=True), default=0.95,
              show_default=True, help="Share of the true neighbours to be found.")  # fmt: skip
@click.option("--queries", type=click.IntRange(2, 10_000), default=400, show_default=True,
              help="Stored pictures to search with; half of them only confirm.")  # fmt: skip
@click.option("--texts", type=click.Path(path_type=Path), metavar="FILE",
              help="Texts to search with, one a line.  [default: names, captions]")  # fmt: skip
@click.option("--no-texts", is_flag=True, help="Search with stored pictures only; load no model.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE",
              help="Draw the curve of recall against latency (PNG).")  # fmt: skip
@click.option("--merge", is_flag=True, help="First merge the segments of each shard, as is worth"
              " it after a large load; needs a key of role admin.")  # fmt: skip
@json_option
def tune(
    settings: Settings,
    target_recall: float,
    queries: int,
    texts: Path | None,
    no_texts: bool,
    plot: Path | None,
    merge: bool,
    as_json: bool,
) -> None:
    """Measure how many candidates a search needs on this index, and store it there.

    Clients use the stored settings. Ends with 1 if no setting reached the target;
    the best one found is stored then.
    """
    from es_imgsearch.quality.plots import check_can_plot, plot_curve
    from es_imgsearch.quality.tune import tune as run_tune

    if texts is not None and no_texts:
        raise UsageError("--texts and --no-texts exclude each other.")
    if plot is not None:
        check_can_plot(plot)
    own_texts = None if texts is None else _texts_of(texts)
    store = open_store(settings).pinned()
    if merge:
        _merge(store)
    outcome = run_tune(
        store,
        target_recall=target_recall,
        queries=queries,
        encoder=None if no_texts else _text_encoder(store, settings, must=texts is not None),
        texts=own_texts,
        on_point=lambda point: click.echo(f"  {_line(point)}", err=True),
    )
    if as_json:
        print_json(outcome.to_dict())
    else:
        _show(outcome)
    for sentence in _verdict(outcome, settings.index):
        click.echo(sentence, err=True)
    # Last, since a plot that cannot be written ends the command.
    if plot is not None:
        plot_curve(
            outcome.curve,
            plot,
            target_recall=target_recall,
            exact_ms=outcome.exact_ms,
            chosen=[(each.k, each.num_candidates) for each in outcome.tuning.per_k],
        )
        click.echo(f"Wrote {plot}.", err=True)
    if outcome.missed:
        sys.exit(EXIT_DIFFERENCE)


def _merge(store: Store) -> None:
    from es_imgsearch.manage.production.segments import merge_segments

    click.echo("Merging the segments; searches and daemons go on.", err=True)
    if not merge_segments(store):
        click.echo("Elasticsearch is still merging and continues by itself.", err=True)


def _texts_of(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The texts {str(file)!r} cannot be read: {error}.") from error
    texts = [line.strip() for line in lines if line.strip()]
    if len(texts) < 2:
        raise UsageError(f"{str(file)!r} holds fewer than two texts; there is one to a line.")
    return texts


def _text_encoder(store: Store, settings: Settings, *, must: bool) -> Encoder | None:
    """Return the index's encoder if it embeds text and is here; else print why not."""
    from es_imgsearch.embed.context import open_encoder

    info = store.info()
    if not info.meta.seal.supports_text and not must:
        return None
    try:
        encoder = open_encoder(store, info, settings, alone=True)
        if encoder.supports_text:
            # Weights load with the first text, or turn out to be missing.
            encoder.embed_texts(["a picture"])
    except (EncoderMismatch, EncoderUnknown, ModelUnavailable) as error:
        if must:
            raise
        click.echo(f"Tuning with stored pictures only, texts need the model: {error}", err=True)
        return None
    return encoder


def _line(point: TuningPoint) -> str:
    compared = "" if point.oversample is None else f", oversample {point.oversample:g}"
    half = "held back: " if point.held_back else ""
    return (
        f"{half}k {point.k}, num_candidates {point.num_candidates}{compared}: recall"
        f" {point.recall:.3f}, {point.wall_ms:.1f} ms"
    )


def _show(outcome: TuningResult) -> None:
    kinds = sorted({kind for point in outcome.curve for kind in point.recall_by_kind})
    recalls = "".join(f"{f'recall {kind}s':>17}" for kind in kinds)
    print_line(f"  k  candidates  oversample{recalls}  took ms  wall ms  queries")
    for point in outcome.curve:
        oversample = "-" if point.oversample is None else f"{point.oversample:g}"
        recalls = "".join(f"{point.recall_by_kind.get(kind, float('nan')):17.4f}" for kind in kinds)
        print_line(
            f"{point.k:3}  {point.num_candidates:10}  {oversample:>10}{recalls}"
            f"  {point.took_ms:7.2f}  {point.wall_ms:7.2f}"
            f"  {'held back' if point.held_back else 'tuned on'}"
        )


def _verdict(outcome: TuningResult, index: str) -> list[str]:
    tuning = outcome.tuning
    stored = "; ".join(
        f"k {each.k}: num_candidates {each.num_candidates}"
        + ("" if each.oversample is None else f", oversample {each.oversample:g}")
        + f" (recall {each.recall:.3f})"
        for each in tuning.per_k
    )
    measured = (
        f"Stored in {index!r}: {stored}. Recall was measured on"
        f" {counted(tuning.queries_held_back or 0, 'query', 'queries')} held back;"
        f" {tuning.queries_tuned_on} others chose, among"
        f" {counted(tuning.pictures or 0, 'picture')}."
        f" Exact search takes {outcome.exact_ms:.1f} ms."
    )
    sentences = [measured]
    if outcome.raised_for:
        ks = ", ".join(map(str, outcome.raised_for))
        sentences.append(f"For k {ks} it was raised until the held-back queries reached it, too.")
    if outcome.missed:
        ks = ", ".join(map(str, outcome.missed))
        sentences.append(
            f"The target of {tuning.target_recall:g} was not reached for k {ks}: the stored setting"
            " is the best of those tried. Exact search (--exact, exact=True) finds everything,"
            " and so does an index of profile exact."
        )
    return sentences
