"""`reindex` in a process of its own that stops at a moment, for a test to kill it there.

    python reindex_hooks.py INDEX URL embedding|held-back|switched

It prints the moment when it has come, and waits.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from other_encoders import LOADERS, encoders_by_name

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.elastic.switching import Switching
from es_imgsearch.manage.reindex import reindex
from es_imgsearch.settings import load_settings

BATCHES = 2
GIVEN = {"read_workers": 1, "batch_size": 5, "queue_size": 10, "encoder": "twin"}


def main(index: str, url: str, moment: str) -> None:
    def stop() -> None:
        print(moment, flush=True)
        sys.stdin.read()

    encoders = encoders_by_name()
    twin = encoders["twin"]
    if moment == "embedding":
        twin.before_batch = lambda _pixels: stop() if len(twin.batches) == BATCHES else None
    else:
        switch_to = Switching.switch_to

        def stopped(self: Switching, *given: Any) -> None:
            if moment == "switched":
                switch_to(self, *given)
            stop()

        Switching.switch_to = stopped  # type: ignore[method-assign]
    for name in LOADERS:
        module = importlib.import_module(f"es_imgsearch.{name}")
        module.load_encoder = lambda name, **_given: encoders[name]  # type: ignore[attr-defined]
    settings = load_settings({"es_url": url, "index": index, **GIVEN}, environment={})
    reindex(Store(connect(settings), index), settings)


if __name__ == "__main__":
    main(*sys.argv[1:])
