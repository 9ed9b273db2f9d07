"""The command in a process of its own, with the encoders of `testing`, which load at once.

    python -m tests.support.fake_command [--slow SECONDS] watch DIR --partition 1/3 ...

With `--slow` each batch takes so long, so that a test can meet it at work.
"""

from __future__ import annotations

import importlib
import sys
import time

from es_imgsearch.cli import main
from tests.support.other_encoders import LOADERS, encoders_by_name


def run(arguments: list[str]) -> None:
    encoders = encoders_by_name()
    if arguments[0] == "--slow":
        seconds, arguments = float(arguments[1]), arguments[2:]
        encoders["fake"].before_batch = lambda _pixels: time.sleep(seconds)
    for name in LOADERS:
        module = importlib.import_module(f"es_imgsearch.{name}")
        module.load_encoder = lambda name, **_given: encoders[name]  # type: ignore[attr-defined]
    main(arguments)


if __name__ == "__main__":
    run(sys.argv[1:])
