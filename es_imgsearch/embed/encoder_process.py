"""Encoders in processes of their own.

One process uses several cores for a batch, but not all of a large machine: then several
processes, each with its share of the cores, embed more (`workers`).  Each loads the model, so
memory grows with their number.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np

from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.embed.in_process import (
    InProcessEncoder,
    Outputs,
    PictureEncoder,
    SharedEncoder,
    words_of,
)
from es_imgsearch.embed.protocol import Encoder, Pixels
from es_imgsearch.embed.reduction import ReducedEncoder, Reduction
from es_imgsearch.embed.registry import load_encoder, spec_of
from es_imgsearch.embed.runtime.network import HasNetworks
from es_imgsearch.embed.runtime.select import run_for_pictures
from es_imgsearch.errors import EncoderMismatch, EncodersFailed, ImgSearchError, SettingsError
from es_imgsearch.read.workers import begin_child
from es_imgsearch.settings import Settings, available_cores

logger = logging.getLogger(__name__)

# A batch that ended so many processes is halved, until the picture that does it stands alone.
_PROCESSES_A_BATCH = 2
_STARTS_IN_A_ROW = 3
# What an idle process may take to end when it is asked to.
_END_SECONDS = 2.0


class EncoderEnded(Exception):
    """A batch ended one process after the other."""


class EncoderProcess:
    """An encoder in a process, which is started with the first batch and replaced when it ends.

    The thread that calls `outputs` has to stay until `end`; see `child_process`.
    """

    def __init__(self, encoder: Encoder | EncoderSource, threads: int) -> None:
        """`threads` is how many cores its libraries may use at once.

        Raises SettingsError for an encoder that cannot be pickled.
        """
        try:
            # Before its weights are loaded, and once for every process that is ever needed.
            self._pickled = pickle.dumps(encoder)
        except Exception as error:
            raise SettingsError(
                f"The encoder {encoder.name!r} cannot be sent to other processes"
                f" ({type(error).__name__}: {error}): use workers = 1."
            ) from error
        self._threads = threads
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._abandoned = False
        self._lock = threading.Lock()

    @property
    def process_id(self) -> int | None:
        """None while there is no process."""
        return None if self._process is None else self._process.pid

    def outputs(self, pixels: Pixels) -> Outputs:
        """A process that ends is replaced, and the batch done again.

        Raises EncoderEnded when it ends the next one, too; what the encoder raised; what
        `warm_up` raises; Stopped when it was abandoned.
        """
        for _ in range(_PROCESSES_A_BATCH):
            self.warm_up()
            answer = self._asked(pixels)
            if answer is not None:
                return answer
        raise EncoderEnded("The process that embedded it ended, and so did the next one.")

    def warm_up(self) -> None:
        """Have a process with its model loaded.

        Raises EncodersFailed where processes end before they get so far.
        """
        for _ in range(_STARTS_IN_A_ROW):
            if self._connection is not None:
                return
            self._start()
            if self._asked(None) is not None:
                return
        raise EncodersFailed(
            "The processes that embed pictures end before they have loaded the model: is there"
            " memory enough for so many workers?"
        )

    def end(self) -> None:
        if self._connection is not None and self._process is not None:
            self._connection.close()
            self._process.join(_END_SECONDS)
        self.abandon()

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._process is not None:
                self._process.kill()
                self._process.join()

    def _start(self) -> None:
        # fork would copy the locks of this process's threads
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        with self._lock:
            if self._abandoned:
                raise Stopped
            process = context.Process(
                target=_serve,
                args=(theirs, self._pickled, self._threads, os.getpid()),
                name="embed",
                daemon=True,
            )
            process.start()
            self._process, self._connection = process, ours
        theirs.close()

    def _asked(self, pixels: Pixels | None) -> Outputs | None:
        """The process's answer (to nothing: when its model is loaded); None if it ended."""
        if self._connection is None or self._process is None:
            return None
        try:
            if pixels is not None:
                self._connection.send(pixels)
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._connection.close()
            self._connection = None
            self._process.join()
            if self._abandoned:
                raise Stopped from None
            logger.warning(
                "A process that embeds ended (exit code %s); there will be a new one.",
                self._process.exitcode,
            )
            return None
        if isinstance(answer, BaseException):
            if pixels is None:
                # It ends without a model.
                self._connection.close()
                self._connection = None
            raise answer
        outputs: Outputs = answer
        return outputs


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """How another process makes an encoder whose networks cannot be sent there."""

    name: str
    spec: str
    revision: str
    settings: Settings
    reduction: Reduction | None = None

    @classmethod
    def of(cls, encoder: Encoder, settings: Settings) -> EncoderSource | None:
        """None for an encoder that is sent as it is."""
        reduction = None
        if isinstance(encoder, ReducedEncoder):
            reduction = encoder.reduction
            encoder = encoder.whole
        if not isinstance(encoder, HasNetworks):
            return None
        spec = settings.encoder or spec_of(encoder)
        return cls(encoder.name, spec, encoder.revision, settings, reduction)

    def encoder(self) -> Encoder:
        """Raises EncoderMismatch where that name stands for another model by now."""
        made = load_encoder(
            self.spec, models_dir=self.settings.models_dir, device=self.settings.device
        )
        if made.revision != self.revision:
            raise EncoderMismatch(
                f"The model of encoder {self.name!r} was exchanged while it is used: start again."
            )
        run_for_pictures(made, self.settings)
        return made if self.reduction is None else ReducedEncoder(made, self.reduction)


def encoders_for(shared: SharedEncoder, settings: Settings) -> list[PictureEncoder]:
    """The encoder in this process, or in as many as `workers`, which share the cores."""
    if settings.workers == 1:
        return [InProcessEncoder(shared)]
    threads = max(1, available_cores() // settings.workers)
    sent = EncoderSource.of(shared.encoder, settings) or shared.encoder
    return [EncoderProcess(sent, threads) for _ in range(settings.workers)]


def _serve(connection: Connection, pickled: bytes, threads: int, parent: int) -> None:
    """Answer batches until the other end is closed."""
    begin_child(parent)
    # A supervisor sends it to the whole group; what is in flight is to be finished first.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Read by OpenMP, which torch's kernels run on, when it is loaded.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        try:
            sent = pickle.loads(pickled)  # noqa: S301 - made by our parent
            encoder = InProcessEncoder(
                SharedEncoder(sent.encoder() if isinstance(sent, EncoderSource) else sent)
            )
            encoder.warm_up()
        except ImgSearchError as error:
            connection.send(_sendable(error))
            return
        except Exception as error:  # noqa: BLE001 - told to whoever asked; it is no picture's fault
            connection.send(EncodersFailed(f"The model cannot be loaded ({words_of(error)})."))
            return
        connection.send(Outputs(np.empty((0, 0), np.float32), ()))
        while True:
            pixels = connection.recv()
            try:
                answer: Outputs | Exception = encoder.outputs(pixels)
            except Exception as error:  # noqa: BLE001 - told to whoever asked
                answer = _sendable(error)
            connection.send(answer)
    except (EOFError, OSError):
        return


def _sendable(error: Exception) -> Exception:
    """The error itself if it survives the way between processes, else its words."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - made one line above
    except Exception:  # noqa: BLE001 - an exception's own __reduce__ may raise anything
        return RuntimeError(f"{type(error).__name__}: {error}"[:400])
    return error
