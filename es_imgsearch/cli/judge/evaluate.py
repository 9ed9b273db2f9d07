"""`evaluate` and `calibrate`: measure answers, turn scores into probabilities."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from es_imgsearch.cli.options import (
    Choice,
    config_option,
    es_url_option,
    examples,
    json_option,
    with_settings_options,
)
from es_imgsearch.cli.printing.access import naming_the_role
from es_imgsearch.cli.printing.lines import print_json, print_line
from es_imgsearch.errors import UsageError

if TYPE_CHECKING:
    from es_imgsearch.quality.curve_fitting import CalibrationQuality
    from es_imgsearch.quality.evaluate import EvaluationReport
    from es_imgsearch.search.client import ImageSearch
    from es_imgsearch.settings import Settings


_MISSING_SHOWN = 3


@click.command(
    epilog=examples(
        "evaluate labels.csv",
        "evaluate captions/ --mode vector --mode hybrid",
        "evaluate labels.csv --index images --index images-siglip --json",
    )
)
@click.argument("labels", type=click.Path(path_type=Path))
@click.option("--index", "indices", metavar="NAME", multiple=True,
              help="Alias of the index; two are compared.  [default: images]")  # fmt: skip
@click.option("--mode", "modes", multiple=True, default=("vector",), show_default=True,
              type=Choice(["auto", "vector", "text", "hybrid", "tags"]),
              help="How to search; two are compared.")  # fmt: skip
@click.option("--by", type=Choice(["text", "image"]),
              help="Ask with the labels, or with the labelled pictures.  [default: text, where"
              " the encoder knows texts]")  # fmt: skip
@click.option("-k", "--k", "ks", type=click.IntRange(1, 10_000), multiple=True,
              default=(1, 5, 10), show_default=True, help="The k of recall@k.")  # fmt: skip
@click.option("--language", "languages", metavar="CODE", multiple=True, default=("en",),
              help="Of the captions in a folder; may be repeated.  [default: en]")  # fmt: skip
@es_url_option
@config_option
@json_option
def evaluate(
    labels: Path,
    indices: tuple[str, ...],
    modes: tuple[str, ...],
    by: str | None,
    ks: tuple[int, ...],
    languages: tuple[str, ...],
    es_url: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Search for what LABELS names and measure recall, MRR and precision.

    LABELS is a .csv file (path,label or query,path) or a .jsonl file, or a folder of pictures with
    captions in .txt files of the same names. Given two indices or modes, they are compared query by
    query.
    """
    from es_imgsearch.quality.evaluate import compare_reports
    from es_imgsearch.quality.evaluate import evaluate as run
    from es_imgsearch.quality.labels import read_labels
    from es_imgsearch.search.client import ImageSearch
    from es_imgsearch.settings import load_settings

    comparisons: list[dict[str, Any]] = []
    for language in languages:
        questions = read_labels(labels, language)
        reports = []
        for index, mode in product(indices or (None,), modes):
            settings = load_settings({"index": index, "es_url": es_url}, config=config)
            with naming_the_role(settings.index), ImageSearch(settings=settings) as search:
                texts = _label_texts(search) if questions.pictures and mode == "vector" else {}
                reports.append(
                    run(search, questions, mode=mode, by=by, ks=ks, texts=texts)  # type: ignore[arg-type]
                )
        differences = [
            {
                "first": reports[0].name,
                "second": other.name,
                "metrics": compare_reports(reports[0], other),
            }
            for other in reports[1:]
        ]
        comparisons.append({"language": language, "runs": reports, "differences": differences})
    if as_json:
        print_json(
            [
                {
                    **each,
                    "runs": [report.to_dict() for report in each["runs"]],
                    "differences": [
                        {**pair, "metrics": [asdict(metric) for metric in pair["metrics"]]}
                        for pair in each["differences"]
                    ],
                }
                for each in comparisons
            ]
        )
        return
    _print_runs(comparisons)
    for each in comparisons:
        for pair in each["differences"]:
            _print_difference(pair)


