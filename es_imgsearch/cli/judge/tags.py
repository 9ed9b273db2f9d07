"""`tags` and `identify`: name what pictures show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from es_imgsearch.cli.options import (
    Group,
    examples,
    json_option,
    open_store,
    parse_box,
    with_settings_options,
)
from es_imgsearch.cli.printing.lines import print_json, print_line
from es_imgsearch.errors import UsageError

if TYPE_CHECKING:
    from es_imgsearch.quality.labels import Labels
    from es_imgsearch.settings import Settings
    from es_imgsearch.tags.train import FacetReport


F = TypeVar("F", bound=Callable[..., Any])

_MISSING_SHOWN = 3

_LABEL_OPTIONS = (
    click.argument("labels", type=click.Path(path_type=Path), required=False),
    click.option("--facet", metavar="NAME", help="Facet of labels that the vocabulary does not"
                 " know and that name none.  [default: object]"),
    click.option("--one-of", metavar="FACET", multiple=True, help="A facet of which one label is"
                 " right; may be repeated.  [default: as in the vocabulary]"),
)  # fmt: skip


def _with_labels(function: F) -> F:
    for option in reversed(_LABEL_OPTIONS):
        function = option(function)
    return function


@click.group(cls=Group)
def tags() -> None:
    """Name what pictures show: list the tags, train them on labels, measure them."""


@tags.command(
    "train",
    epilog=examples(
        "tags train labels.csv", "tags train labels.jsonl --facet scene --one-of scene"
    ),
)
@with_settings_options
@_with_labels
@json_option
def train_command(
    settings: Settings,
    labels: Path | None,
    facet: str | None,
    one_of: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train a classifier of tags on the stored vectors of labelled pictures.

    LABELS is a .csv file (path,label) or a .jsonl file; a label may name its facet, scene:beach.
    Without it, the labels of the last training are used again. Five pictures a label are the
    least. New pictures are tagged by it at once, stored ones with `describe --only tags`.
    """
    from es_imgsearch.search.client import ImageSearch
    from es_imgsearch.tags.train import train_tags

    with ImageSearch(settings=settings) as search:
        done = train_tags(search, _labels(labels), facet=facet, one_of=one_of)
    facets = done.classifier.facets
    if as_json:
        print_json(
            {
                "facets": {each.facet: list(each.labels) for each in facets},
                "pictures": done.classifier.pictures,
                "inverse_penalty": done.classifier.inverse_penalty,
                "missing": list(done.missing),
                "too_few": dict(done.too_few),
            }
        )
    _print_left_out(settings.index, done.missing, done.too_few)
    trained = "; ".join(f"{len(each.labels)} labels of {each.facet}" for each in facets)
    click.echo(
        f"Trained {trained} on {done.classifier.pictures} pictures. Tags of stored pictures:"
        f" es-imgsearch describe --only tags --index {settings.index}.",
        err=True,
    )


@tags.command(
    "evaluate", epilog=examples("tags evaluate", "tags evaluate labels.csv --plot confusion.png")
)
@with_settings_options
@_with_labels
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE",
              help="Draw the confusion matrices (PNG).")  # fmt: skip
