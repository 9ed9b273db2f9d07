"""Embed pictures in several processes, each with its share of the cores.

One process does not use all cores of a large machine; several (`workers`) embed more.  Each loads
the model, so memory grows with their number.
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
    EncoderOutput,
    InProcessEncoder,
    PictureEncoder,
    summarise,
)
from es_imgsearch.embed.protocol import Encoder, Pixels
from es_imgsearch.embed.reduced_encoder import ReducedEncoder
from es_imgsearch.embed.reduction import Reduction
from es_imgsearch.embed.registry import load_encoder, spec_of
from es_imgsearch.embed.runtime.network import HasNetworks
from es_imgsearch.embed.runtime.select import run_for_pictures
from es_imgsearch.errors import EncoderMismatch, EncodersFailed, ImgSearchError, SettingsError
from es_imgsearch.read.workers import begin_child
from es_imgsearch.settings import Settings, available_cores

logger = logging.getLogger(__name__)

# A batch that ended as many processes is halved, until the picture that does it is alone.
_PROCESSES_A_BATCH = 2
_STARTS_IN_A_ROW = 3
# Time for an idle process to end after its connection is closed.
_END_SECONDS = 2.0


class EncoderEnded(Exception):
    """A batch ended two processes in a row."""


class EncoderProcess:
    """An encoder in a process of its own.

    The process starts with the first batch and is replaced when it ends.  The thread that calls
    `outputs` must live until `end`: on Linux the process ends with the thread that started it
    (`read.workers.begin_child`).
    """

    def __init__(self, encoder: Encoder | EncoderSource, threads: int) -> None:
        """`threads` is the number of cores its libraries may use at once.

        Raises SettingsError for an encoder that cannot be pickled.
        """
        try:
            # Once for all processes, before its weights are loaded.
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
        """Return its id; None while there is no process."""
        return None if self._process is None else self._process.pid

    def outputs(self, pixels: Pixels) -> EncoderOutput:
        """Embed in the process; if that ends, replace it and embed again.

        Raises EncoderEnded if the second process ends too, what the encoder or `warm_up` raises,
        and Stopped after `abandon`.
        """
        for _ in range(_PROCESSES_A_BATCH):
            self.warm_up()
            if (output := self._request(pixels)) is not None:
                return output
        raise EncoderEnded("The process that embedded it ended, and so did the next one.")

    def warm_up(self) -> None:
        """Start the process if there is none, and load its model.

        Raises EncodersFailed if processes end before the model is loaded.
        """
        for _ in range(_STARTS_IN_A_ROW):
            if self._connection is not None:
                return
            self._start()
            if self._request(None) is not None:
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
        # fork would copy the locks of this process's threads.
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

    def _request(self, pixels: Pixels | None) -> EncoderOutput | None:
        """Return the output for `pixels`; None if the process ended.

        Without `pixels` (None) it waits for the model.
        """
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
                # It could not load its model, and ends.
                self._connection.close()
                self._connection = None
            raise answer
        output: EncoderOutput = answer
        return output


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """Source from which another process loads an encoder.

    It is for encoders whose networks cannot be pickled.
    """

    name: str
    spec: str
    revision: str
    settings: Settings
    reduction: Reduction | None = None

    @classmethod
    def of(cls, encoder: Encoder, settings: Settings) -> EncoderSource | None:
        """Describe an encoder; None for one that is pickled itself."""
        reduction = None
        if isinstance(encoder, ReducedEncoder):
            reduction = encoder.reduction
            encoder = encoder.whole
        if not isinstance(encoder, HasNetworks):
            return None
        spec = settings.encoder or spec_of(encoder)
        return cls(encoder.name, spec, encoder.revision, settings, reduction)

    def encoder(self) -> Encoder:
        """Load the encoder.  Raises EncoderMismatch if its model was replaced meanwhile."""
        encoder = load_encoder(
            self.spec, models_dir=self.settings.models_dir, device=self.settings.device
        )
        if encoder.revision != self.revision:
            raise EncoderMismatch(
                f"The model of encoder {self.name!r} was exchanged while it is used: start again."
            )
        run_for_pictures(encoder, self.settings)
        return encoder if self.reduction is None else ReducedEncoder(encoder, self.reduction)


def encoders_for(local: InProcessEncoder, settings: Settings) -> list[PictureEncoder]:
    """Return the encoder in this process, or in as many as `workers`.

    Several processes share the cores.  Raises SettingsError for several workers and an encoder that
    cannot be pickled.
    """
    if settings.workers == 1:
        return [local]
    threads = max(1, available_cores() // settings.workers)
    sent = EncoderSource.of(local.encoder, settings) or local.encoder
    return [EncoderProcess(sent, threads) for _ in range(settings.workers)]


def _serve(connection: Connection, pickled: bytes, threads: int, parent: int) -> None:
    """Embed batches until the other end of the connection is closed."""
    begin_child(parent)
    # A supervisor sends it to the whole process group; the batch in progress is finished first.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Read by OpenMP, which torch's kernels run on, when it is loaded.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        try:
            sent = pickle.loads(pickled)  # noqa: S301 - made by our parent
            encoder = InProcessEncoder(sent.encoder() if isinstance(sent, EncoderSource) else sent)
            encoder.warm_up()
        except ImgSearchError as error:
            connection.send(_sendable(error))
            return
        except Exception as error:  # noqa: BLE001 - sent to the parent; it is no picture's fault
            connection.send(EncodersFailed(f"The model cannot be loaded ({summarise(error)})."))
            return
        connection.send(EncoderOutput(np.empty((0, 0), np.float32), ()))
        while True:
            pixels = connection.recv()
            try:
                answer: EncoderOutput | Exception = encoder.outputs(pixels)
            except Exception as error:  # noqa: BLE001 - sent to the parent
                answer = _sendable(error)
            connection.send(answer)
    except (EOFError, OSError):
        return


def _sendable(error: Exception) -> Exception:
    """Return the error itself if it can be pickled and unpickled, else a RuntimeError."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - made one line above
    except Exception:  # noqa: BLE001 - an exception's own __reduce__ may raise anything
        return RuntimeError(f"{type(error).__name__}: {error}"[:400])
    return error
