"""`reindex` in a process of its own that stops at a moment, for a test to kill it there.

    python -m tests.support.reindex_hooks INDEX URL embedding|held-back|switched
    python -m tests.support.reindex_hooks INDEX URL together ENCODER

It prints the moment when it has come, and waits until its input ends.  `together` is the moment
before it begins; it ends with the exit code of the command then.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.elastic.switching import Switching
from es_imgsearch.errors import ImgSearchError
from es_imgsearch.manage.reindex import reindex
from es_imgsearch.settings import load_settings
from tests.support.other_encoders import LOADERS, encoders_by_name

BATCHES = 2
GIVEN = {"read_workers": 1, "batch_size": 5, "queue_size": 10, "lease_seconds": 2.0}


def main(index: str, url: str, moment: str, encoder: str = "twin") -> None:
    def stop() -> None:
        print(moment, flush=True)
        sys.stdin.read()

    encoders = encoders_by_name()
    twin = encoders["twin"]
    if moment == "embedding":
        twin.before_batch = lambda _pixels: stop() if len(twin.batches) == BATCHES else None
    elif moment != "together":
        switch_to = Switching.switch_to

        def stopped(self: Switching, *given: Any) -> None:
            if moment == "switched":
                switch_to(self, *given)
            stop()

        Switching.switch_to = stopped  # type: ignore[method-assign]
    for name in LOADERS:
        module = importlib.import_module(f"es_imgsearch.{name}")
        module.load_encoder = lambda name, **_given: encoders[name]  # type: ignore[attr-defined]
    given = {"es_url": url, "index": index, "encoder": encoder, **GIVEN}
    settings = load_settings(given, environment={})
    if moment == "together":
        stop()
    try:
        reindex(Store(connect(settings), index), settings)
    except ImgSearchError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