@json_option
def evaluate_command(
    settings: Settings,
    labels: Path | None,
    facet: str | None,
    one_of: tuple[str, ...],
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure the tags of labelled pictures: zero-shot, and cross-validated.

    Prints average precision, precision and recall a label, and a confusion matrix a facet. Without
    LABELS, those of the last training are used. Nothing is stored.
    """
    from es_imgsearch.search.client import ImageSearch
    from es_imgsearch.tags.train import evaluate_tags

    if plot is not None:
        from es_imgsearch.quality.plots import check_can_plot

        check_can_plot(plot)
    with ImageSearch(settings=settings) as search:
        report = evaluate_tags(search, _labels(labels), facet=facet, one_of=one_of)
    _print_left_out(settings.index, report.missing, report.too_few)
    if as_json:
        print_json(report.to_dict())
    else:
        for each in report.facets:
            _print_facet(each)
    # Last, since a plot that cannot be written ends the command.
    if plot is not None:
        from es_imgsearch.tags.confusion_plot import plot_confusion

        plot_confusion(report.facets, plot)
        click.echo(f"Wrote {plot}.", err=True)


@tags.command("list", epilog=examples("tags list", "tags list --json"))
@with_settings_options
@json_option
def list_command(settings: Settings, as_json: bool) -> None:
    """List the words that tags are chosen from, and which of them were trained."""
    from es_imgsearch.tags.storage import load_tags

    store = open_store(settings)
    meta = store.info().meta
    stored = load_tags(store.index, store.send)
    if stored.classifier is not None:
        stored.classifier.check(meta, store.index)
    classifier = stored.classifier
    trained = {} if classifier is None else {each.facet: each for each in classifier.facets}
    if as_json:
        print_json(
            {
                "vocabulary": {
                    each.name: {"answers": each.answers, "labels": list(each.labels)}
                    for each in stored.vocabulary.facets
                },
                "is_default": stored.is_default,
                "trained": {
                    name: {
                        "answers": each.answers,
                        "thresholds": {
                            label: round(float(least), 4)
                            for label, least in zip(each.labels, each.thresholds, strict=True)
                        },
                    }
                    for name, each in trained.items()
                },
            }
        )
        return
    for facet in stored.vocabulary.facets:
        print_line(f"{facet.name} ({facet.answers}): {', '.join(facet.labels)}")
    for name, output in trained.items():
        print_line(f"trained: {name} ({output.answers}): {', '.join(output.labels)}")
    origin = "that ships" if stored.is_default else "stored with the index"
    click.echo(f"{len(stored.vocabulary.labels)} words, of the vocabulary {origin}.", err=True)
    if not meta.seal.supports_text:
        click.echo(
            f"Encoder {meta.seal.name!r} knows pictures only: of these, only trained ones are"
            " given as tags.",
            err=True,
        )


@tags.command(
    "vocabulary",
    epilog=examples("tags vocabulary > vocabulary.toml", "tags vocabulary vocabulary.toml"),
)
@with_settings_options
@click.argument("file", type=click.Path(path_type=Path), required=False)
def vocabulary_command(settings: Settings, file: Path | None) -> None:
    """Print the index's vocabulary as a file to edit (TOML), or use FILE from now on."""
    from es_imgsearch.tags.storage import load_tags, store_vocabulary
    from es_imgsearch.tags.vocabulary import read_vocabulary

    store = open_store(settings)
    store.info()
    if file is None:
        print_line(load_tags(store.index, store.send).vocabulary.source.rstrip("\n"))
        return
    vocabulary = read_vocabulary(file)
    store_vocabulary(store, vocabulary)
    click.echo(
        f"{len(vocabulary.labels)} words in {len(vocabulary.facets)} facets are used from now on."
        f" Tags of stored pictures: es-imgsearch describe --only tags --index {settings.index}.",
        err=True,
    )


@tags.command("forget", epilog=examples("tags forget", "tags forget --index products"))
@with_settings_options
def forget_command(settings: Settings) -> None:
    """Remove the trained classifier; tags come from the vocabulary alone again."""
    from es_imgsearch.tags.storage import delete_classifier

    store = open_store(settings)
    store.info()
    done = delete_classifier(store)
    click.echo(
        "Removed the trained classifier." if done else "There is no trained classifier.", err=True
    )


@click.command(
    epilog=examples(
        "identify photo.jpg",
        "identify photo.jpg --all",
        "identify shelf.jpg --box 40,60,200,320 --by attributes.brand",
    )
)
@with_settings_options
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--box", metavar="X,Y,W,H", help="Only this part of it, in pixels.")
@click.option("--by", metavar="FIELD,...", help="Fields by which neighbours vote, such as"
              " attributes.brand; the first that answers wins.  [default:"
              " product_id,title,tags]")  # fmt: skip
@click.option("--neighbours", type=click.IntRange(1, 10_000), default=10, show_default=True,
              help="How many stored pictures vote.")  # fmt: skip
@click.option("--min-relevance", type=click.FloatRange(0, 1), default=0.3, show_default=True,
              metavar="P", help="What a neighbour must reach to answer.")  # fmt: skip
@click.option("--all", "show_all", is_flag=True,
              help="Print every vote and every label with its score, too.")  # fmt: skip
@json_option
def identify(
    settings: Settings,
    file: Path,
    box: str | None,
    by: str | None,
    neighbours: int,
    min_relevance: float,
    show_all: bool,
    as_json: bool,
) -> None:
    """Print what FILE shows: names from its neighbours and its best tags, or unknown.

    Every kind of name answers for itself, the most specific one first.
    """
    from es_imgsearch.search.client import ImageSearch
    from es_imgsearch.tags.identify import NAMING_FIELDS
    from es_imgsearch.tags.identify import identify as run

    fields = NAMING_FIELDS if by is None else tuple(filter(None, by.split(",")))
    with ImageSearch(settings=settings) as search:
        found = run(
            search,
            file,
            box=None if box is None else parse_box(box),
            neighbours=neighbours,
            min_relevance=min_relevance,
            fields=fields,
        )
    if as_json:
        print_json(found.to_dict())
    else:
        if found.by is None:
            print_line(found.answer)
        for answer in found.answers:
            print_line(f"{answer.name}  ({answer.by})")
        for vote in found.votes if show_all else ():
            relevance = "-" if vote.relevance is None else f"{vote.relevance:.2f}"
            print_line(
                f"  neighbours  {vote.share:5.2f}  {vote.field}: {vote.name}"
                f"  (relevance {relevance}, {len(vote.pictures)} pictures)"
            )
        for label in found.labels if show_all else ():
            kind = "trained" if label.is_trained else "zero-shot"
            less = "" if label.is_tag else "  (no tag)"
            print_line(f"  {kind:10}  {label.score:5.2f}  {label.facet}: {label.label}{less}")
    for note in found.notes:
        click.echo(note, err=True)


def _labels(file: Path | None) -> Labels | None:
    from es_imgsearch.quality.labels import read_labels

    if file is None:
        return None
    found = read_labels(file)
    if not found.pictures:
        raise UsageError("Tags take labels of pictures (path,label), not queries or captions.")
    return found


def _print_left_out(index: str, missing: Any, too_few: Any) -> None:
    if missing:
        shown = ", ".join(missing[:_MISSING_SHOWN])
        more = " and more" if len(missing) > _MISSING_SHOWN else ""
        click.echo(
            f"{index} does not hold {len(missing)} of the pictures: {shown}{more}.", err=True
        )
    if too_few:
        shown = ", ".join(list(too_few)[:_MISSING_SHOWN])
        more = " and more" if len(too_few) > _MISSING_SHOWN else ""
        click.echo(
            f"{len(too_few)} labels have fewer than five pictures and are left out: {shown}{more}.",
            err=True,
        )


def _print_facet(report: FacetReport) -> None:
    print_line(
        f"\n{report.facet}, {report.way}: {report.pictures} pictures, mean average precision"
        f" {report.mean_average_precision:.3f}"
    )
    width = max(len("label"), *(len(each.label) for each in report.labels))
    print_line(f"  {'label':{width}}  pictures  average precision  precision  recall")
    for each in report.labels:
        precision = "-" if each.precision is None else f"{each.precision:.2f}"
        print_line(
            f"  {each.label:{width}}  {each.pictures:8}  {each.average_precision:17.3f}"
            f"  {precision:>9}  {each.recall:6.2f}"
        )
    print_line("  given, of the pictures that have the label (best score; the rest none of them):")
    for each, counts in zip(report.labels, report.confusion, strict=True):
        names = [other.label for other in report.labels] + ["(none)"]
        given = sorted(zip(counts.tolist(), names, strict=True), reverse=True)
        row = ", ".join(f"{name} {count}" for count, name in given if count)
        print_line(f"  {each.label:{width}}  {row}")