def _label_texts(search: ImageSearch) -> dict[str, str]:
    """Return what the index's vocabulary of tags embeds in place of some labels."""
    from es_imgsearch.tags.storage import load_tags

    facets = load_tags(search.store.index, search.store.send).vocabulary.facets
    return {label: text for facet in facets for label, text in facet.texts.items()}


def _print_runs(comparisons: list[dict[str, Any]]) -> None:
    named = len(comparisons) > 1
    runs: list[tuple[str, EvaluationReport]] = [
        (f"{report.name} {each['language']}" if named else report.name, report)
        for each in comparisons
        for report in each["runs"]
    ]
    for report in {report.missing: report for _, report in runs if report.missing}.values():
        shown = ", ".join(report.missing[:_MISSING_SHOWN])
        more = " and more" if len(report.missing) > _MISSING_SHOWN else ""
        click.echo(
            f"{report.index} does not hold {len(report.missing)} of the pictures: {shown}{more}.",
            err=True,
        )
    names = list(runs[0][1].metrics())
    width = max(len(name) for name, _ in runs)
    print_line(" ".join([" " * width, " queries", *(f"{name:>{len(name) + 1}}" for name in names)]))
    for name, report in runs:
        values = (f"{value:{len(metric) + 1}.3f}" for metric, value in report.metrics().items())
        print_line(" ".join([f"{name:{width}}", f"{len(report.answers):8}", *values]))


def _print_difference(pair: dict[str, Any]) -> None:
    print_line(f"\n{pair['second']} less {pair['first']}: mean, 95 % interval, queries")
    for each in pair["metrics"]:
        print_line(
            f"  {each.metric:12} {each.mean:+.3f}  [{each.low:+.3f}, {each.high:+.3f}]"
            f"  {each.better} better, {each.worse} worse  p = {each.p_value:.3f}"
        )


@click.command(epilog=examples("calibrate", "calibrate labels.csv --json"))
@with_settings_options
@click.argument("labels", type=click.Path(path_type=Path), required=False)
@json_option
def calibrate(settings: Settings, labels: Path | None, as_json: bool) -> None:
    """Fit the curves of `relevance` on labelled pictures; store them in the index.

    LABELS is a .csv file (path,label) or a .jsonl file. Searches have relevance without it, from
    the index itself; without LABELS these curves are stored, and stay the same while the index
    grows. Also draws the sample that scores are compared with, <index>-background.
    """
    from es_imgsearch.quality.calibrate import calibrate as run
    from es_imgsearch.quality.labels import read_labels
    from es_imgsearch.search.client import ImageSearch

    known = None if labels is None else read_labels(labels)
    if known is not None and not known.pictures:
        raise UsageError("Calibrating takes labels of pictures (path,label), not queries.")
    with ImageSearch(settings=settings) as search:
        found = run(search, known)
    if as_json:
        quality = {kind: asdict(each) for kind, each in found.quality.items()}
        curves = {kind: asdict(each) for kind, each in found.curves.items()}
        print_json({**asdict(replace(found, curves={}, quality={})), "curves": curves,
                    "quality": quality})  # fmt: skip
        return
    kinds = " and ".join(found.curves)
    click.echo(
        f"Calibrated queries by {kinds} of index {settings.index!r} against {found.background}"
        " pictures.",
        err=True,
    )
    if found.missing:
        click.echo(f"{len(found.missing)} of the labelled pictures are not there.", err=True)
    for kind, quality_of in found.quality.items():
        _print_quality(kind, quality_of)


def _print_quality(kind: str, quality: CalibrationQuality) -> None:
    print_line(
        f"{kind}: {quality.searches} searches, half of them for things that no picture shows;"
        f" {quality.share_right:.0%} of {quality.hits} hits right; held out, Brier"
        f" {quality.brier:.3f} ({quality.brier_of_share:.3f} by the share alone)"
    )
    print_line("  relevance   hits  precision  right hits kept  false acceptances")
    for each in quality.cut_offs:
        precision = "-" if each.precision is None else f"{each.precision:.2f}"
        print_line(
            f"  from {each.at_least:.1f} {each.hits:9}  {precision:>9}  {each.recall:15.2f}"
            f"  {each.false_acceptances:17.2f}"
        )
