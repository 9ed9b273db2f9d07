"""Labels of all scripts on the plots of `tags evaluate`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from es_imgsearch.tags.confusion_plot import plot_confusion
from es_imgsearch.tags.train import FacetReport, LabelReport

pytestmark = pytest.mark.skipif(
    find_spec("justmytype_intl_cjk") is None, reason="needs the extra fonts"
)


def test_labels_of_all_scripts_are_drawn(tmp_path: Path):
    """matplotlib warns of each letter that no font has, which is an error in tests."""
    labels = [
        LabelReport(label, *(0.5,) * (len(LabelReport.__dataclass_fields__) - 1))  # type: ignore[arg-type]
        for label in ("cat", "Żółw", "東京", "서울", "หมา", "हिन्दी")
    ]
    report = FacetReport("things", "trained", 10, labels, np.eye(6, 7, dtype=np.int64))
    plot_confusion([report], tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.width > 100
