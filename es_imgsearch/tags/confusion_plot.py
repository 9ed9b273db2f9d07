"""Confusion matrices as a picture: a panel a facet and way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from es_imgsearch.errors import UsageError
from es_imgsearch.quality.plots import check_can_plot
from es_imgsearch.tags.train import NONE_OF_THEM, FacetReport

# Inches: a label takes this much, and its name what a long word needs.
_CELL, _NAMES, _LEAST = 0.28, 2.2, 2.0
# More labels than these and the numbers in the cells cannot be read.
_MOST_WITH_NUMBERS = 40


def plot_confusion(reports: Sequence[FacetReport], file: Path) -> None:
    """Write every report's confusion matrix (PNG): rows are right, columns what was given.

    Colours are shares of the row.  Raises LibraryMissing without matplotlib, UsageError
    where the file cannot be written.
    """
    check_can_plot(file)
    from matplotlib.figure import Figure

    facets = list(dict.fromkeys(each.facet for each in reports))
    ways = list(dict.fromkeys(each.way for each in reports))
    sides = [
        max(_LEAST, _CELL * max(len(each.labels) for each in reports if each.facet == facet))
        + _NAMES
        for facet in facets
    ]
    figure = Figure(figsize=(len(ways) * max(sides), sum(sides)), layout="constrained")
    panels = figure.subplots(
        len(facets), len(ways), squeeze=False, gridspec_kw={"height_ratios": sides}
    )
    for report in reports:
        axes = panels[facets.index(report.facet), ways.index(report.way)]
        counts = report.confusion
        axes.imshow(
            counts / counts.sum(axis=1, keepdims=True).clip(min=1), cmap="Blues", vmin=0, vmax=1
        )
        names = [each.label for each in report.labels]
        axes.set_yticks(range(len(names)), names, fontsize=7)
        given = [*names, NONE_OF_THEM]
        axes.set_xticks(range(len(given)), given, fontsize=7, rotation=90)
        axes.set(xlabel="given", ylabel="right")
        axes.set_title(
            f"{report.facet}, {report.way}: mean average precision"
            f" {report.mean_average_precision:.2f}",
            fontsize=9,
        )
        if len(names) <= _MOST_WITH_NUMBERS:
            for (row, column), count in _counted(report):
                shade = "white" if count > counts[row].sum() / 2 else "black"
                axes.text(column, row, count, ha="center", va="center", fontsize=6, color=shade)
    try:
        figure.savefig(file, dpi=120, format="png")
    except OSError as error:
        raise UsageError(f"The plot {str(file)!r} cannot be written: {error}.") from error


def _counted(report: FacetReport) -> list[tuple[tuple[int, int], int]]:
    rows, columns = report.confusion.nonzero()
    return [
        ((int(row), int(column)), int(report.confusion[row, column]))
        for row, column in zip(rows, columns, strict=True)
    ]
