"""Plot confusion matrices as a PNG file, one panel per facet and method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from es_imgsearch.quality.plots import check_can_plot, save_plot
from es_imgsearch.search.sheet.fonts import Lettering
from es_imgsearch.tags.train import NONE_OF_THEM, FacetReport

# Inches: a row or column, the margin for names of labels, the smallest matrix.
_CELL, _NAMES, _MIN_MATRIX = 0.28, 2.2, 2.0
# With more labels the numbers in the cells are too small to read.
_MAX_LABELS_WITH_NUMBERS = 40


def plot_confusion(reports: Sequence[FacetReport], file: Path) -> None:
    """Plot every report's confusion matrix: right labels by predicted labels.

    Colours are shares of the row.  Raises LibraryMissing without matplotlib, UsageError if the
    file cannot be written.
    """
    check_can_plot(file)
    from matplotlib import rc_context

    words = {each.label for report in reports for each in report.labels}
    with rc_context({"font.family": ["DejaVu Sans", *_font_families(" ".join(sorted(words)))]}):
        _plot(reports, file)


def _font_families(text: str) -> list[str]:
    """Add the fonts that labels need to matplotlib's; return their names."""
    from matplotlib.font_manager import fontManager

    families = []
    for path in Lettering().files(text):
        fontManager.addfont(path)
        families.append(fontManager.ttflist[-1].name)
    return families


def _plot(reports: Sequence[FacetReport], file: Path) -> None:
    from matplotlib.figure import Figure

    facets = list(dict.fromkeys(each.facet for each in reports))
    methods = list(dict.fromkeys(each.way for each in reports))
    sides = [
        max(_MIN_MATRIX, _CELL * max(len(each.labels) for each in reports if each.facet == facet))
        + _NAMES
        for facet in facets
    ]
    figure = Figure(figsize=(len(methods) * max(sides), sum(sides)), layout="constrained")
    panels = figure.subplots(
        len(facets), len(methods), squeeze=False, gridspec_kw={"height_ratios": sides}
    )
    for report in reports:
        axes = panels[facets.index(report.facet), methods.index(report.way)]
        counts = report.confusion
        axes.imshow(
            counts / counts.sum(axis=1, keepdims=True).clip(min=1), cmap="Blues", vmin=0, vmax=1
        )
        names = [each.label for each in report.labels]
        axes.set_yticks(range(len(names)), names, fontsize=7)
        predicted = [*names, NONE_OF_THEM]
        axes.set_xticks(range(len(predicted)), predicted, fontsize=7, rotation=90)
        axes.set(xlabel="predicted", ylabel="right")
        axes.set_title(
            f"{report.facet}, {report.way}: mean average precision"
            f" {report.mean_average_precision:.2f}",
            fontsize=9,
        )
        if len(names) <= _MAX_LABELS_WITH_NUMBERS:
            for (row, column), count in np.ndenumerate(counts):
                if not count:
                    continue
                shade = "white" if count > counts[row].sum() / 2 else "black"
                axes.text(column, row, count, ha="center", va="center", fontsize=6, color=shade)
    save_plot(figure, file)
