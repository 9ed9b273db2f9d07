"""Plot recall against latency as a PNG file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from es_imgsearch.errors import LibraryMissing, UsageError
from es_imgsearch.files.formats import check_can_write
from es_imgsearch.quality.recall import TuningPoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_can_plot(file: Path) -> None:
    """Raise LibraryMissing without matplotlib, UsageError for an unwritable file."""
    if find_spec("matplotlib") is None:
        raise LibraryMissing(
            "A plot needs matplotlib, which is not installed: pip install 'es-imgsearch[plot]'."
        )
    check_can_write(file)


def plot_curve(
    points: Sequence[TuningPoint],
    file: Path,
    *,
    target_recall: float,
    exact_ms: float,
    chosen: Sequence[tuple[int, int]],
) -> None:
    """Plot recall over the median round trip (ms), one line per k and oversample.

    `chosen` are the stored pairs (k, num_candidates); `exact_ms` is the time of a search that
    compares every vector.  Raises LibraryMissing, or UsageError if the file cannot be written.
    """
    check_can_plot(file)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    tuned_on = [point for point in points if not point.held_back]
    lines = sorted({(point.k, point.oversample) for point in tuned_on}, key=str)
    for k, oversample in lines:
        line = [each for each in tuned_on if (each.k, each.oversample) == (k, oversample)]
        label = f"k = {k}" + ("" if oversample is None else f", oversample {oversample:g}")
        axes.plot([p.wall_ms for p in line], [p.recall for p in line], "o-", ms=4, label=label)
        for point in line:
            if (k, point.num_candidates) in chosen:
                axes.annotate(
                    f"{point.num_candidates} candidates",
                    (point.wall_ms, point.recall),
                    textcoords="offset points",
                    xytext=(6, -12),
                    fontsize=8,
                )
    axes.axhline(target_recall, color="grey", ls="--", lw=1, label=f"target {target_recall:g}")
    axes.axvline(exact_ms, color="grey", ls=":", lw=1, label=f"exact search, {exact_ms:.3g} ms")
    axes.set(xlabel="median round trip [ms]", ylabel="recall@k", ylim=(None, 1.005))
    axes.legend(loc="lower right", fontsize=8)
    axes.grid(alpha=0.3)
    save_plot(figure, file)


def save_plot(figure: Figure, file: Path) -> None:
    """Write a figure as a PNG file; raise UsageError if it cannot be written."""
    try:
        figure.savefig(file, dpi=120, format="png")
    except OSError as error:
        raise UsageError(f"The plot {str(file)!r} cannot be written: {error}.") from error
