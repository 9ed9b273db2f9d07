"""An encoder for actors of Ray: it notes each picture, and does what one's colour says.

It imports no more than an encoder does: every actor that a test starts imports this.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

from es_imgsearch.embed.protocol import Pixels, Vectors
from es_imgsearch.testing import FakeEncoder
from tests.support.encoder_hooks import HANGS, KILLS, near

GATE_SECONDS = 60.0


class NotingEncoder(FakeEncoder):
    """Notes what it embeds in its folder, a file for each process.

    After `gate_after` pictures a process waits until the file `go` is there.
    """

    def __init__(self, folder: Path, gate_after: int | None = None) -> None:
        super().__init__()
        self.folder = folder
        self.gate_after = gate_after
        folder.mkdir(exist_ok=True)

    def embed_images(self, pictures: Pixels) -> Vectors:
        if self.gate_after is not None and self.pictures_embedded >= self.gate_after:
            self._wait_for_go()
        for each in pictures:
            mean = each.reshape(-1, 3).mean(axis=0)
            if near(mean, KILLS):
                os.kill(os.getpid(), signal.SIGKILL)
            if near(mean, HANGS):
                threading.Event().wait()
        with (self.folder / f"{os.getpid()}.noted").open("a") as file:
            file.writelines(f"{digest(each)}\n" for each in pictures)
        return super().embed_images(pictures)

    def _wait_for_go(self) -> None:
        deadline = time.monotonic() + GATE_SECONDS
        while not (self.folder / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)

    def noted(self) -> Counter[str]:
        """How often each picture was embedded by all processes, by its digest."""
        return Counter(
            line
            for path in self.folder.glob("*.noted")
            for line in path.read_text("utf-8").splitlines()
        )

    def processes(self) -> list[int]:
        """Those that embedded something, in no order."""
        return [int(path.stem) for path in self.folder.glob("*.noted")]


def digest(picture: Pixels) -> str:
    """Name a picture by its pixels."""
    return hashlib.blake2b(picture.tobytes(), digest_size=8).hexdigest()
