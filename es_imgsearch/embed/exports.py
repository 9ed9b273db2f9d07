"""Networks exported for ONNX Runtime: where they are kept, and how they run.

One folder an export, `<cache>/onnx/<name>`, made whole or not at all: `network.onnx` with its
weights in `network.onnx.data`, `export.json` with what was measured of it, and what the network
needs besides.  Its name is a hash of the network, of this format and of the numbers it calculates
in, so that a changed model is exported anew.  Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from es_imgsearch.embed.network import Inputs, Network
    from es_imgsearch.embed.plan import Dtype
    from es_imgsearch.embed.protocol import Vectors

# Of the files, not of the networks: raise it when what an export holds changes.
_FORMAT: Final = 1
# The newest that onnxruntime 1.20 and torch 2.7 share.
OPSET: Final = 18

NETWORK: Final = "network.onnx"
REPORT: Final = "export.json"


@dataclass(frozen=True)
class Export:
    """A network in `folder`, ready for ONNX Runtime."""

    folder: Path

    @cached_property
    def report(self) -> dict[str, Any]:
        """What was measured when it was made; `cosine` is the least to float32 in torch."""
        report: dict[str, Any] = json.loads((self.folder / REPORT).read_text("utf-8"))
        return report

    @property
    def cosine(self) -> float:
        """The least cosine to the same network in torch, in float32, over the examples."""
        return float(self.report["cosine"])

    def runner(self, threads: int) -> OnnxRunner:
        """The network, loaded."""
        return OnnxRunner(self.folder / NETWORK, threads)


class Exports:
    """Those in the folder `onnx` of `cache`."""

    def __init__(self, cache: Path) -> None:
        self._folder = cache / "onnx"

    def path(self, network: Network, dtype: Dtype) -> Path:
        """Where this export is, or would be."""
        told = json.dumps([_FORMAT, OPSET, network.part, network.identity(), dtype])
        return self._folder / hashlib.sha256(told.encode()).hexdigest()[:24]

    def find(self, network: Network, dtype: Dtype) -> Export | None:
        """The export, if it was made."""
        folder = self.path(network, dtype)
        return Export(folder) if (folder / REPORT).is_file() else None


class OnnxRunner:
    """A network in ONNX Runtime, on the CPU."""

    def __init__(self, network: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that wait would spin for a while and take the cores from the reading workers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(network), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, inputs: Inputs) -> Vectors:
        rows: Vectors = self._session.run(None, dict(inputs))[0]
        return rows


def default_cache_dir() -> Path:
    """Where exports and measurements are kept unless the settings say otherwise."""
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("es_imgsearch"))
