"""The tests' encoder, installed for processes of ours as a package of somebody's would be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_FACTORY = """\
from es_imgsearch.testing import FakeEncoder


def create(argument, *, models_dir, device):
    return FakeEncoder()
"""


def installed_encoder(folder: Path) -> Mapping[str, str]:
    """The environment of processes that find `--encoder fake`; the package lies in `folder`."""
    metadata = folder / "tests_encoder-1.dist-info"
    metadata.mkdir(parents=True)
    (folder / "tests_encoder.py").write_text(_FACTORY, encoding="ascii")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tests-encoder\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[es_imgsearch.encoders]\nfake = tests_encoder:create\n"
    )
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{before}" if before else str(folder)}
